"""A trained generator in memory: the network, the codec whose codes it makes, and its voices."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm import checkpoint
from audiossm.checkpoint import ModelFolder, load_weights, save_model
from audiossm.codec import CodesPin, LoadedCodec
from audiossm.config import from_dict, to_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.graphs import Backend, Seats, Step, Ways, hash_sizes
from audiossm.models.generator import Generator, GeneratorConfig, GeneratorState
from audiossm.units import Unit

if TYPE_CHECKING:  # it brings a compiler
    from audiossm.loops import Loop

__all__ = ["LoadedGenerator", "make_generator_step", "save_generator", "shipped_generator"]

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

# what a step doesn't need: it is given what these tell
TOLD = ("symbols", "stresses", "places", "around", "text", "ages", "voice", "digits", "rows")


def shipped_generator() -> str | None:
    """Return the name of the generator that came with the package, or None."""
    names = checkpoint.model_names()
    return next((name for name in names if ModelFolder.open(name).kind == "generator"), None)


def save_generator(path: Path, description: str, network: Generator, codec: LoadedCodec) -> None:
    """Write a model folder that names the codec whose codes the network makes."""
    tables = {
        "generator": to_dict(network.config),
        "codec": to_dict(CodesPin(name=codec.name, hash=codec.codes_hash)),
    }
    save_model(path, "generator", description, tables, network.state_dict())


def make_generator_step(network: Generator) -> Step[GeneratorState]:
    """Describe what is done with each frame, for torch and for graphs."""
    config = network.config
    return Step(
        name="say",
        network=network,
        call=_say,
        init_state=network.init_state,
        unit=1,
        width=(config.backbone.d_model,),
        outputs=(("outputs", 1),),
        sizes=hash_sizes(
            {"backbone": to_dict(config.backbone)} | {"num_outputs": config.num_outputs}
        ),
        unused=TOLD,
        make_loop=partial(_loop, network),
    )


def _loop(network: Generator) -> "Loop[GeneratorState]":
    from audiossm.models.loops import make_say_loop  # only now: it brings a compiler

    return make_say_loop(network)


def _say(
    network: Generator, x: Tensor, state: GeneratorState
) -> tuple[tuple[Tensor], GeneratorState]:
    outputs, state = network.step(x, state)
    return (outputs,), state


class LoadedGenerator:
    """A generator with its weights. Calls don't change it: threads and sessions may share it."""

    seats: Seats[GeneratorState] | None = None  # of live streams that step together

    def __init__(
        self,
        network: Generator,
        codec: LoadedCodec,
        *,
        name: str,
        model_hash: str,
        backend: Backend = "auto",
        folder: Path | None = None,
        default_voice: str | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.codec, self.name, self.hash, self.folder = codec, name, model_hash, folder
        self.default_voice = default_voice
        config = network.config
        quantiser = codec.config.quantiser
        if config.levels != quantiser.levels or config.num_groups > quantiser.num_groups:
            raise ModelError(
                f"generator {name!r} makes {config.num_groups} groups of levels "
                f"{list(config.levels)}, but codec {codec.name!r} has {quantiser.num_groups} of "
                f"{list(quantiser.levels)}"
            )
        self.ways = Ways(make_generator_step(self.network), torch.device("cpu"), backend, folder)
        self.rows_of = {symbol: row for row, symbol in enumerate(config.symbols.split(), 1)}
        # a frame is told by a few sums of rows: numpy needs a tenth of torch's time for them
        self._groups = np.arange(config.num_groups)
        self._rows: NDArray[np.int64] = network.rows.numpy()
        self._digits: Floats = network.digits.weight.numpy()
        self._ages: Floats = network.ages.weight.numpy()

    @classmethod
    def load(cls, name: str | Path | None = None, *, backend: Backend = "auto") -> Self:
        """Load a generator by name (default: the shipped one) or by its folder, on the CPU.

        Args:
            name: of the model.
            backend: ``torch``, ``numba``, ``onnx``, or ``auto``, which takes the fastest.

        Raises:
            ConfigError: there is no such backend.
            ModelError: there is none, it is damaged or of another version, or no generator; or its
                codec isn't here.
        """
        name = shipped_generator() if name is None else name
        if name is None:
            raise ModelError("no generator is shipped: give a model's folder")
        folder = ModelFolder.open(name)
        if folder.kind != "generator":
            raise ModelError(f"{folder.path}: a {folder.kind} model can't speak")
        try:
            config = from_dict(GeneratorConfig, folder.config.get("generator", {}), "generator")
            pin = from_dict(CodesPin, folder.config.get("codec", {}), "codec")
            network = Generator(config)
        except (ConfigError, RuntimeError) as exc:  # torch's own, for sizes that no memory holds
            raise ModelError(f"{folder.path}/config.toml: {exc}") from exc
        codec = pin.load(folder, backend=backend)
        digest = load_weights(folder, network)
        voice = folder.config.get("voice")
        return cls(
            network,
            codec,
            name=folder.name,
            model_hash=digest,
            backend=backend,
            folder=folder.path,
            default_voice=None if voice is None else str(voice),
        )

    @property
    def config(self) -> GeneratorConfig:
        """The network's sizes."""
        return self.network.config

    @property
    def sample_rate(self) -> int:
        """Samples a second that come out."""
        return self.codec.config.sample_rate

    @property
    def frame_size(self) -> int:
        """Samples in a frame."""
        return self.codec.config.frame_size

    def row(self, unit: Unit) -> tuple[int, int, int]:
        """Return a unit as ``Generator.read`` takes it; a symbol that it lacks is no text."""
        return self.rows_of.get(unit.symbol, 0), unit.stress, unit.place

    @torch.no_grad()
    def read(self, window: NDArray[np.int64]) -> Floats:
        """Look at a unit among its neighbours.

        Args:
            window: (units_before + 1 + units_after, 3) rows; zeros where there is no text.

        Returns:
            (d_model,).
        """
        # as one text whose ends nobody looks at
        seen = self.network.read(torch.from_numpy(window).unsqueeze(0))
        vector: Floats = seen[0, self.config.units_before].numpy().copy()
        return vector

    @torch.no_grad()
    def tell_voice(self, vector: Floats, pace: float) -> Floats:
        """Return what each frame is told of a voice (d_voice,) and its pace: (d_model,)."""
        told = torch.from_numpy(np.append(vector, pace).astype(np.float32))
        who: Floats = self.network.voice(told).numpy()
        return who

    def embed(self, codes: Codes, text: Floats, age: int, who: Floats) -> Tensor:
        """Do what ``Generator.embed`` does for one frame of one stream.

        Args:
            codes: (groups,): what the step before made; ``num_codes`` is none.
            text: (d_model,), of ``read``.
            age: for how many frames the unit has been said, from 0.
            who: (d_model,), of ``tell_voice``.

        Returns:
            (1, 1, d_model) float32.
        """
        told = self._digits[self._rows[self._groups, codes].ravel()].sum(axis=0)
        told += self._ages[min(age, self.config.longest)]
        told += text
        told += who
        return torch.from_numpy(told.reshape(1, 1, -1))
