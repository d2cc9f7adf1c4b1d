"""A training run that can be stopped and gone on with: weights, their average, the optimizer."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from audiossm.errors import ModelError
from audiossm.train.kept import read_kept, write_kept
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["Run"]

Product = TypeVar("Product", bound=nn.Module)


class Run(Generic[Product]):
    """AdamW over a trainee, with an exponential average of the part of it that is kept.

    Matrices decay, vectors don't; what requires no gradient stays as it is.

    Args:
        trainee: on its device.
        product: the part of the trainee that training is for.
        lr: peak learning rate; the recipe sets each step's.
        weight_decay: of matrices.
        ema: part of the average that a step keeps, once it is warm.
        betas: of AdamW.
        apart: modules of the trainee that have a learning rate of their own and are clipped by
            themselves; the rest of it is one part, and these together are another.
        ranks: the processes whose gradients a step takes the mean of; where a wrapped trainee's
            backward does so already, it is left out.
    """

    def __init__(
        self,
        trainee: nn.Module,
        product: Product,
        *,
        lr: float,
        weight_decay: float,
        ema: float,
        betas: tuple[float, float],
        apart: Sequence[nn.Module] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.trainee, self.product, self.ema_keep, self.step = trainee, product, ema, 0
        self.ema = copy.deepcopy(product).requires_grad_(False)
        learnt = [p for p in trainee.parameters() if p.requires_grad]
        others = {id(p) for module in apart for p in module.parameters()}
        parts = [[p for p in learnt if (id(p) in others) is told] for told in (False, True)]
        self.parts = [part for part in parts if part]
        # what a captured step reads of the host's numbers lies on the device
        self.lrs = [torch.full((), lr, dtype=torch.float32, device=self.device) for _ in self.parts]
        self.toward = torch.zeros((), device=self.device)  # what the average takes of a step
        groups: list[dict[str, Any]] = []
        for part, rate in zip(self.parts, self.lrs, strict=True):
            groups.append({"params": [p for p in part if p.dim() >= 2], "lr": rate})
            vectors = [p for p in part if p.dim() < 2]
            groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(
            groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True
        )
        pairs = zip(product.parameters(), self.ema.parameters(), strict=True)
        self.averaged = [(ours, average) for ours, average in pairs if ours.requires_grad]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.trainee.parameters()).device

    def restart(self) -> None:
        """Go back to step 0 with the weights that the trainee has now."""
        self.ema.load_state_dict(self.product.state_dict())
        self.optimizer.state.clear()
        self.step = 0

    def advance(self, loss: Tensor, lr: float, grad_clip: float) -> Tensor:
        """Take one step down ``loss``; return the norm of the gradient. A broken one is skipped.

        Nothing here waits for the device.
        """
        self.begin_step(*[lr] * len(self.lrs))
        norm: Tensor = torch.linalg.vector_norm(torch.stack(self.descend(loss, grad_clip)))
        return norm

    def begin_step(self, *lrs: float) -> None:
        """Count a step and tell the device its learning rates, one for each part."""
        for rate, lr in zip(self.lrs, lrs, strict=True):
            rate.fill_(lr)
        self.toward.fill_(1 - min(self.ema_keep, (1 + self.step) / (10 + self.step)))
        self.step += 1

    def descend(self, loss: Tensor, grad_clip: float) -> list[Tensor]:
        """Do the device's share of a step; return the norm of each part's gradient.

        It can be captured as a part of a CUDA graph.
        """
        self.optimizer.zero_grad(set_to_none=True)
        # no gradient for what this run doesn't train: torch has no hint for backward
        learnt = [p for part in self.parts for p in part]
        loss.backward(inputs=learnt)  # type: ignore[no-untyped-call]
        self.ranks.average_([p.grad for p in learnt if p.grad is not None])
        norms = [torch.nn.utils.clip_grad_norm_(part, grad_clip) for part in self.parts]
        # a fused AdamW leaves everything as it is where this is 1 (so does torch.amp.GradScaler)
        broken = (~torch.stack(norms).isfinite()).any().float()
        self.optimizer.found_inf = broken  # type: ignore[attr-defined]
        self.optimizer.step()
        with torch.no_grad():
            ours, averages = zip(*self.averaged, strict=True)
            # not a lerp, which would wait for a weight on the device
            steps = torch._foreach_sub(ours, averages)
            torch._foreach_mul_(steps, self.toward)
            torch._foreach_add_(averages, steps)
        return norms

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Undo, at the end, what the device's share of steps did to weights, average and optimizer.

        What a first step makes is there then: the optimizer's state, as if there had been no step.
        """
        kept = [p for part in self.parts for p in part] + [average for _, average in self.averaged]
        before = [(tensor, tensor.detach().clone()) for tensor in kept + self.moments()]
        yield
        with torch.no_grad():
            for tensor in self.moments():
                tensor.zero_()
            for tensor, old in before:
                tensor.copy_(old)
        self.optimizer.zero_grad(set_to_none=True)

    def moments(self) -> list[Tensor]:
        """Return the tensors of the optimizer's state."""
        return [x for state in self.optimizer.state.values() for x in state.values()]

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Let the optimizer's step be captured meanwhile; a fused one is the same either way."""
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        yield
        for group in self.optimizer.param_groups:
            group["capturable"] = False

    def save(
        self, path: Path, lessons: dict[str, Tensor] | None = None, ranks: Ranks = ALONE
    ) -> None:
        """Write everything that the next step depends on; an older file is replaced whole.

        Of several processes, in which everything is the same, only the first one writes.
        ``lessons`` are tensors beside the weights, as ``Lessons.state_dict()`` has them.
        """
        if ranks.leads:
            write_kept(self.state_dict() | {"lessons": lessons or {}}, path)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        state = {
            "trainee": self.trainee.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def load(self, path: Path) -> dict[str, Tensor]:
        """Go on from what ``save`` wrote; return its ``lessons``.

        Raises:
            ModelError: it is damaged, or of another network.
        """
        state = read_kept(path, self.device)
        self.load_state_dict(state, path)
        lessons: dict[str, Tensor] = state["lessons"]
        return lessons

    def load_state_dict(self, state: dict[str, Any], path: Path) -> None:
        """Go on from what ``state_dict`` returned, which ``path`` has kept.

        Raises:
            ModelError: it is of another network.
        """
        try:
            self.trainee.load_state_dict(state["trainee"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as exc:
            raise ModelError(
                f"{path}: of a network with other sizes: give the command that it was made with, "
                "or another folder by --out"
            ) from exc
        for i, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.lrs[i // 2]  # that of the file is another tensor
        self.step = state["step"]
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
