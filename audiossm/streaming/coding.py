"""Streams through a codec, samples to codes and codes to samples, whose whole state is a value."""

from copy import copy
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.audio import FrameBuffer, FrameBufferState, Resampler, ResamplerState
from audiossm.audio.samples import check_samples
from audiossm.codec import ForeignCodec, LoadedCodec
from audiossm.codec.codes import MAX_CHANNELS
from audiossm.codec.concealment import ConcealmentState, conceal
from audiossm.errors import AudioError, ConfigError, SessionError, ShapeError, SnapshotError
from audiossm.graphs import Stepper
from audiossm.streaming.snapshot import (
    Arrays,
    check_arrays,
    fill_state,
    pack,
    state_arrays,
    unpack,
)

__all__ = ["DecoderSession", "EncoderSession"]

MAX_FRAMES_PER_STEP = 1000
MAX_PUSH_S = 30  # one resampling takes this much at most


class _CodingSession:
    """What both ways share: options, counters, and states that are values.

    The network always advances by ``frames_per_step`` frames (by what is left at the end), however
    the stream was cut: so the result is the same to the last bit. Other numbers of frames round
    otherwise: samples differ by about 1e-6, and rarely a code.
    """

    kind: ClassVar[str]
    counters: ClassVar[tuple[str, ...]] = ("finished",)
    options: ClassVar[tuple[str, ...]] = ("channels", "frames_per_step")
    states: ClassVar[tuple[str, ...]]
    stepper: Stepper[Any]

    def __init__(self, codec: LoadedCodec, channels: int, frames_per_step: int) -> None:
        for name, value, largest in (
            ("channels", channels, MAX_CHANNELS),
            ("frames_per_step", frames_per_step, MAX_FRAMES_PER_STEP),
        ):
            if not 1 <= value <= largest:
                raise ConfigError(f"{name} is {value}, must be 1 to {largest}")
        self.codec, self.channels, self.frames_per_step = codec, channels, frames_per_step
        self.finished = False

    def fork(self) -> Self:
        """Return a second session that goes on from here; neither disturbs the other."""
        fork = copy(self)  # states are values: nothing ever writes into them
        fork.stepper = self.stepper.fork()
        return fork

    @property
    def profile(self) -> str:
        """Which arithmetic runs: a snapshot names it."""
        return self.stepper.profile

    def snapshot(self) -> bytes:
        """Return the session as bytes that ``restore`` goes on from, exactly."""
        options = {name: str(getattr(self, name)) for name in self.options}
        return pack(
            self._arrays(), self._identity(self.codec) | {"profile": self.profile} | options
        )

    @classmethod
    def restore(cls, codec: LoadedCodec, data: bytes) -> Self:
        """Go on from ``snapshot`` bytes, in this process or another.

        The state moves between numerics profiles, such as torch and graphs: that is logged.

        Raises:
            SnapshotError: not such a session, or one of another codec or version.
        """
        arrays, header = unpack(data, cls._identity(codec))
        try:
            session = cls(codec, **{name: int(header[name]) for name in cls.options})
            profile = header["profile"]
        except (KeyError, ValueError, AudioError, ConfigError) as exc:
            raise SnapshotError(f"the snapshot's header is damaged ({exc!r})") from exc
        check_arrays(arrays, session._arrays())
        for name in cls.states:
            setattr(session, name, fill_state(getattr(session, name), name, arrays))
        session.stepper.state = fill_state(session.stepper.state, "network_state", arrays)
        session.stepper.come_from(profile)
        for name, value in zip(cls.counters, arrays["counters"].tolist(), strict=True):
            setattr(session, name, type(getattr(session, name))(value))
        return session

    @classmethod
    def _identity(cls, codec: LoadedCodec) -> dict[str, str]:
        return {"session": cls.kind, "model": codec.hash}

    def _arrays(self) -> Arrays:
        arrays: Arrays = {
            "counters": np.array([int(getattr(self, name)) for name in self.counters], np.int64)
        }
        for name in self.states:
            arrays |= state_arrays(getattr(self, name), name)
        return arrays | state_arrays(self.stepper.state, "network_state")

    def _check_open(self) -> None:
        if self.finished:
            raise SessionError("this session is finished: begin another one")

    def _begin_buffer(self, size: int) -> None:
        self.buffer = FrameBuffer(size)
        self.buffer_state: FrameBufferState = self.buffer.init_state(self.channels)
        self.empty = self.buffer_state

    def _fill(self, x: Tensor) -> Tensor:
        """Add (channels, any number), which is no one else's, and take out what makes steps."""
        # a live stream's usual push: one step, and nothing waits before or after
        if self.buffer_state is self.empty and x.shape[1] == self.buffer.frame_size:
            return x
        ready, self.buffer_state = self.buffer.step(x, self.buffer_state)
        return ready


def cut_steps(x: Tensor, size: int) -> list[Tensor]:
    """Cut (rows, several times ``size``) into steps, each in memory of its own.

    Matrix products round otherwise where rows lie apart, as in a part of a longer piece.
    """
    if x.shape[1] == size:
        return [x]
    return [x[:, at : at + size].clone() for at in range(0, x.shape[1], size)]


class EncoderSession(_CodingSession):
    """A stream of samples on its way to codes.

    The codes are a function of the samples alone, not of how they were cut into pushes. Rows are
    channels of one recording, or as many recordings side by side: they don't touch each other.

    Args:
        codec: the model.
        sample_rate: of the samples to come, in Hz; they are resampled to the codec's.
        channels: rows.
        num_groups: how many groups of codes to give; all by default.
        frames_per_step: frames that the network takes at once: 1 gives codes at once, more are
            faster.

    Raises:
        ConfigError: a codec of transformers, or a number that can't be.

    Attributes:
        num_samples: samples so far, of each row, at the codec's rate; those of the whole stream
            once it is finished.
    """

    kind = "encoder"
    counters = ("finished", "samples_received", "num_samples", "frames_given")
    options = ("sample_rate", "channels", "num_groups", "frames_per_step")
    states = ("resample_state", "buffer_state")

    def __init__(
        self,
        codec: LoadedCodec,
        *,
        sample_rate: int = 16000,
        channels: int = 1,
        num_groups: int | None = None,
        frames_per_step: int = 1,
    ) -> None:
        super().__init__(codec, channels, frames_per_step)
        if isinstance(codec, ForeignCodec):
            raise ConfigError(f"codec {codec.name!r} encodes recordings whole, not as streams")
        self.sample_rate, self.num_groups = sample_rate, codec.choose_groups(num_groups)
        config = codec.config
        self.resampler = Resampler(sample_rate, config.sample_rate)
        self._begin_buffer(config.frame_size * frames_per_step)
        self.resample_state: ResamplerState = self.resampler.init_state(channels)
        state = codec.network.init_encoding(channels)
        self.stepper = Stepper(codec.encoder_ways, state, frames_per_step)
        self.samples_received, self.num_samples, self.frames_given = 0, 0, 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.int64]:
        """Take the next samples and give the codes of the frames that are whole by them.

        Args:
            samples: (channels, samples) float32 in [-1, 1] at the session's rate; may be empty.

        Returns:
            (channels, num_groups, frames), frames >= 0.

        Raises:
            AudioError: another number of channels, not float samples, or one of them is not finite
                or far outside [-1, 1]; the session is as before.
            SessionError: the session is finished.
        """
        self._check_open()
        samples = np.asarray(samples)
        if samples.ndim != 2 or len(samples) != self.channels or samples.dtype.kind != "f":
            raise AudioError(
                f"this session takes ({self.channels}, samples) float, got {samples.dtype} of "
                f"shape {samples.shape}"
            )
        check_samples(samples, self.samples_received, self.sample_rate)
        self.samples_received += samples.shape[1]
        x = torch.from_numpy(samples.astype(np.float32))
        codes = [self._no_codes()]
        longest = MAX_PUSH_S * self.sample_rate
        for at in range(0, x.shape[1], longest):
            y, self.resample_state = self.resampler.step(
                x[:, at : at + longest], self.resample_state
            )
            self.num_samples += y.shape[1]
            codes += self._take(y)
        return codes[1] if len(codes) == 2 else np.concatenate(codes, axis=2)

    def finish(self) -> NDArray[np.int64]:
        """Give the rest, which brings out what the decoder holds back, and end the session."""
        self._check_open()
        codes = [self._no_codes()]
        y = self.resampler.finish(self.resample_state)
        self.num_samples += y.shape[1]
        codes += self._take(y)
        frame_size = self.codec.config.frame_size
        if self.num_samples:
            # zeros after the end bring out what the delay holds back
            num_frames = -(-(self.num_samples + self.codec.network.delay) // frame_size)
            short = num_frames * frame_size - self.num_samples
            codes += self._take(torch.zeros(self.channels, short))
            rest = (num_frames - self.frames_given) * frame_size
            if rest:
                codes.append(self._advance(self.buffer_state.rest[:, :rest].clone()))
        self.finished = True
        return np.concatenate(codes, axis=2)

    def _take(self, samples: Tensor) -> list[NDArray[np.int64]]:
        ready = self._fill(samples)
        size = self.buffer.frame_size
        return [self._advance(ready[:, at : at + size]) for at in range(0, ready.shape[1], size)]

    def _advance(self, samples: Tensor) -> NDArray[np.int64]:
        (codes,) = self.stepper.step(samples)
        self.frames_given += codes.shape[2]
        array: NDArray[np.int64] = codes.numpy()
        return array[:, : self.num_groups]

    def _no_codes(self) -> NDArray[np.int64]:
        return np.zeros((self.channels, self.num_groups, 0), np.int64)


class DecoderSession(_CodingSession):
    """A stream of codes on its way to samples, in time with those that were encoded.

    A frame that got lost on its way is concealed: what follows it finds the decoder going on.

    Args:
        codec: the model that made the codes.
        channels: rows.
        frames_per_step: frames that the network takes at once: 1 gives samples at once, more are
            faster.
    """

    kind = "decoder"
    counters = ("finished", "samples_to_drop")
    states = ("buffer_state", "concealment_state")

    def __init__(self, codec: LoadedCodec, *, channels: int = 1, frames_per_step: int = 1) -> None:
        super().__init__(codec, channels, frames_per_step)
        self.latent_dim = codec.config.quantiser.latent_dim
        self._begin_buffer(self.latent_dim * frames_per_step)
        self.concealment_state = ConcealmentState(torch.zeros(channels, self.latent_dim))
        state = codec.decoder_ways.step.init_state(channels)
        self.stepper = Stepper(codec.decoder_ways, state, frames_per_step)
        self.samples_to_drop = codec.network.delay

    def push(
        self, codes: NDArray[np.int64], *, lost: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Take the codes of the next frames and give their samples.

        Args:
            codes: (channels, groups, frames) int64, the first groups or all; may have no frames.
            lost: (frames,) or (channels, frames) bool: frames that never came, whose codes don't
                count; none by default.

        Returns:
            (channels, samples) at the codec's rate. The first frame gives less than a frame: the
            codec's delay is taken away there.

        Raises:
            ShapeError: another shape or dtype, more groups, or codes that there aren't; the session
                is as before.
            SessionError: the session is finished.
        """
        self._check_open()
        codes = np.asarray(codes)
        if codes.ndim != 3 or len(codes) != self.channels:
            raise ShapeError(
                f"this session takes codes ({self.channels}, groups, frames), got {codes.shape}"
            )
        is_lost = None
        if lost is not None:
            is_lost = self._check_lost(np.asarray(lost), codes.shape[2])
            codes = np.where(is_lost[:, np.newaxis], 0, codes)
        latents = torch.from_numpy(self.codec.network.quantiser.decode_array(codes))
        if not latents.shape[1]:
            return self._join([])
        latents, self.concealment_state = conceal(
            latents, None if is_lost is None else torch.from_numpy(is_lost), self.concealment_state
        )
        steps = cut_steps(self._fill(latents.flatten(1)), self.buffer.frame_size)
        return self._join([self._advance(x) for x in steps])

    def finish(self) -> NDArray[np.float32]:
        """Give the samples of frames that still wait for others, and end the session."""
        self._check_open()
        self.finished = True
        rest = self.buffer_state.rest[:, : int(self.buffer_state.length[0])].clone()
        return self._join([self._advance(rest)] if rest.shape[1] else [])

    def _check_lost(self, lost: NDArray[np.bool_], num_frames: int) -> NDArray[np.bool_]:
        if lost.dtype != bool or lost.shape not in ((num_frames,), (self.channels, num_frames)):
            raise ShapeError(
                f"lost is {lost.shape} {lost.dtype}, expected a bool for each of the "
                f"{num_frames} frames"
            )
        return np.broadcast_to(lost, (self.channels, num_frames)).copy()

    def _advance(self, latents: Tensor) -> NDArray[np.float32]:
        (samples,) = self.stepper.step(latents.reshape(self.channels, -1, self.latent_dim))
        array: NDArray[np.float32] = samples.numpy()
        return array

    def _join(self, pieces: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        if len(pieces) == 1 and not self.samples_to_drop:
            return pieces[0]
        samples = np.concatenate([np.zeros((self.channels, 0), np.float32), *pieces], axis=1)
        drop = min(self.samples_to_drop, samples.shape[1])
        self.samples_to_drop -= drop
        return samples[:, drop:]
