"""A network's pure step as it is exported and run: what goes in, what comes out, in which sizes."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # it brings a compiler
    from audiossm.loops import Loop

__all__ = ["FRAME_COUNTS", "Precision", "Step", "hash_sizes"]

S = TypeVar("S")

Precision = Literal["float32", "bytes", "int8"]
FRAME_COUNTS = (1, 4, 64)
# counts up when a step computes something else: graphs of before are then refused
GRAPH_VERSION = 2


def _keep(state: S) -> S:
    return state


@dataclass(frozen=True)
class Step(Generic[S]):
    """A step that runs by torch, or as a graph of the same network.

    Attributes:
        name: of the graph's files.
        network: holds the weights.
        call: from (network, x, state) to (outputs, new state); pure.
        init_state: makes the state of a batch.
        unit: a frame's length along dimension 1 of ``x``.
        width: the dimensions of ``x`` after (batch, frames * unit).
        outputs: name and frame axis of each output.
        sizes: 32 hex digits that tell networks of other sizes apart.
        settle: gives the state that a session shows; it has the same future.
        unused: weights whose name begins so, or with one of several, have no part in it.
        patience: frames that a stream brings for a graph of several frames before that is loaded,
            which takes some time; 0 if the result is to be the same to the last bit.
        make_loop: makes the compiled loop of the same step; it raises ModelError if the network is
            of a kind that has none.
    """

    name: str
    network: nn.Module
    call: Callable[[Any, Tensor, S], tuple[tuple[Tensor, ...], S]]
    init_state: Callable[[int], S]
    unit: int
    outputs: tuple[tuple[str, int], ...]
    sizes: str
    width: tuple[int, ...] = ()
    settle: Callable[[S], S] = _keep
    unused: str | tuple[str, ...] | None = None
    patience: int = 0
    make_loop: "Callable[[], Loop[S]] | None" = None

    def example(self, num_frames: int) -> Tensor:
        """Return an ``x`` of so many frames."""
        return torch.zeros(1, num_frames * self.unit, *self.width)

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters and buffers by name."""
        return self.parameters() | self._take(self.network.named_buffers())

    def parameters(self) -> dict[str, Tensor]:
        """Return what is trained by name."""
        return self._take(self.network.named_parameters())

    def _take(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        return {
            name: tensor.detach()
            for name, tensor in tensors
            if self.unused is None or not name.startswith(self.unused)
        }

    def metadata(self, num_frames: int, precision: Precision = "float32") -> dict[str, str]:
        """Say which graph this is: what must agree before it runs."""
        fields = {
            "step": self.name,
            "frames": str(num_frames),
            "sizes": self.sizes,
            "version": str(GRAPH_VERSION),
        }
        # what activations are rounded by was found with these weights
        return fields if precision == "float32" else fields | {"weights": self._hash_weights()}

    def file_name(self, num_frames: int, precision: Precision = "float32") -> str:
        """Name the file of a graph."""
        return f"{self.name}-{num_frames}{'' if precision == 'float32' else f'.{precision}'}.onnx"

    def _hash_weights(self) -> str:
        """Return 32 hex digits of SHA-256 over all parameters, as a model's file has them."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.parameters().items()):
            digest.update(name.encode() + tensor.half().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]


def hash_sizes(tables: dict[str, Any]) -> str:
    """Return 32 hex digits of SHA-256 over a network's config, as tables."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:32]
