"""A whole recording through a session: read a block, push it, hand on what was recognised."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from audiossm.audio import mix
from audiossm.errors import AudioError

__all__ = ["AudioSource", "StreamSession", "transcribe_channels", "transcribe_stream"]

E_co = TypeVar("E_co", covariant=True)
Samples = NDArray[np.float32]


class AudioSource(Protocol):
    """What is asked of a reader: ``audiossm.audio.AudioReader`` is one."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    def read(self, max_samples: int, /) -> Samples: ...


class StreamSession(Protocol[E_co]):
    """What is asked of a session: ``audiossm.streaming.Session`` is one."""

    def push(self, samples: Samples, /) -> Sequence[E_co]: ...
    def flush(self) -> Sequence[E_co]: ...
    def finish(self) -> Sequence[E_co]: ...


def transcribe_stream(
    reader: AudioSource,
    make_session: Callable[[], StreamSession[E_co]],
    *,
    block_s: float = 20.0,
    flush_at: Sequence[float] = (),
    on_block: Callable[[int], None] | None = None,
) -> Iterator[E_co]:
    """Feed a recording, its channels averaged, to a session and yield its events as they come.

    Args:
        reader: an open recording, (channels, samples) float32 in [-1, 1].
        make_session: makes a session for mono audio at the reader's sample rate.
        block_s: seconds read at a time; memory grows with it, the events don't depend on it.
        flush_at: seconds from the start at which the session is flushed; those after the end of
            the recording change nothing.
        on_block: is called with the number of samples (per channel) of each block once it has
            been pushed; it counts the audio and drives a progress bar.
    Raises:
        AudioError: the recording breaks in the middle. It is raised after the events of all audio
            before the damage, just as if the recording had ended there.
    """
    for _, event in transcribe_channels(
        reader,
        make_session,
        channels="mix",
        block_s=block_s,
        flush_at=flush_at,
        on_block=on_block,
    ):
        yield event


def transcribe_channels(
    reader: AudioSource,
    make_session: Callable[[], StreamSession[E_co]],
    *,
    channels: Literal["mix", "split"],
    block_s: float = 20.0,
    flush_at: Sequence[float] = (),
    on_block: Callable[[int], None] | None = None,
    start: int = 0,
) -> Iterator[tuple[int, E_co]]:
    """Do what ``transcribe_stream`` does and yield (channel, event).

    ``"mix"`` averages the channels and calls the result channel 0; ``"split"`` gives each channel a
    session of its own, in step.

    When ``on_block`` is called, all events so far were yielded: sessions that are saved there go on
    exactly, in another call whose reader stands behind the same ``start`` samples.
    """
    sessions = [make_session() for _ in range(reader.channels if channels == "split" else 1)]
    flushes = sorted({round(second * reader.sample_rate) for second in flush_at})
    flushes = [flush for flush in flushes if flush >= start]
    block = max(1, round(block_s * reader.sample_rate))
    position = start
    ended: AudioError | KeyboardInterrupt | None = None
    while True:
        size = min(block, flushes[0] - position) if flushes else block
        try:
            audio = reader.read(size) if size else None
        except (AudioError, KeyboardInterrupt) as exc:
            # Ctrl-C is how a live pipe is stopped: its last words are wanted too
            ended = exc
            break
        if audio is not None:
            if audio.shape[-1] == 0:
                break
            position += audio.shape[-1]
            rows = audio if channels == "split" else [mix(audio)]
            for channel, (session, row) in enumerate(zip(sessions, rows, strict=True)):
                yield from ((channel, event) for event in session.push(row))
            if on_block is not None:
                on_block(audio.shape[-1])
        if flushes and position == flushes[0]:
            flushes.pop(0)
            for channel, session in enumerate(sessions):
                yield from ((channel, event) for event in session.flush())
    for channel, session in enumerate(sessions):
        yield from ((channel, event) for event in session.finish())
    if ended is not None:
        raise ended
