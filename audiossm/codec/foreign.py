"""Mimi, EnCodec and DAC of the package transformers, with the face of our own codecs."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiossm.audio import open_audio, resample
from audiossm.audio.samples import check_samples
from audiossm.codec.codes import Codes
from audiossm.codec.loaded import LoadedCodec
from audiossm.errors import AudioError, ConfigError, DependencyError, ModelError, ShapeError
from audiossm.graphs import Backend, Step, Ways, hash_sizes

__all__ = ["PREFIX", "ForeignCodec", "load_codec"]

PREFIX = "transformers:"
KINDS = ("mimi", "encodec", "dac")
CONTEXT_S = 1.0  # of codes that a stream's decoder sees before those that are new


def load_codec(name: str | Path | None = None) -> LoadedCodec:
    """Load one of our codecs by name or folder, or ``transformers:NAME`` of theirs, on the CPU.

    Raises:
        DependencyError: transformers isn't installed.
        ModelError: there is none, or it is damaged or of another kind.
    """
    if str(name).startswith(PREFIX):
        return ForeignCodec.load(str(name))
    return LoadedCodec.load(name)


@dataclass(frozen=True, kw_only=True)
class ForeignQuantiser:
    """What others ask of a quantiser: its sizes, and codes as what the decoder takes."""

    num_groups: int
    num_codes: int

    @property
    def levels(self) -> tuple[int, ...]:
        """One dimension: a code has no digits."""
        return (self.num_codes,)

    @property
    def latent_dim(self) -> int:
        """Numbers of a frame that the decoder takes: its codes; -1 is none."""
        return self.num_groups

    def decode_array(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Turn (rows, groups, frames) int64 into (rows, frames, ``latent_dim``).

        Raises:
            ShapeError: another shape, or codes that there aren't.
        """
        groups = codes.shape[1] if codes.ndim == 3 else 0
        if codes.dtype.kind != "i" or not 1 <= groups <= self.num_groups:
            raise ShapeError(
                f"codes are {codes.dtype} of shape {codes.shape}, expected (rows, 1 to "
                f"{self.num_groups} groups, frames) of whole numbers"
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < self.num_codes:
            raise ShapeError(f"codes must be 0 to {self.num_codes - 1}")
        latents = np.full((len(codes), codes.shape[2], self.num_groups), -1.0, np.float32)
        latents[..., :groups] = codes.transpose(0, 2, 1)
        return latents


@dataclass(frozen=True, kw_only=True)
class ForeignConfig:
    """Sizes, by the names that ``CodecConfig`` has for them."""

    kind: str
    sample_rate: int
    frame_size: int
    quantiser: ForeignQuantiser


class ForeignState(NamedTuple):
    """The newest frames of each stream."""

    tail: Tensor  # (rows, context, groups) float32
    length: Tensor  # (rows,) int64: how many of these there are, the last ones


class ForeignNetwork(nn.Module):
    """A model of transformers behind ``encode`` and ``decode`` of tensors."""

    delay = 0

    def __init__(self, model: nn.Module, config: ForeignConfig) -> None:
        super().__init__()
        self.model, self.config, self.quantiser = model, config, config.quantiser
        self.context = round(CONTEXT_S * config.sample_rate / config.frame_size)

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Turn (rows, samples) at the codec's rate into (rows, groups, frames) int64.

        The end is padded to a whole frame.
        """
        size = self.config.frame_size
        frames = -(-samples.shape[1] // size)
        model: Any = self.model
        x = nn.functional.pad(samples, (0, frames * size - samples.shape[1])).unsqueeze(1)
        if self.config.kind == "mimi":
            codes = model.encode(x, num_quantizers=self.quantiser.num_groups).audio_codes
        elif self.config.kind == "encodec":
            most = max(model.config.target_bandwidths)
            codes = model.encode(x, bandwidth=most).audio_codes[0]
        else:
            codes = model.encode(x).audio_codes
        return torch.as_tensor(codes[:, : self.quantiser.num_groups, :frames]).long()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn (rows, groups, frames) int64 into (rows, frames * frame_size)."""
        model: Any = self.model
        if self.config.kind == "encodec":
            sound = model.decode(codes.unsqueeze(0), [None]).audio_values
        elif self.config.kind == "mimi":
            sound = model.decode(codes).audio_values
        else:
            sound = model.decode(audio_codes=codes).audio_values
        sound = sound.reshape(len(codes), -1)
        # the edges of some convolutions take or add a few
        length = codes.shape[2] * self.config.frame_size
        return nn.functional.pad(sound, (0, max(0, length - sound.shape[1])))[:, :length]

    def init_decoding(self, rows: int) -> ForeignState:
        """Return the state of streams that nothing was decoded of."""
        tail = torch.zeros(rows, self.context, self.quantiser.num_groups)
        return ForeignState(tail, torch.zeros(rows, dtype=torch.int64))

    def decode_step(self, x: Tensor, state: ForeignState) -> tuple[Tensor, ForeignState]:
        """Decode the next frames (rows, frames, groups) behind those of the last second."""
        joined = torch.cat([state.tail, x], dim=1)
        frames, size = x.shape[1], self.config.frame_size
        rows = []
        for row, length in zip(joined, state.length.tolist(), strict=True):
            seen = row[self.context - length :]
            groups = int((seen[-1] >= 0).sum())
            codes = seen[:, :groups].t().round().long().clamp(min=0)
            rows.append(self.decode(codes.unsqueeze(0))[0, -frames * size :])
        known = (state.length + frames).clamp(max=self.context)
        return torch.stack(rows), ForeignState(joined[:, frames:].clone(), known)


class ForeignCodec(LoadedCodec):
    """A codec of transformers: ``ForeignCodec.load("transformers:kyutai/mimi")``.

    Recordings are encoded whole. A stream of codes is decoded step by step, each step with the
    second of codes before it: that is near what decoding it whole gives, not the same.
    """

    def __init__(self, network: ForeignNetwork, *, name: str, config_text: str) -> None:
        self.device = torch.device("cpu")
        self.network: Any = network.eval().requires_grad_(False)
        self.name = name
        self.hash = hash_tensors(config_text, network.model, "")
        self.codes_hash = hash_tensors(config_text, network.model, "decoder")
        self.frames_hash = self.codes_hash
        decode = Step(
            name="decode-foreign",
            network=network,
            call=_decode,
            init_state=network.init_decoding,
            unit=1,
            width=(network.quantiser.latent_dim,),
            outputs=(("samples", 1),),
            sizes=hash_sizes({"config": config_text}),
        )
        self.decoder_ways: Any = Ways(decode, self.device, "torch")

    @classmethod
    def load(
        cls,
        name: str | Path | None = None,
        *,
        device: torch.device | None = None,
        backend: Backend = "auto",
    ) -> Self:
        """Load a folder that transformers wrote, or a name that it knows, which it downloads.

        Args:
            name: ``transformers:FOLDER_OR_NAME``.
            device: the CPU; recipes move the network.
            backend: ``auto`` or ``torch``.

        Raises:
            ConfigError: another backend.
            DependencyError: transformers isn't installed.
            ModelError: there is no such model, or it is no Mimi, EnCodec or DAC that fits.
        """
        if backend not in ("auto", "torch"):
            raise ConfigError(f"backend {backend!r}: a codec of transformers runs by torch alone")
        place = str(name).removeprefix(PREFIX)
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as exc:
            raise DependencyError(
                f"{PREFIX}{place} needs the package transformers: pip install 'audiossm[codecs]'"
            ) from exc
        try:
            config = AutoConfig.from_pretrained(place)
            if config.model_type not in KINDS:
                raise ModelError(
                    f"{PREFIX}{place}: a model of type {config.model_type!r} is none of the codecs "
                    f"{', '.join(KINDS)}"
                )
            sizes = read_sizes(place, config)
            model = AutoModel.from_pretrained(place, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError) as exc:
            first = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
            raise ModelError(f"{PREFIX}{place}: transformers can't load it ({first})") from exc
        text = json.dumps(config.to_dict(), sort_keys=True, default=str)
        if Path(place).is_dir():
            place = str(Path(place).resolve())
        codec = cls(ForeignNetwork(model, sizes), name=PREFIX + place, config_text=text)
        if device is not None:
            codec.network.to(device)
        return codec

    @property
    def config(self) -> Any:  # its names are those of CodecConfig, its class can't be
        """The network's sizes, a ``ForeignConfig``."""
        return self.network.config

    def encode(
        self,
        source: str | Path | BinaryIO | NDArray[np.float32],
        *,
        sample_rate: int = 16000,
        num_groups: int | None = None,
    ) -> Codes:
        """Encode a recording of any rate, as ``AudioCodec.encode`` does.

        Args:
            source: a path, an open binary file, or samples (channels, samples) float32 in [-1, 1].
            sample_rate: Hz, of samples.
            num_groups: how many groups of codes, the first ones, to give; all by default.

        Raises:
            AudioError: the recording can't be read, or holds no samples.
            ConfigError: the codec hasn't as many groups.
        """
        groups = self.choose_groups(num_groups)
        if isinstance(source, np.ndarray):
            samples = source
            if samples.ndim != 2 or samples.dtype.kind != "f":
                raise AudioError(
                    f"samples are {samples.dtype} of shape {samples.shape}, expected (channels, "
                    "samples) of floats"
                )
        else:
            with open_audio(source) as reader:
                sample_rate = reader.sample_rate
                samples = np.concatenate(list(reader.blocks(1 << 20)), axis=1)
        if not samples.shape[1]:
            raise AudioError("there are no samples to encode")
        check_samples(samples, 0, sample_rate)
        x = torch.from_numpy(samples.astype(np.float32))
        x = resample(x, sample_rate, self.config.sample_rate)
        codes = torch.cat([self.network.encode(row.unsqueeze(0)) for row in x])
        array: NDArray[np.int64] = codes[:, :groups].cpu().numpy()
        return Codes(
            form=self.describe(channels=len(x), num_groups=groups),
            codes=array,
            num_samples=x.shape[1],
        )

    def decode(self, codes: Codes, *, num_groups: int | None = None) -> NDArray[np.float32]:
        """Decode a recording whole, from its first ``num_groups`` groups or from all that it has.

        Returns:
            (channels, samples) at the codec's rate, about in [-1, 1].

        Raises:
            ModelError: another codec made them.
            ShapeError: codes that there aren't.
        """
        self.check_codes(codes.form)
        array = codes.codes[:, :num_groups]
        self.config.quantiser.decode_array(array)  # looks whether there are such codes
        if not array.shape[2]:
            return np.zeros((len(array), 0), np.float32)
        sound: NDArray[np.float32] = self.network.decode(torch.from_numpy(array)).cpu().numpy()
        return sound[:, : codes.num_samples]


def read_sizes(name: str, config: Any) -> ForeignConfig:
    """Return the sizes of a codec by transformers' config.

    Raises:
        ModelError: stereo, or scaled in chunks, as EnCodec at 48 kHz is.
    """
    kind = config.model_type
    if kind == "encodec" and (config.normalize or config.chunk_length_s):
        raise ModelError(
            f"{PREFIX}{name}: this EnCodec scales its audio in chunks, which its codes don't tell: "
            "take the one of 24 kHz"
        )
    if getattr(config, "audio_channels", 1) != 1:
        raise ModelError(f"{PREFIX}{name}: has {config.audio_channels} channels, only 1 is known")
    groups = config.n_codebooks if kind == "dac" else config.num_quantizers
    quantiser = ForeignQuantiser(num_groups=int(groups), num_codes=int(config.codebook_size))
    size = config.frame_size if kind == "mimi" else config.hop_length
    return ForeignConfig(
        kind=kind,
        sample_rate=int(config.sampling_rate),
        frame_size=int(size),
        quantiser=quantiser,
    )


def hash_tensors(config: str, model: nn.Module, without: str) -> str:
    """Return 32 hex digits of SHA-256 over a config and the weights not of one part."""
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not without or not name.startswith(without):
            digest.update(name.encode() + tensor.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:32]


def _decode(
    network: ForeignNetwork, x: Tensor, state: ForeignState
) -> tuple[tuple[Tensor], ForeignState]:
    samples, state = network.decode_step(x, state)
    return (samples,), state
