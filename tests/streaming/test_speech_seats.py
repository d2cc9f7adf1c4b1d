"""Texts in seats: said together, and each as it is said alone."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError, SessionError
from audiossm.streaming import Skipped, Sound, SpokenWord
from audiossm.streaming.speech_seats import SpeechSeats
from tiny_speaker import TEXT, make_speaker, make_voice

SPEAKER = make_speaker()
CPU = torch.device("cpu")
SHORT = "Was that a river? The old"
TEXTS = (
    SHORT,
    "Hello ☃ there, it's 9 o'clock. ",
    "",
    "☃",
    "the that " * 8,  # more units than a slot takes at once
    "Yes! No? Well... the old",
)


class Reader:
    """Reads a session to its end, or to where it needs more text, in the calling thread."""

    def __init__(self, session):
        self.session, self.events = session, []
        self.news = threading.Event()
        session.woken = self.news.set

    def read(self):
        while True:
            self.news.clear()
            self.events += self.session.events()
            if not self.session.is_waiting:
                return
            assert self.news.wait(30)


def alone(text, **options):
    session = SPEAKER.session(**options)
    return [*session.push(text), *session.finish()]


def samples_of(events):
    sounds = [event.samples for event in events if isinstance(event, Sound)]
    return np.concatenate([np.zeros(0, np.float32), *sounds])


def kinds_of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def check(reader, expected):
    np.testing.assert_allclose(samples_of(reader.events), samples_of(expected), atol=2e-5)
    words, wanted = kinds_of(reader.events, SpokenWord), kinds_of(expected, SpokenWord)
    assert [word.word for word in words] == [word.word for word in wanted]
    for name in ("start_s", "end_s"):
        times = [[getattr(word, name) for word in side] for side in (words, wanted)]
        np.testing.assert_allclose(*times, atol=1e-9)
    assert kinds_of(reader.events, Skipped) == kinds_of(expected, Skipped)


@pytest.fixture
def seats():
    seats = SpeechSeats(SPEAKER, 3, CPU, max_units=36)
    yield seats
    seats.close()
    assert seats.num_free == 3


def test_texts_together_are_said_as_each_alone(seats):
    options = [{"seed": 2 * i, "speed": 1 + 0.1 * i} for i in range(len(TEXTS))]
    readers = []
    for text, option in zip(TEXTS, options, strict=True):  # more than there are seats
        session = seats.session(voice=SPEAKER.voice(None), **option)
        readers.append(Reader(session))
        readers[-1].events += [*session.push(text), *session.finish()]
    for reader in readers:
        reader.read()
    for reader, text, option in zip(readers, TEXTS, options, strict=True):
        check(reader, alone(text, **option))
    assert seats.num_frames > seats.num_steps  # some steps made several


def test_a_voice_s_gain_is_heard_in_a_seat(seats):
    louder = replace(SPEAKER.voice(None), name="loud", gain_db=6.0)
    reader = Reader(seats.session(voice=louder))
    reader.events += [*reader.session.push(SHORT), *reader.session.finish()]
    reader.read()
    check(reader, alone(SHORT, voice=louder))


def test_voices_in_seats_begin_their_sentences_from_their_own_states(seats):
    voices = [make_voice(1), SPEAKER.voice(None), make_voice(2)]
    readers = [Reader(seats.session(voice=voice, seed=3)) for voice in voices]
    for reader in readers:
        reader.events += [*reader.session.push(TEXT), *reader.session.finish()]
    for reader in readers:
        reader.read()
    for reader, voice in zip(readers, voices, strict=True):
        check(reader, alone(TEXT, voice=voice, seed=3))
    stateless = samples_of(alone(TEXT, voice=replace(voices[0], state=None), seed=3))
    assert not np.array_equal(samples_of(readers[0].events), stateless)


def test_a_text_in_pieces_is_said_as_it_comes_and_as_a_whole_one(seats):
    warm = Sampling(temperature=0.9, spread=0.9)
    reader = Reader(seats.session(voice=SPEAKER.voice(None), seed=9, sampling=warm))
    for at in range(0, len(TEXT), 3):
        reader.events += reader.session.push(TEXT[at : at + 3])
        reader.read()
    assert len(kinds_of(reader.events, SpokenWord)) > 10  # long before its end
    reader.events += reader.session.finish()
    reader.read()
    check(reader, alone(TEXT, seed=9, sampling=warm))
    with pytest.raises(SessionError, match="finished"):
        reader.session.push("more")


def test_who_stops_reading_is_not_stepped_on_and_who_is_closed_frees_the_seat(seats):
    session = seats.session(voice=SPEAKER.voice(None))
    full = threading.Event()
    session.woken = lambda: full.set() if session.is_full else None
    list(session.push(TEXT * 3))
    list(session.events())
    assert full.wait(30)
    other = Reader(seats.session(voice=SPEAKER.voice(None), seed=1))
    other.events += [*other.session.push(SHORT), *other.session.finish()]
    other.read()  # meanwhile somebody else is said
    check(other, alone(SHORT, seed=1))
    assert session.num_made - session.num_read < 2 * 25
    assert seats.num_free == 2
    session.close()
    other = Reader(seats.session(voice=SPEAKER.voice(None), seed=2))
    other.events += [*other.session.push("Hello."), *other.session.finish()]
    other.read()
    assert seats.num_free == 3
    assert not session.is_waiting


def test_a_step_that_fails_is_told_to_everybody_and_others_may_come(seats, monkeypatch):
    readers = [Reader(seats.session(voice=SPEAKER.voice(None))) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(seats.slots, "step", lambda: 1 / 0)
        for reader in readers:
            list(reader.session.push(TEXT))
            with pytest.raises(SessionError, match="division by zero"):
                reader.read()
    reader = Reader(seats.session(voice=SPEAKER.voice(None), seed=4))
    reader.events += [*reader.session.push(SHORT), *reader.session.finish()]
    reader.read()
    check(reader, alone(SHORT, seed=4))


def test_numbers_that_cant_be_are_refused(seats):
    voice = SPEAKER.voice(None)
    for wrong, words in (
        ({"speed": 9.0}, "must be 0.25 to 4"),
        ({"seed": -1}, "must be 0 or more"),
        ({"sampling": Sampling(top_k=3)}, "top_k is 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            seats.session(voice=voice, **wrong)
