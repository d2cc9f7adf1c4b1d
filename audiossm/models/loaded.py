"""A trained recogniser in memory: the network, its words and what its results depend on."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiossm.checkpoint import ModelFolder, load_weights, make_empty, save_model
from audiossm.codec import CodecPin, LoadedCodec
from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, DeviceError, ModelError
from audiossm.graphs import Backend, Seats, Step, Ways, hash_sizes
from audiossm.models.calibration import Calibration
from audiossm.models.loaded_writer import LoadedWriter
from audiossm.models.offsets import SpikeOffsets
from audiossm.models.recogniser import Recogniser, RecogniserConfig, RecogniserState
from audiossm.text import Vocabulary

if TYPE_CHECKING:
    from audiossm.loops import Loop

__all__ = ["DEFAULT_MODEL", "LoadedRecogniser", "choose_device", "make_step", "save_recogniser"]

DEFAULT_MODEL = "first-light"
# spikes come late: those of a word are over so long after it
TAIL_S = 0.24


def choose_device(name: str) -> torch.device:
    """Turn ``cpu``, ``cuda``, ``cuda:N`` or ``auto`` into a device.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise DeviceError(f"device {name!r} is not one of cpu, cuda, cuda:N, auto") from exc
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not one of cpu, cuda, cuda:N, auto")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(f"device {name!r}: this machine has {count} CUDA devices; use cpu")
    return device


def lay_columns_together(network: nn.Module) -> None:
    """Store tall weight matrices column by column; shapes and values stay.

    One frame at a time is a matrix times a vector, and what takes the time is reading the matrix:
    so laid out, MKL reads a tall one nearly twice as fast, and a wide one slower.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.out_features > module.in_features:
            module.weight.data = module.weight.data.t().contiguous().t()


def save_recogniser(
    path: Path, description: str, network: Recogniser, codec: LoadedCodec | None = None
) -> None:
    """Write a model folder; one that stands on a codec names it and leaves its encoder out."""
    tables = {"recogniser": to_dict(network.config)}
    weights: nn.Module = network
    if codec is not None:
        tables["codec"] = to_dict(CodecPin(name=codec.name, hash=codec.frames_hash))
        weights = network.above_encoder()
    save_model(path, "recogniser", description, tables, weights.state_dict())


def make_step(network: Recogniser) -> Step[RecogniserState]:
    """Describe what a session does with a recogniser, for torch and for graphs."""
    config = network.config
    outputs = (("letters", 1), ("phones", 1)) if config.phones else (("letters", 1),)
    return Step(
        name="hear",
        network=network,
        call=_hear,
        init_state=network.init_state,
        unit=config.frame_size,
        outputs=outputs,
        sizes=hash_sizes(to_dict(config)),
        settle=network.turn_back,
        patience=128,
        make_loop=partial(_loop, network),
    )


def _loop(network: Recogniser) -> "Loop[RecogniserState]":
    from audiossm.models.loops import make_hear_loop  # only now: it brings a compiler

    return make_hear_loop(network)


def _hear(
    network: Recogniser, x: Tensor, state: RecogniserState
) -> tuple[tuple[Tensor, ...], RecogniserState]:
    letters, phones, state = network.run(x, state)
    return ((letters,) if phones is None else (letters, phones)), state


class LoadedRecogniser:
    """A recogniser with its weights. Calls don't change it: threads and sessions may share it."""

    writer: LoadedWriter | None = None  # tells words as people write them, if anybody asked
    seats: Seats[RecogniserState] | None = None  # of live streams that step together

    def __init__(
        self,
        network: Recogniser,
        *,
        name: str,
        model_hash: str,
        device: torch.device | None = None,
        offsets: SpikeOffsets | None = None,
        calibration: Calibration | None = None,
        backend: Backend = "auto",
        folder: Path | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network = network.eval().requires_grad_(False).to(self.device)
        if self.device.type == "cpu":
            lay_columns_together(self.network)
        self.name, self.hash = name, model_hash
        self.vocabulary = Vocabulary(network.config.pieces)
        self.offsets = offsets or SpikeOffsets()
        self.calibration = calibration
        self.ways = Ways(make_step(self.network), self.device, backend, folder)

    @classmethod
    def load(
        cls, name: str | Path | None = None, *, device: str = "cpu", backend: Backend = "auto"
    ) -> Self:
        """Load a shipped model by name (default: the best one) or a model folder.

        Args:
            name: of the model.
            device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
            backend: ``torch``, ``numba``, ``onnx``, or ``auto``, which takes the fastest on a CPU.

        Raises:
            ConfigError: there is no such backend.
            ModelError: there is none, or it is damaged or of another version.
            DeviceError: ``device`` is not here, or ``backend`` isn't there.
        """
        target = choose_device(device)
        folder = ModelFolder.open(DEFAULT_MODEL if name is None else name)
        if folder.kind != "recogniser":
            raise ModelError(f"{folder.path}: a {folder.kind} model can't transcribe")
        table = folder.config.get("recogniser")
        if not isinstance(table, dict):
            raise ModelError(f"{folder.path}/config.toml: missing table 'recogniser'")
        try:
            config = from_dict(RecogniserConfig, table, "recogniser")
            pin = folder.config.get("codec")
            pinned = from_dict(CodecPin, pin, "codec") if pin else None
            encoder = pinned.load(folder) if pinned else None
            offsets = from_dict(SpikeOffsets, folder.config.get("alignment", {}), "alignment")
            offsets.check(len(config.lookahead_frames))
            sure = folder.config.get("confidence")
            calibration = from_dict(Calibration, sure, "confidence") if sure else None
            network = make_empty(Recogniser, config)
        except (ConfigError, RuntimeError) as exc:  # torch's own, for sizes that no memory holds
            raise ModelError(f"{folder.path}/config.toml: {exc}") from exc
        weights: nn.Module = network
        if pinned is not None and encoder is not None:
            if encoder.config != config.encoder:
                raise ModelError(
                    f"{folder.path}: its encoder is {config.encoder}, but that of codec "
                    f"{pinned.name!r} is {encoder.config}"
                )
            network.encoder = encoder
            weights = network.above_encoder()
        digest = load_weights(folder, weights)
        return cls(
            network,
            name=folder.name,
            model_hash=digest,
            device=target,
            offsets=offsets,
            calibration=calibration,
            backend=backend,
            folder=folder.path,
        )

    @property
    def config(self) -> RecogniserConfig:
        """The network's sizes."""
        return self.network.config

    @property
    def sample_rate(self) -> int:
        """Samples a second that the network takes; sessions resample to it."""
        return self.config.encoder.sample_rate

    @property
    def label_frame_s(self) -> float:
        """Seconds in a label frame."""
        return self.config.encoder.frame_size / self.sample_rate

    def word_span(
        self,
        start: int,
        end: int,
        lookahead_ms: int,
        *,
        by_phones: bool = False,
        length_s: float = math.inf,
    ) -> tuple[float, float]:
        """Return from when to when a word is said, in seconds.

        Args:
            start: label frame of its first letter's, or phone's, spike.
            end: label frame after its last letter's, or phone's, spike.
            lookahead_ms: the stream's; the model's offsets depend on it, if it has any.
            by_phones: the spikes are those of phones.
            length_s: of the recording, if it has ended: its last spikes may come later.
        """
        spikes = np.array(start), np.array(end)
        first, last = self.word_spans(*spikes, lookahead_ms, by_phones=by_phones, length_s=length_s)
        return float(first), float(last)

    def word_spans(
        self,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        lookahead_ms: int,
        *,
        by_phones: bool = False,
        length_s: float | NDArray[np.float64] = math.inf,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Do what ``word_span`` does for many words."""
        offsets, option = self.offsets, self.lookaheads_ms.index(lookahead_ms)
        before = offsets.phones_start if by_phones else offsets.letters_start
        behind = offsets.phones_end if by_phones else offsets.letters_end
        first, last = starts.astype(np.float64), ends.astype(np.float64)
        if before:
            first = np.maximum(first + before[option], 0.0)
            # a frame at least, also of a word that seems to lie before the beginning
            last = np.maximum(last + behind[option], first + 1.0)
        first, last = first * self.label_frame_s, last * self.label_frame_s
        latest = np.maximum(np.asarray(length_s) - self.label_frame_s, 0.0)
        return np.minimum(first, latest), np.minimum(last, length_s)

    @property
    def tail_frames(self) -> int:
        """Backbone frames of silence that are heard after a recording's end, for its last word."""
        return math.ceil(TAIL_S * self.sample_rate / self.config.frame_size)

    @property
    def lookaheads_ms(self) -> tuple[int, ...]:
        """The look-aheads to choose from."""
        frame_ms = 1000 * self.config.frame_size // self.sample_rate
        return tuple(right * frame_ms for right in self.config.lookahead_frames)

    def lookahead_frames(self, lookahead_ms: int) -> int:
        """Turn a look-ahead in milliseconds into backbone frames.

        Raises:
            ConfigError: not one of the model's choices.
        """
        if lookahead_ms not in self.lookaheads_ms:
            raise ConfigError(
                f"look-ahead of {lookahead_ms} ms: model {self.name!r} has {self.lookaheads_ms} ms"
            )
        return self.config.lookahead_frames[self.lookaheads_ms.index(lookahead_ms)]
