"""Voices are tuned: times become frames, sentences phrases, and held-out ones judge."""

import dataclasses

import numpy as np
import pytest
import torch

from audiossm.errors import AlignmentError
from audiossm.models import Voice
from audiossm.streaming import AlignedPhone, AlignedWord, Alignment, Sound
from audiossm.train import voice_tuner as module
from audiossm.train.voice_tuner import Phrase, cut_phrases, time_units, tune_voice
from audiossm.units import Unit
from tiny_speaker import make_speaker

SPEAKER = make_speaker()


def align(text: str, *words: AlignedWord) -> Alignment:
    return Alignment(text, 2.0, "tiny", words, True, 0.0, True)


def make_word(word: str, start: float, ends: list[float] | None, end: float) -> AlignedWord:
    phones = None
    if ends is not None:
        edges = [start, *ends, end]
        phones = tuple(AlignedPhone("x", a, b, 1.0) for a, b in zip(edges, edges[1:], strict=False))
    return AlignedWord(word, start, end, 1.0, phones)


def tell(units, frames):
    return [(unit.symbol, count) for unit, count in zip(units, frames, strict=True)]


def test_times_become_frames_and_pauses_take_the_gaps():
    alignment = align(
        "Hello, the a",
        make_word("Hello,", 0.2, [0.24, 0.28, 0.36], 0.5),
        make_word("the", 0.7, [0.8], 0.9),
        make_word("a", 1.0, None, 1.1),
    )
    units, frames = time_units(alignment, SPEAKER.pronouncer, 100)
    assert tell(units, frames) == [
        ("_", 10), ("h", 2), ("ə", 2), ("l", 4), ("oʊ", 7), (",", 10), ("ð", 5), ("ə", 5),
        ("_", 5), ("ə", 5), (".", 45),
    ]  # fmt: skip
    assert units[8] == Unit("_", 0, 0, 1) and units[4].stress == 2


def test_short_gaps_belong_to_the_phone_before_and_all_have_a_frame():
    alignment = align(
        "Hello the",
        make_word("Hello", 0.0, [0.0, 0.001, 0.002], 0.004),
        make_word("the", 0.04, None, 0.05),
    )
    units, frames = time_units(alignment, SPEAKER.pronouncer, 9)
    assert [symbol for symbol, _ in tell(units, frames)] == "_ h ə l oʊ ð ə .".split()
    assert min(frames) == 1 and sum(frames) == 9
    with pytest.raises(AlignmentError, match="8 phones and pauses in 7 frames"):
        time_units(alignment, SPEAKER.pronouncer, 7)


def test_a_text_with_more_than_is_aligned_is_refused():
    alignment = align("Hello 🙂", make_word("Hello", 0.0, None, 1.0))
    with pytest.raises(AlignmentError, match="can't be said"):
        time_units(alignment, SPEAKER.pronouncer, 100)


def test_sentences_are_phrases_of_their_own():
    units = [Unit(symbol, 0, 0, 0) for symbol in ("_", "a", ".", "b", ",", "c", "?", "d", ".")]
    units[6] = dataclasses.replace(units[6], symbol="?")
    frames = [3, 2, 8, 4, 2, 1, 60, 3, 5]
    codes = np.arange(sum(frames))[:, np.newaxis].repeat(2, axis=1)
    found = list(cut_phrases(units, frames, codes))
    assert [tell(phrase.units, phrase.frames) for phrase in found] == [
        [("_", 3), ("a", 2), (".", 4)],
        [("_", 4), ("b", 4), (",", 2), ("c", 1), ("?", 50)],
        [("_", 10), ("d", 3), (".", 5)],
    ]
    np.testing.assert_array_equal(np.concatenate([p.codes for p in found]), codes)
    assert all(len(phrase.codes) == sum(phrase.frames) for phrase in found)


def test_long_phrases_are_cut_at_a_unit():
    phrase = Phrase((Unit("a", 0, 0, 0),) * 70, (9,) * 70, np.zeros((630, 2), np.int64))
    cut = module._limit(phrase)
    assert len(cut.units) == len(cut.frames) == 66 and len(cut.codes) == 594


def make_phrases(voice: Voice, count: int) -> list[Phrase]:
    """What the tiny generator says in a voice that is to be found again."""
    phrases = []
    for seed in range(count):
        session = SPEAKER.session(voice=voice, seed=seed, temperature=1.0)
        units, lengths, begin = [], [], session._begin_unit

        def note(begin=begin, session=session, units=units, lengths=lengths):
            begun = begin()
            if begun:
                units.append(session.unit)
                lengths.append(session.num_frames)
            return begun

        session._begin_unit = note
        events = list(session.push("Hello there that. "))
        codes = np.concatenate([e.codes for e in events if isinstance(e, Sound)], axis=1).T
        frames = np.diff([*lengths, session.num_frames]).tolist()
        phrases.append(Phrase(tuple(units), tuple(frames), codes))
    return phrases


def test_a_voice_is_found_again_and_the_network_stays():
    rng = np.random.default_rng(0)
    vector = 3 * rng.normal(size=SPEAKER.config.d_voice).astype(np.float32)
    secret = Voice(name="secret", vector=vector, pace=-0.5, origin="o", licence="l")
    phrases = make_phrases(secret, 12)
    before = {k: v.clone() for k, v in SPEAKER.network.state_dict().items()}
    heard = []
    tuned = tune_voice(
        SPEAKER,
        phrases,
        name="anna",
        origin="made up",
        licence="CC0-1.0",
        num_epochs=12,
        on_epoch=lambda epoch, loss: heard.append((epoch, loss)),
    )
    assert [epoch for epoch, _ in heard] == list(range(1, 13))
    assert tuned.is_better and tuned.after == min(loss for _, loss in heard)
    held = module._batch(phrases)
    nobody = SPEAKER.voice()
    losses = [module._score(SPEAKER, held, voice) for voice in (nobody, tuned.voice, secret)]
    # half of the way from nobody to the voice itself, at least
    assert losses[1] < (losses[0] + losses[2]) / 2
    assert (tuned.voice.name, tuned.voice.licence) == ("anna", "CC0-1.0")
    for name, tensor in SPEAKER.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    # what it says is what a file of it says
    assert tuned.voice.vector.astype(np.float16).astype(np.float32).tolist() == (
        tuned.voice.vector.tolist()
    )


def test_a_part_of_the_tuned_state_is_kept(monkeypatch):
    """All of it costs words; the vector and the pace are kept whole."""
    vector = np.full(SPEAKER.config.d_voice, 2.0, np.float32)
    phrases = make_phrases(Voice(name="secret", vector=vector, origin="o", licence="l"), 6)
    whole, part = [], []
    for share, kept in ((1.0, whole), (module.STATE_SHARE, part)):
        monkeypatch.setattr(module, "STATE_SHARE", share)
        kept.append(tune_voice(SPEAKER, phrases, name="a", origin="o", licence="l", num_epochs=1))
    (whole,), (part,) = ([each.voice for each in kept] for kept in (whole, part))
    assert part.vector.tolist() == whole.vector.tolist() and part.pace == whole.pace
    for some, all_ in zip(part.state.layers, whole.state.layers, strict=True):
        assert all_.ssm.abs().max() > 0
        torch.testing.assert_close(some.ssm, 0.7 * all_.ssm, atol=1e-6, rtol=2e-3)


def test_a_voice_that_gains_nothing_is_not_better():
    phrases = make_phrases(SPEAKER.voice(), 5)
    options = {"name": "a", "origin": "o", "licence": "l", "num_epochs": 0}
    assert not tune_voice(SPEAKER, phrases, **options).is_better
    with pytest.raises(AlignmentError, match="4 sentences are too few"):
        tune_voice(SPEAKER, phrases[:4], **options)


def test_padding_does_not_count():
    phrases = make_phrases(SPEAKER.voice(), 3)
    together = module._score(SPEAKER, [phrases], SPEAKER.voice())
    frames = [len(phrase.codes) for phrase in phrases]
    alone = [module._score(SPEAKER, [[phrase]], SPEAKER.voice()) for phrase in phrases]
    assert together == pytest.approx(np.average(alone, weights=frames), rel=1e-4)
