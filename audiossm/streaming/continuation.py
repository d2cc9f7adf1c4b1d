"""Audio that goes on: a prompt through codec and generator, and then what the generator adds."""

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from audiossm.decoding.sampling import Sampling
from audiossm.errors import AudioError
from audiossm.models import LoadedGenerator, Voice
from audiossm.streaming.code_maker import CodeMaker
from audiossm.streaming.coding import DecoderSession, EncoderSession
from audiossm.streaming.speech import flush
from audiossm.streaming.speech_events import Sound

__all__ = ["UNTOLD", "continue_sound"]

FRAMES_PER_STEP = 50
PUSH = 160_000  # samples at a time


# as the network says, no evener: what no text holds together fades and falls silent otherwise
UNTOLD = Sampling(temperature=1.0, later_temperature=1.0, top_k=1000)
# it strays all the same: who has been silent for long has forgotten what was said, and stays so.
# (frames, least, most): where the mean energy of the newest frames, so many, isn't between these
# times the prompt's, the prompt is heard again (recipes/generate/README.md: what that is worth)
STRETCHES = ((75, 0.03, 8.0), (200, 0.13, 4.0))
REMEMBERED = 250  # frames of the prompt
SILENCE = 1e-6  # a prompt of less energy is none that could be strayed from


def continue_sound(
    generator: LoadedGenerator,
    voice: Voice,
    samples: NDArray[np.float32],
    *,
    sample_rate: int,
    num_frames: int,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Iterator[Sound]:
    """Yield what follows a recording, frame by frame, without any text.

    Where a stretch of it is much quieter or louder than the prompt, the prompt is heard again.

    Args:
        generator: the model.
        voice: what it is told of whoever speaks.
        samples: (samples,) float32 in [-1, 1]: the prompt.
        sample_rate: of the prompt, Hz; it is resampled.
        num_frames: of the continuation.
        sampling: how freely it is drawn; by default ``UNTOLD``.
        seed: of all that is drawn.

    Raises:
        AudioError: the prompt is shorter than a frame, or has values that aren't samples.
    """
    codec = generator.codec
    if samples.ndim != 1:
        raise AudioError(f"a prompt is (samples,), not {samples.shape}")
    encoder = EncoderSession(
        codec,
        sample_rate=sample_rate,
        num_groups=generator.config.num_groups,
        frames_per_step=FRAMES_PER_STEP,
    )
    pieces = [
        encoder.push(samples[np.newaxis, at : at + PUSH]) for at in range(0, len(samples), PUSH)
    ]
    pieces.append(encoder.finish())
    # what came out of whole frames: the last one may be filled up with zeros
    num_known = encoder.num_samples // codec.config.frame_size
    if not num_known:
        frame_ms = 1000 * codec.config.frame_size / codec.config.sample_rate
        raise AudioError(
            f"the prompt has {len(samples)} samples at {sample_rate} Hz, but a frame of "
            f"{frame_ms:g} ms is the least that can be gone on from"
        )
    prompt = np.concatenate(pieces, axis=2)[0, :, :num_known]
    return _go_on(generator, voice, prompt, num_frames, sampling or UNTOLD, seed)


def _go_on(
    generator: LoadedGenerator,
    voice: Voice,
    prompt: NDArray[np.int64],
    num_frames: int,
    sampling: Sampling,
    seed: int,
) -> Iterator[Sound]:
    maker = CodeMaker(generator, voice, pace=0.0, sampling=sampling, seed=seed)
    decoder = DecoderSession(generator.codec)
    config = generator.config
    num_known = prompt.shape[1]
    first, last = (count * generator.frame_size for count in (num_known, num_known + num_frames))
    at = 0  # samples so far, the prompt's included

    def cut(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal at
        begin, end = (min(max(edge - at, 0), len(samples)) for edge in (first, last))
        at += len(samples)
        return samples[begin:end]

    loudness = Loudness(num_known)
    known, step, num_made = prompt, 0, 0
    codes = np.zeros((config.num_groups, 1), np.int64)
    while num_made < num_frames:
        # group g makes the frame of g steps ago
        told = np.array(
            [
                known[group, step - group] if 0 <= step - group < known.shape[1] else -1
                for group in range(config.num_groups)
            ]
        )
        (outputs,) = maker.stepper.step(maker.tell(None))
        frame = maker.take(outputs, told)
        step += 1
        is_made = step >= known.shape[1] + config.num_groups
        if frame is None or (num_made and not is_made):
            continue  # not whole yet, or heard again
        codes = frame[:, np.newaxis]
        samples = decoder.push(codes[np.newaxis])[0]
        heard = cut(samples)
        if is_made:
            num_made += 1
            yield Sound(heard, codes)
        if loudness.strays(samples):
            known, step = prompt[:, -REMEMBERED:], 0
            maker.restart()
    yield Sound(cut(flush(decoder, codes)), codes[:, :0])


class Loudness:
    """The energy of the newest stretches beside that of a prompt of ``num_known`` frames."""

    def __init__(self, num_known: int) -> None:
        self.num_known, self.num_heard, self.prompt = num_known, 0, 0.0
        self.newest = deque[float](maxlen=max(length for length, _, _ in STRETCHES))

    def strays(self, samples: NDArray[np.float32]) -> bool:
        """Hear a frame; say whether a stretch was too quiet or too loud, and begin anew if so."""
        energy = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
        self.num_heard += 1
        if self.num_heard <= self.num_known:
            self.prompt += energy / self.num_known
            return False
        self.newest.append(energy)
        if self.prompt < SILENCE:
            return False
        newest = np.array(self.newest)
        for length, quiet, loud in STRETCHES:
            if len(newest) < length:
                continue
            if not quiet * self.prompt <= newest[-length:].mean() <= loud * self.prompt:
                self.newest.clear()
                return True
        return False
