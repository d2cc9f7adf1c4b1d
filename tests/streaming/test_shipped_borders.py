"""The shipped model where other systems lose words or make some up: at borders and in silence."""

import numpy as np
import pytest
import soundfile

from audiossm.checkpoint import model_names
from audiossm.streaming import Session, Transcriber, Word
from audiossm.streaming.capacity import shipped_clip

RATE = 16000
SILENCE_S = 10


@pytest.fixture(scope="module")
def shipped() -> Transcriber:
    if not model_names():
        pytest.skip("no model in assets/models yet")
    return Transcriber.load()


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    samples, rate = soundfile.read(shipped_clip(), dtype="float32")
    assert rate == RATE
    return samples


def hear(session: Session, samples: np.ndarray) -> list[Word]:
    events = []
    for at in range(0, len(samples), RATE // 10):
        events += session.push(samples[at : at + RATE // 10])
    return [event for event in events + session.finish() if isinstance(event, Word)]


def say(words: list[Word]) -> list[str]:
    return [word.word for word in words]


def test_no_word_is_made_up_in_silence(shipped):
    rng = np.random.default_rng(0)
    for level in (0.0, 1e-4):  # noise at -80 dB; at -60 dB there are words of no confidence
        quiet = (level * rng.standard_normal(SILENCE_S * RATE)).astype(np.float32)
        assert say(hear(shipped.session(), quiet)) == []


def test_words_at_the_very_begin_and_end_are_heard(shipped, clip):
    words = hear(shipped.session(), clip)
    assert len(words) > 5
    begin, end = (round(at * RATE) for at in (words[0].start_s, words[-1].end_s))
    # from the first sound on; what follows the last one has to be as long as its labels are late
    after = np.zeros(RATE // 4, np.float32)
    cut = np.concatenate([clip[begin : end + RATE // 20], after])
    assert say(hear(shipped.session(), cut)) == say(words)


def test_the_first_words_after_a_long_silence_are_heard(shipped, clip):
    silence = np.zeros(SILENCE_S * RATE, np.float32)
    words = hear(shipped.session(), np.concatenate([clip, silence, clip]))
    alone = say(hear(shipped.session(), clip))
    assert say(words) == alone * 2


def test_a_flush_tells_all_at_once_and_is_answered_after_the_last_word(shipped, clip):
    session = shipped.session()
    told = [event for event in session.push(clip) + session.flush() if isinstance(event, Word)]
    assert say(told) == say(hear(shipped.session(), clip))
    assert [event for event in session.finish() if isinstance(event, Word)] == []
