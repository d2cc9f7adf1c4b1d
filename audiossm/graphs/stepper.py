"""A stream's steps, by torch, loops or graphs: one contract, and the choice between them."""

import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from audiossm.errors import ConfigError, DependencyError, DeviceError, ModelError
from audiossm.graphs.session import FEW_FRAMES, BoundState, GraphFolder
from audiossm.graphs.step import Step
from audiossm.nn import map_state

if TYPE_CHECKING:  # it brings a compiler
    from audiossm.loops import Loop

__all__ = [
    "Backend",
    "Seat",
    "Seats",
    "Stepper",
    "Ways",
    "cache_folder",
    "cache_root",
    "check_backend",
    "name_profile",
]

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

Backend = Literal["auto", "torch", "numba", "onnx", "onnx-int8"]
# from which on a step goes to no seat: it is a file's
MANY_FRAMES = 64
Chosen = Literal["torch", "numba", "onnx", "onnx-int8"]

logger = logging.getLogger(__name__)


def check_backend(backend: str) -> None:
    """Refuse a backend that there isn't.

    Raises:
        ConfigError: it is none of them.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"backend {backend!r} is not one of {', '.join(get_args(Backend))}")


def name_profile(backend: str, device: torch.device) -> str:
    """Name the arithmetic that runs, for a snapshot: ``onnx-float32-cpu``."""
    engine, _, precision = backend.partition("-")
    return f"{engine}-{precision or 'float32'}-{device.type}"


def cache_root() -> Path:
    """Return the folder of what is kept for the user between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audiossm"


def cache_folder(step: Step[S]) -> Path:
    """Return where ``audiossm export`` puts a step's graphs by default."""
    return cache_root() / "graphs" / step.sizes


class Ways(Generic[S]):
    """The ways in which a loaded network's step runs.

    ``auto`` takes compiled loops, or graphs if the network has none, on a CPU for streams that come
    a few frames at a time, where they are several times as fast, and as exact; a stream that comes
    in longer pieces is as well off with torch, and needs to load nothing. A named backend takes
    every step, or raises. ``numba`` compiles the loops where it first runs, which takes some
    seconds, and keeps them on the disk. ``onnx-int8`` rounds most weights and what they are
    multiplied with to 8 bits: faster than exact graphs, and other results.

    Args:
        step: what is to run.
        device: where the network is.
        backend: ``auto``, ``torch``, ``numba``, ``onnx`` or ``onnx-int8``.
        folder: of the model's own graphs, if it has one.

    Raises:
        ConfigError: there is no such backend.
        DeviceError: ``numba`` or ``onnx`` on another device than a CPU.
        ModelError: ``numba``, and the network has no loop; ``onnx``, and there is no graph, or
            another network's.
        DependencyError: ``onnx``, and ONNX Runtime isn't installed.
    """

    def __init__(
        self,
        step: Step[S],
        device: torch.device,
        backend: Backend = "auto",
        folder: Path | None = None,
    ) -> None:
        check_backend(backend)
        self.step, self.device, self.backend = step, device, backend
        own = () if folder is None else (folder / "graphs",)
        folders = (*own, cache_folder(step))
        self.graphs = GraphFolder(step, folders, "int8" if backend == "onnx-int8" else "float32")
        self.told = False
        self._loop: Loop[S] | None = None
        if backend not in ("auto", "torch") and device.type != "cpu":
            raise DeviceError(f"backend {backend!r} runs on a CPU, not on {device}")
        if backend == "numba":
            self.load_loop()
        elif backend.startswith("onnx"):
            self.graphs.check()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what another process can make."""
        return self.__dict__ | {"_loop": None}

    def load_loop(self) -> "Loop[S]":
        """Return the network's loop.

        Raises:
            ModelError: it has none.
        """
        if self._loop is None:
            none = f"this model's step {self.step.name!r} has no compiled loop"
            if self.step.make_loop is None:
                raise ModelError(none)
            try:
                self._loop = self.step.make_loop()
            except ModelError as exc:
                raise ModelError(f"{none}: {exc}") from exc
        return self._loop

    def can_run(self, chosen: Chosen) -> bool:
        """Whether steps may run so, and what they need is here."""
        if self.backend != "auto" or chosen == "onnx-int8":
            return self.backend == chosen
        try:
            if chosen == "numba":
                self.load_loop()
            elif chosen == "onnx":
                self.graphs.check()
        except (ModelError, DependencyError):
            return False
        return True

    def choose(self, num_frames: int) -> Chosen:
        """Choose for a stream whose first step has so many frames."""
        if self.backend != "auto":
            return self.backend
        if self.device.type != "cpu" or num_frames >= FEW_FRAMES:
            return "torch"
        with contextlib.suppress(ModelError):
            self.load_loop()
            return "numba"
        try:
            self.graphs.check()
        except (ModelError, DependencyError) as exc:
            if not self.told:
                # a model of one's own that has none is nothing to worry about
                level = logging.WARNING if self.graphs.files else logging.INFO
                logger.log(level, "torch runs instead of graphs, which is slower: %s", exc)
            self.told = True
            return "torch"
        return "onnx"


class Seat(Protocol[S_co]):
    """Where one stream's state is kept for it, to be advanced together with others'."""

    def read(self) -> S_co:
        """Return the state as a value of its own."""

    def step(self, x: Tensor) -> tuple[Tensor, ...]:
        """Advance by ``x``, on the CPU, and return the outputs there."""


class Seats(Protocol[S]):
    """Seats of one network."""

    @property
    def profile(self) -> str:
        """Which arithmetic makes the states there."""

    def sit(self, state: S) -> Seat[S] | None:
        """Give a stream a seat, until nobody holds it any more; None if all are taken."""


class Stepper(Generic[S]):
    """One stream's state, and its next step.

    Args:
        ways: of the network.
        state: where the stream stands; it is left as it is.
        num_frames: of a step, if it is known; else the first step decides how all are done.
        seats: where a stream of few frames a step is kept if there is room, instead of graphs.

    Attributes:
        profile: which arithmetic made the state.
    """

    def __init__(
        self,
        ways: Ways[S],
        state: S,
        num_frames: int | None = None,
        seats: Seats[S] | None = None,
    ) -> None:
        self.ways, self.seats = ways, seats
        self.profile = name_profile("torch", ways.device)
        self.restored = False
        self.chosen: Chosen | None = None
        self._state = state
        self._bound: Seat[S] | None = None
        if num_frames is not None:
            self._begin(num_frames)

    @property
    def state(self) -> S:
        """The state now, as a value: exactly, not settled."""
        return self._state if self._bound is None else self._bound.read()

    @state.setter
    def state(self, state: S) -> None:
        self._state, self._bound = state, None

    def come_from(self, profile: str) -> None:
        """Take note that ``profile`` made the state; another one going on is logged."""
        if self.chosen is None:
            self.profile, self.restored = profile, True
        else:
            self._tell(profile)

    def stay_with(self, profile: str) -> None:
        """Go on with the arithmetic of ``profile``, if it can run here, whatever comes next."""
        for chosen in get_args(Chosen):
            if name_profile(chosen, self.ways.device) == profile and self.chosen is None:
                if self.ways.can_run(chosen) and (chosen == "torch" or self.seats is None):
                    self.chosen, self.profile = chosen, profile

    def fork(self) -> "Stepper[S]":
        """Return a stepper that goes on from here; neither disturbs the other."""
        fork = Stepper(self.ways, self.state, seats=self.seats)
        fork.profile, fork.chosen, fork.restored = self.profile, self.chosen, self.restored
        return fork

    def step(self, x: Tensor) -> tuple[Tensor, ...]:
        """Advance by ``x``, on the CPU, and return the outputs there."""
        step = self.ways.step
        if self.chosen is None:
            self._begin(x.shape[1] // step.unit)
        if self.chosen != "torch":
            if self._bound is None:
                self._bound = self._bind()
            return self._bound.step(x)
        if self._bound is None and self.seats is not None and x.shape[1] < MANY_FRAMES * step.unit:
            self._bound = self.seats.sit(self._state)
            if self._bound is not None:
                self.profile = self.seats.profile
        if self._bound is not None:
            return self._bound.step(x)
        device = self.ways.device
        with torch.inference_mode():
            x = x.to(device)
            if self.seats is not None:  # a seat's state comes to the CPU
                self._state = map_state(lambda part: part.to(device), self._state)
            outputs, self._state = step.call(step.network, x, self._state)
        return tuple(output.cpu() for output in outputs)

    def _bind(self) -> Seat[S]:
        if self.chosen != "numba":
            return BoundState(self.ways.graphs, self._state)
        from audiossm.loops import LoopState

        return LoopState(self.ways.load_loop(), self._state)

    def _begin(self, num_frames: int) -> None:
        self.chosen = "torch" if self.seats is not None else self.ways.choose(num_frames)
        before, self.profile = self.profile, name_profile(self.chosen, self.ways.device)
        if self.restored:
            self._tell(before)

    def _tell(self, before: str) -> None:
        if before != self.profile:
            logger.info("a stream of profile %s goes on as %s", before, self.profile)
