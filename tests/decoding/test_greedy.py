"""Greedy decoding: labels of frames to pieces and words, in any pieces of time."""

import math
import random

import numpy as np
import pytest
import torch

from audiossm.decoding import DecodedToken, DecodedWord, GreedyDecoder, GreedyState, best_labels
from audiossm.text import CHARACTERS, Vocabulary
from contract import random_split

VOCABULARY = Vocabulary(CHARACTERS)
PAUSE, LONGEST = 5, 4


@pytest.fixture
def decoder() -> GreedyDecoder:
    return GreedyDecoder(VOCABULARY, pause_frames=PAUSE, max_pieces=LONGEST)


def labels_of(frames: str) -> np.ndarray:
    """Spell a label a frame: ``.`` is the blank, ``_`` the word break."""
    ids = {piece: i for i, piece in enumerate(CHARACTERS)} | {".": 0, "_": 1}
    return np.array([ids[char] for char in frames], np.int32)


def scores_of(frames: str) -> np.ndarray:
    """Log-probabilities that differ from frame to frame."""
    return -np.arange(1, len(frames) + 1, dtype=np.float32) / 100


def decode(decoder: GreedyDecoder, frames: str, late: int = 0) -> list[DecodedToken | DecodedWord]:
    state = decoder.init_state(late)
    found, state = decoder.step(labels_of(frames), scores_of(frames), state)
    return found + decoder.finish(state)


def tokens_of(found: list[DecodedToken | DecodedWord]) -> list[tuple[str, int]]:
    return [(CHARACTERS[t.id], t.frame) for t in found if isinstance(t, DecodedToken)]


def words_of(found: list[DecodedToken | DecodedWord]) -> list[tuple[str, int, int]]:
    return [(w.word, w.start, w.end) for w in found if isinstance(w, DecodedWord)]


def equal(a: GreedyState, b: GreedyState) -> bool:
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [
        ("aaa", "a"),
        ("a.a", "aa"),
        ("aab", "ab"),
        ("...", ""),
        (".a..bb.b", "abb"),
        ("aba", "aba"),
    ],
)
def test_repeats_and_blanks_are_removed(decoder, frames, tokens):
    assert "".join(piece for piece, _ in tokens_of(decode(decoder, frames))) == tokens


def test_a_token_stands_in_the_first_frame_it_is_seen_in(decoder):
    assert tokens_of(decode(decoder, "..aa.b")) == [("a", 2), ("b", 5)]


def test_a_word_break_ends_a_word(decoder):
    found = decode(decoder, ".ab_.c.")
    assert words_of(found) == [("ab", 1, 3), ("c", 5, 6)]
    assert tokens_of(found) == [("a", 1), ("b", 2), ("▁", 3), ("c", 5)]


def test_a_word_comes_right_after_the_token_that_ends_it(decoder):
    kinds = [type(item).__name__ for item in decode(decoder, "a_b")]
    assert kinds == ["DecodedToken", "DecodedToken", "DecodedWord", "DecodedToken", "DecodedWord"]


def test_word_breaks_alone_make_no_words(decoder):
    assert words_of(decode(decoder, "_._..__.a_._")) == [("a", 8, 9)]


def test_a_pause_ends_a_word(decoder):
    assert words_of(decode(decoder, "a" + "." * (PAUSE - 1) + "b")) == [("ab", 0, 6)]
    assert words_of(decode(decoder, "a" + "." * PAUSE + "b")) == [("a", 0, 1), ("b", 6, 7)]
    assert words_of(decode(decoder, "a" + "a" * PAUSE + "b")) == [("a", 0, 1), ("b", 6, 7)]


def test_a_pause_ends_a_word_as_soon_as_it_is_long_enough(decoder):
    state = decoder.init_state(0)
    found, state = decoder.step(labels_of("a...."), scores_of("a...."), state)
    assert words_of(found) == [] and decoder.partial(state) == "a"
    found, state = decoder.step(labels_of("."), scores_of("."), state)
    assert words_of(found) == [("a", 0, 1)] and decoder.partial(state) == ""


def test_a_word_that_is_too_long_is_cut(decoder):
    assert words_of(decode(decoder, "abcdefghi")) == [("abcd", 0, 4), ("efgh", 4, 8), ("i", 8, 9)]


def test_frames_before_the_first_are_left_out(decoder):
    found = decode(decoder, "xy_aab", late=3)
    assert tokens_of(found) == [("a", 0), ("b", 2)]
    assert words_of(found) == [("ab", 0, 3)]


def test_a_label_before_the_first_frame_hides_no_repeat_of_it(decoder):
    assert tokens_of(decode(decoder, "xxaaa", late=3)) == [("a", 0)]


def test_confidence_is_the_probability_of_a_token_and_the_geometric_mean_of_a_word(decoder):
    state = decoder.init_state(0)
    scores = np.log(np.array([0.5, 0.9, 0.8, 0.7], np.float32))
    found, _ = decoder.step(labels_of("aab_"), scores, state)
    values = [item.confidence for item in found]
    expected = [0.5, 0.8, 0.7, math.sqrt(0.5 * 0.8)]  # a, b, the break, the word
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_second_word_has_a_confidence_of_its_own(decoder):
    scores = np.log(np.array([0.2, 0.9, 0.6], np.float32))
    found, state = decoder.step(labels_of("a_b"), scores, decoder.init_state(0))
    (word,) = decoder.finish(state)
    assert word.confidence == pytest.approx(0.6)


def test_any_split_gives_the_same_events_and_state(decoder):
    rng = random.Random(1)
    frames = "".join(rng.choices("aab._.....", k=300))
    labels, scores = labels_of(frames), scores_of(frames)
    whole, end = decoder.step(labels, scores, decoder.init_state(7))
    assert len(words_of(whole)) > 20
    for trial in range(20):
        sizes = random_split(len(frames), random.Random(trial)) if trial else [1] * len(frames)
        state, found, at = decoder.init_state(7), [], 0
        for size in sizes:
            before = GreedyState(*(array.copy() for array in state))
            more, after = decoder.step(labels[at : at + size], scores[at : at + size], state)
            assert equal(before, state), "step changed its input state"
            state, found, at = after, found + more, at + size
        assert found == whole, f"differs for chunks {sizes}"
        assert equal(state, end)


def test_tokens_before_a_skip_are_left_out_and_those_after_it_stay(decoder):
    state = decoder.init_state(0)
    _, state = decoder.step(labels_of("ab"), scores_of("ab"), state)
    skipped = decoder.skip_to(5, state)
    assert decoder.partial(state) == "ab" and decoder.partial(skipped) == ""
    found, after = decoder.step(labels_of("c_.d_e"), scores_of("c_.d_e"), skipped)
    assert tokens_of(found) == [("d", 5), ("▁", 6), ("e", 7)]
    assert words_of(found) == [("d", 5, 6)]
    assert words_of(decoder.finish(after)) == [("e", 7, 8)]


def test_a_label_that_goes_on_over_a_skip_is_not_given_again(decoder):
    state = decoder.skip_to(2, decoder.init_state(0))
    found, _ = decoder.step(labels_of("aaaab"), scores_of("aaaab"), state)
    assert tokens_of(found) == [("b", 4)]


def test_skipped_frames_close_no_word(decoder):
    state = decoder.skip_to(20, decoder.init_state(0))
    found, state = decoder.step(labels_of("ab_" + "." * 17), scores_of("." * 20), state)
    assert found == [] and decoder.finish(state) == []


def test_finish_leaves_the_state_as_it_was(decoder):
    _, state = decoder.step(labels_of("ab"), scores_of("ab"), decoder.init_state(0))
    assert words_of(decoder.finish(state)) == words_of(decoder.finish(state)) == [("ab", 0, 2)]


def test_a_state_has_the_same_shapes_after_any_time(decoder):
    first = decoder.init_state(4)
    _, later = decoder.step(labels_of("ab._c" * 99), scores_of("ab._c" * 99), first)
    assert [(a.shape, a.dtype) for a in first] == [(a.shape, a.dtype) for a in later]


def test_best_labels_are_the_most_probable_pieces():
    log_probs = torch.tensor([[0.1, 0.7, 0.2], [0.6, 0.1, 0.3]]).log()
    labels, scores = best_labels(log_probs)
    assert labels.tolist() == [1, 0] and labels.dtype == np.int32
    np.testing.assert_allclose(np.exp(scores), [0.7, 0.6], rtol=1e-6)
