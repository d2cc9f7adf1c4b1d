"""Does the way a text comes in change what is said?"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiossm.decoding.sampling import Sampling
from audiossm.models import Voice
from audiossm.streaming import Sound, Speaker, SpeechEvent, SpeechSession, SpokenWord

__all__ = ["SpeechParity", "compare_cuts"]

LARGEST = 9  # letters of a piece
RESTORED = 0.2  # of the pieces come to a session that went on from its bytes


@dataclass(frozen=True, kw_only=True)
class SpeechParity:
    """Texts in random pieces, some of them to sessions restored from bytes, against one piece."""

    texts: int
    frames: int
    differing_frames: int
    differing_words: int
    max_sample_difference: float
    restored: int  # how often a session went on from its bytes

    @property
    def passed(self) -> bool:
        """Whether all codes and words are the same."""
        return not self.differing_frames and not self.differing_words

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        return {**vars(self), "passed": self.passed}


def compare_cuts(
    speaker: Speaker,
    texts: Sequence[str],
    voice: Callable[[int], Voice],
    *,
    sampling: Sampling,
    seed: int = 0,
) -> SpeechParity:
    """Say each text from one piece, then from random ones.

    Args:
        speaker: the generator.
        texts: of more than one sentence, best.
        voice: whose turn it is.
        sampling: how freely it is drawn.
        seed: of what is drawn, and of the cuts.
    """
    rng = random.Random(seed)
    frames = differing_frames = differing_words = restored = 0
    furthest = 0.0
    for number, text in enumerate(texts):

        def begin(number: int = number) -> SpeechSession:
            return speaker.session(voice=voice(number), sampling=sampling, seed=seed + number)

        session = begin()
        whole = [*session.push(text), *session.finish()]
        session, pieces = begin(), list[SpeechEvent]()
        for piece in cut(text, rng):
            pieces += session.push(piece)
            if rng.random() < RESTORED:
                session, restored = speaker.restore(session.snapshot()), restored + 1
        pieces += session.finish()
        expected, found = join(whole), join(pieces)
        shared = min(expected[0].shape[1], found[0].shape[1])
        longest = max(expected[0].shape[1], found[0].shape[1])
        differ = (expected[0][:, :shared] != found[0][:, :shared]).any(axis=0).sum()
        frames += expected[0].shape[1]
        differing_frames += int(differ) + longest - shared
        differing_words += len(set(expected[2]) ^ set(found[2]))
        heard = min(len(expected[1]), len(found[1]))
        off = np.abs(expected[1][:heard] - found[1][:heard])
        furthest = max(furthest, float(off.max(initial=0.0)))
    return SpeechParity(
        texts=len(texts),
        frames=frames,
        differing_frames=differing_frames,
        differing_words=differing_words,
        max_sample_difference=furthest,
        restored=restored,
    )


def cut(text: str, rng: random.Random) -> Iterator[str]:
    """Yield a text in random pieces."""
    while text:
        size = rng.randint(1, LARGEST)
        yield text[:size]
        text = text[size:]


def join(
    events: Sequence[SpeechEvent],
) -> tuple[np.ndarray, np.ndarray, list[SpokenWord]]:
    """Return codes (groups, frames), samples and words."""
    sounds = [event for event in events if isinstance(event, Sound)]
    words = [event for event in events if isinstance(event, SpokenWord)]
    codes = np.concatenate([sound.codes for sound in sounds], axis=1)
    return codes, np.concatenate([sound.samples for sound in sounds]), words
