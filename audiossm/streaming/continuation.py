"""Audio that goes on: a prompt through codec and generator, and then what the generator adds."""

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


# as the network says, no evener: what no text holds together fades and falls silent otherwise. Of
# 24 minutes from as many speakers, 21 were as loud and as varied at their ends as at their
# beginnings, to 6 dB and 15 %, and all of ten before; one was silent for ten seconds. Of ten drawn
# at 0.95 and 0.9 from 500 codes eight were, and at 0.9 from 200 one of three. To renew the state
# every five seconds, from three of the prompt and the newest two, made the 21 22, at 0.95 even 23;
# but of the 12 speakers that it wasn't chosen on 11 both times, and 12 without
UNTOLD = Sampling(temperature=1.0, later_temperature=1.0, top_k=1000)


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

    codes = np.zeros((config.num_groups, 1), np.int64)
    for step in range(num_known + num_frames + config.num_groups - 1):
        # group g makes the frame of g steps ago
        known = np.array(
            [
                prompt[group, step - group] if 0 <= step - group < num_known else -1
                for group in range(config.num_groups)
            ]
        )
        (outputs,) = maker.stepper.step(maker.tell(None))
        frame = maker.take(outputs, known)
        if frame is None:
            continue
        codes = frame[:, np.newaxis]
        samples = cut(decoder.push(codes[np.newaxis])[0])
        if step >= num_known + config.num_groups - 1:
            yield Sound(samples, codes)
    yield Sound(cut(flush(decoder, codes)), codes[:, :0])
