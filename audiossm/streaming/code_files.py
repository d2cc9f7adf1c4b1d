"""Recordings through a codec's sessions: whole files to codes, files of codes to samples."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from audiossm.codec import CodeReader, LoadedCodec
from audiossm.errors import AudioError
from audiossm.streaming.coding import DecoderSession, EncoderSession
from audiossm.streaming.files import AudioSource

__all__ = ["FRAMES_PER_STEP", "decode_stream", "encode_stream"]

FRAMES_PER_STEP = 50
# Frames decoded before the first one that is wanted. The shipped codec's decoder forgets slowly:
# after 250 its samples are within 8e-4 of what decoding from the beginning gives, after 500 within
# 1.4e-5, less than half a step of 16 bits.
WARM_UP = 500


def encode_stream(
    reader: AudioSource,
    session: EncoderSession,
    *,
    block_s: float = 20.0,
    on_block: Callable[[int], None] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Feed a recording to a session and yield its codes as they come.

    Args:
        reader: an open recording; the session has its rate and channels.
        session: a fresh one; it is finished at the end, whatever ended the recording.
        block_s: seconds read at a time; memory grows with it, the codes don't depend on it.
        on_block: is called with the number of samples of each block once it has been pushed.

    Raises:
        AudioError: the recording breaks in the middle. It is raised after the codes of all audio
            before the damage, just as if the recording had ended there.
    """
    ended: AudioError | KeyboardInterrupt | None = None
    block = max(1, round(block_s * reader.sample_rate))
    while True:
        try:
            audio = reader.read(block)
        except (AudioError, KeyboardInterrupt) as exc:
            ended = exc  # Ctrl-C is how a live pipe is stopped
            break
        if not audio.shape[1]:
            break
        yield session.push(audio)
        if on_block is not None:
            on_block(audio.shape[1])
    yield session.finish()
    if ended is not None:
        raise ended


def decode_stream(
    reader: CodeReader,
    codec: LoadedCodec,
    *,
    start: int = 0,
    num_samples: int | None = None,
    on_block: Callable[[int], None] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Decode a file of codes and yield its samples (channels, samples) as they come.

    Damaged blocks are concealed, so that what follows them keeps its time.

    Args:
        reader: an open file of codes, nothing read yet.
        codec: the one that made them.
        start: first sample wanted, at the codec's rate.
        num_samples: how many; all that follow by default.
        on_block: is called with the number of samples of each piece before it is yielded.

    Raises:
        ModelError: another codec made them.
        AudioError: there is nothing at ``start``, or something was damaged or missing. It is raised
            after the samples of all that is whole.
    """
    form = reader.form
    codec.check_codes(form)
    reader.seek(max(0, start // form.frame_size - WARM_UP))
    position = reader.num_frames * form.frame_size
    session = DecoderSession(codec, channels=form.channels, frames_per_step=form.frames_per_block)
    stop = None if num_samples is None else start + num_samples
    given = 0

    def take(samples: NDArray[np.float32], end: int | None) -> NDArray[np.float32]:
        """Cut away what lies outside; advance."""
        nonlocal position, given
        first, position = position, position + samples.shape[1]
        last = min(position if bound is None else bound for bound in (stop, end))
        samples = samples[:, max(0, start - first) : max(0, last - first)]
        given += samples.shape[1]
        if on_block is not None and samples.shape[1]:
            on_block(samples.shape[1])
        return samples

    # what the last frame gives too much is known at the end only
    held = np.zeros((form.channels, 0), np.float32)
    for block in reader:
        num_frames = block.codes.shape[2]
        decoded = session.push(block.codes, lost=np.full(num_frames, block.lost))
        joined = np.concatenate([held, decoded], axis=1)
        ready = max(0, joined.shape[1] - form.frame_size)
        held = joined[:, ready:]
        if (piece := take(joined[:, :ready], None)).shape[1]:
            yield piece
        if stop is not None and position >= stop:
            break
    else:
        rest = np.concatenate([held, session.finish()], axis=1)
        if (piece := take(rest, reader.num_samples)).shape[1]:
            yield piece
    if reader.problem is not None:
        raise AudioError(reader.problem)
    if not given:
        place = f" at {start / form.sample_rate:.2f} s" if start else ""
        length = position if reader.num_samples is None else reader.num_samples
        raise AudioError(
            f"{reader.name}: there is no sound{place}: it lasts {length / form.sample_rate:.2f} s"
        )
