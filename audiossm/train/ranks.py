"""The processes that train one network together: those that torchrun starts, or one alone."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from audiossm.errors import ConfigError
from audiossm.models import choose_device

__all__ = ["ALONE", "Ranks"]

T = TypeVar("T")

PATIENCE = timedelta(hours=6)  # while the first process decodes a corpus


class Ranks:
    """One of ``count`` processes that have every ``count``-th row of each batch.

    So row r of a batch goes to process r % count, whatever the batch has. All of them draw the
    numbers of a whole batch, from generators that stay alike, and take their rows' ones: a run
    hears the same on any number of processes. Only what ``apart`` draws is each one's own.

    Args:
        number: from 0; the first one evaluates, writes and tells.
        count: of processes.
        device: this one's.
    """

    def __init__(self, number: int = 0, count: int = 1, device: str = "cpu") -> None:
        self.number, self.count, self.device = number, count, device

    @classmethod
    def join(cls, device: str) -> "Ranks":
        """Meet the other processes, if torchrun started this one; else be alone.

        Args:
            device: as one process has it; of several each takes a card of its own.

        Raises:
            ConfigError: there are fewer cards than processes here.
            DeviceError: there is no such device here.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls(device=str(choose_device(device)))
        # not every build has them
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch has no hint
        from torch.distributed.rendezvous import rendezvous

        local = int(os.environ["LOCAL_RANK"])
        if device == "cuda":
            cards = torch.cuda.device_count()
            if local >= cards:
                raise ConfigError(
                    f"process {local} of this machine has no card of its own: there are {cards}; "
                    "give torchrun fewer by --nproc_per_node, or the script --device cpu"
                )
            device = f"cuda:{local}"
            torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        store, number, count = next(rendezvous("env://", timeout=PATIENCE))
        # torchrun's store outlives workers: a restart's mustn't find the addresses of dead ones
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        distributed.init_process_group(
            backend,
            timeout=PATIENCE,
            store=PrefixStore(f"attempt-{attempt}", store),
            rank=number,
            world_size=count,
        )
        return cls(number, count, device)

    @property
    def leads(self) -> bool:
        """Whether it is this one that evaluates, writes and tells."""
        return self.number == 0

    def leave(self) -> None:
        """Wait for the others, then part: all processes but the first end here.

        At once, as threads of the group that want the interpreter while it ends would abort it.
        """
        self.wait()
        if self.count > 1:
            distributed.destroy_process_group()
            if not self.leads:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)

    def tell(self, row: dict[str, float], log: Path) -> None:
        """Print a row of a log and append it to its file, if this is the first process."""
        if self.leads:
            line = json.dumps(row)
            print(line, flush=True)
            with log.open("a") as file:
                print(line, file=file)

    def wait(self) -> None:
        """Wait for the others."""
        self.total([0.0])

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process do this before the others: they find what it has cached."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def part(self, rows: int, named: str = "rows of a batch") -> int:
        """Return how many of a batch's rows, as ``named`` in what can be set, each process has.

        Raises:
            ConfigError: they can't be shared evenly.
        """
        if rows % self.count or not rows:
            raise ConfigError(
                f"{self.count} processes can't share {rows} {named} evenly: "
                f"it takes a multiple of {self.count}"
            )
        return rows // self.count

    def own(self, rows: Sequence[T]) -> Sequence[T]:
        """Return what is this process's of a sequence over a batch's rows."""
        return rows[self.number :: self.count]

    def own_rows(self, x: Tensor) -> Tensor:
        """Return the rows of ``x`` that are this process's."""
        return x[self.number :: self.count] if self.count > 1 else x

    def rand(self, rows: int, *shape: int, device: torch.device) -> Tensor:
        """Draw (rows, *shape) float32, uniform in [0, 1), for this process's ``rows``."""
        return self.own_rows(torch.rand(rows * self.count, *shape, device=device))

    def randn(self, rows: int, *shape: int, device: torch.device) -> Tensor:
        """Draw (rows, *shape) float32, normal, for this process's ``rows``."""
        return self.own_rows(torch.randn(rows * self.count, *shape, device=device))

    def randint(self, high: int, rows: int, *shape: int, device: torch.device) -> Tensor:
        """Draw (rows, *shape) int64 in [0, high) for this process's ``rows``."""
        return self.own_rows(torch.randint(high, (rows * self.count, *shape), device=device))

    def uniform(self, low: float, high: float, rows: int, *, device: torch.device) -> Tensor:
        """Draw (rows, 1) float32 in [low, high) for this process's ``rows``."""
        drawn = torch.empty(rows * self.count, 1, device=device).uniform_(low, high)
        return self.own_rows(drawn)

    @contextmanager
    def apart(self, device: torch.device) -> Iterator[None]:
        """Draw other numbers here than the others do (dropout), and go on alike afterwards."""
        if self.count == 1:
            yield
            return
        on_card = device.type == "cuda"
        state = torch.cuda.get_rng_state(device) if on_card else torch.get_rng_state()
        digest = hashlib.sha256(state.numpy().tobytes() + bytes([self.number])).digest()
        with torch.random.fork_rng([device] if on_card else []):
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
            yield

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of the processes' numbers; the device isn't waited for."""
        if self.count == 1:
            return [float(number) for number in numbers]
        sums = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(sums)
        return [float(number) for number in sums]

    def agree(self, number: float) -> float:
        """Return the first process's number, such as its clock's."""
        return self.total([number if self.leads else 0.0])[0]

    def shares(self, counts: Sequence[float]) -> list[float]:
        """Return what means over so many things are worth here.

        The mean over processes of means times these is the mean over all things: losses that are
        weighted so give the gradient of a batch that is whole.
        """
        if self.count == 1:
            return [1.0] * len(counts)
        sums = self.total(counts)
        return [self.count * mine / max(all_, 1.0) for mine, all_ in zip(counts, sums, strict=True)]

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of the processes' ``x``, without gradients."""
        mean = x.detach().clone()
        if self.count > 1:
            distributed.all_reduce(mean)
            mean /= self.count
        return mean

    def whole(self, x: Tensor) -> Tensor:
        """Return the mean of the processes' ``x`` with the gradient of this one's.

        Of what is made of such means alone, a quotient of sums over a batch perhaps, the mean over
        processes of gradients is the gradient of a batch that is whole.
        """
        return x if self.count == 1 else x + (self.mean(x) - x.detach())

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype, such as gradients, by their means over the processes."""
        if self.count == 1:
            return
        sent = self.mean(torch.cat([x.flatten() for x in tensors]))
        parts = torch.split(sent, [x.numel() for x in tensors])
        means = [part.view_as(x) for part, x in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(list(tensors), means)

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors over a batch's rows whole, on each process."""
        return {name: self.gather_rows(tensor) for name, tensor in tensors.items()}

    def gather_rows(self, x: Tensor) -> Tensor:
        """Return the rows of all processes in the batch's order."""
        if self.count == 1:
            return x
        parts = [torch.empty_like(x.contiguous()) for _ in range(self.count)]
        distributed.all_gather(parts, x.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    def wrap(self, trainee: nn.Module, *, halved: bool = False) -> nn.Module:
        """Let a trainee's backward average gradients over the processes, while it goes on.

        Args:
            trainee: the same on all, on its device; each step uses the same of its parameters.
            halved: send gradients as bfloat16, half the bytes.

        Returns:
            what is to be called in the trainee's place; the trainee itself, if this one is alone.
        """
        if self.count == 1:
            return trainee
        # layers are compiled one by one, so torch needn't cut graphs where buckets end
        torch._dynamo.config.optimize_ddp = False
        wrapped = DistributedDataParallel(
            trainee, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
        )
        if halved:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            wrapped.register_comm_hook(None, bf16_compress_hook)
        return wrapped


ALONE = Ranks()
