"""Words to learn from: relatives are held out together, batches are a function of the step."""

import pytest
import torch

from audiossm.models import SounderConfig
from audiossm.train.pronunciations import (
    WordBatches,
    find_stem,
    fits,
    hold_out_words,
    sounding_loss,
)

PHONES = {f"{'ant' * n}{tail}": "a n t".split() for n in (1, 2, 3) for tail in ("", "a", "n", "t")}


@pytest.mark.parametrize(
    "family",
    [
        "stop stops stopped stopping stopper unstoppable",
        "happy happily happiness unhappy",
        "walk walks walked walking walker walker's",
        "nation nations national nationality",
    ],
)
def test_relatives_have_one_stem(family):
    stems = {find_stem(word) for word in family.split()}
    # a stem of four letters may still end as a longer one began: then both are held out apart
    assert len(stems) == 1, stems


def test_words_without_a_relative_are_kept():
    words = "stop stops walked walking kettle table seven eleven".split()
    (test, dev), kept = hold_out_words(words, [set(words), {"walked", "stop"}], [2, 9])
    assert len(test) == 2 and test == sorted(test)
    stems = {find_stem(word) for word in test + dev}
    assert not stems & {find_stem(word) for word in kept}
    assert set(words) - set(kept) >= set(test + dev)
    assert set(dev) <= {"walked", "stop"}
    assert hold_out_words(words[::-1], [set(words), {"walked", "stop"}], [2, 9])[0] == [test, dev]


def test_equal_neighbours_need_a_blank_between_them():
    assert fits("ab", "a n a n".split(), 2) and not fits("ab", "a a n n".split(), 2)


def test_a_pass_has_each_word_once_and_a_step_is_always_the_same():
    config = SounderConfig.tiny()
    hp = {"seed": 3, "batch": 3}
    batches = WordBatches(config, PHONES, hp, torch.device("cpu"))
    first = [batches.batch(step) for step in range(4)]
    seen = [tuple(row) for spelling in first for row in spelling.letters.tolist()]
    assert len({tuple(x for x in row if x) for row in seen}) == len(PHONES)
    again = WordBatches(config, PHONES, hp, torch.device("cpu"))
    later = again.batch(6)
    for ours, theirs in zip(batches.batch(6), later, strict=True):
        assert torch.equal(ours, theirs)
    assert not all(
        torch.equal(a.letters, b.letters)
        for a, b in zip(first, (batches.batch(step) for step in range(4, 8)), strict=True)
    )
    with pytest.raises(ValueError, match="fewer than a step takes"):
        WordBatches(config, {"a": ["a"]}, hp, torch.device("cpu"))


def test_the_loss_is_that_of_the_only_path():
    config = SounderConfig.tiny("a n")
    batches = WordBatches(
        config, {"x": ["a", "n", "a"]}, {"seed": 0, "batch": 1}, torch.device("cpu")
    )
    log_probs = torch.tensor([[[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]]]).log()
    loss = sounding_loss(log_probs, batches.batch(0), 3)
    assert loss.item() == pytest.approx(-torch.tensor([0.5 * 0.8 * 0.6]).log().item() / 3)
