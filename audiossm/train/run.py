"""A training run that can be stopped and gone on with: weights, their average, the optimizer."""

import copy
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

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
    ) -> None:
        self.trainee, self.product, self.ema_keep, self.step = trainee, product, ema, 0
        self.ema = copy.deepcopy(product).requires_grad_(False)
        learnt = [p for p in trainee.parameters() if p.requires_grad]
        matrices = [p for p in learnt if p.dim() >= 2]
        vectors = [p for p in learnt if p.dim() < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.trainee.parameters()).device

    def advance(self, loss: Tensor, lr: float, grad_clip: float) -> Tensor:
        """Take one step down ``loss``; return the norm of the gradient. A broken one is skipped.

        Nothing here waits for the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no hint for it
        norm = torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), grad_clip)
        # a fused AdamW leaves everything as it is where this is 1 (so does torch.amp.GradScaler)
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        keep = min(self.ema_keep, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            ours: list[Tensor] = list(self.product.parameters())
            average: list[Tensor] = list(self.ema.parameters())
            torch._foreach_lerp_(average, ours, 1 - keep)
        self.step += 1
        return norm

    def save(self, path: Path, lessons: dict[str, Tensor] | None = None) -> None:
        """Write everything that the next step depends on; an older file is replaced whole.

        ``lessons`` are tensors beside the weights, as ``Lessons.state_dict()`` has them.
        """
        state = {
            "lessons": lessons or {},
            "trainee": self.trainee.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        fresh = path.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(path)

    def load(self, path: Path) -> dict[str, Tensor]:
        """Go on from what ``save`` wrote; return its ``lessons``."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.trainee.load_state_dict(state["trainee"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        lessons: dict[str, Tensor] = state["lessons"]
        return lessons
