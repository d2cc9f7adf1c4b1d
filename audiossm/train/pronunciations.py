"""Words and their phones to learn from: some held out with all their relatives, and batches."""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm.models import Sounder, SounderConfig

__all__ = ["Spelling", "WordBatches", "fits", "find_stem", "hold_out_words", "sounding_loss"]

ENDINGS = (
    *("'s", "s", "es", "ed", "d", "t", "ing", "in", "er", "or", "est", "ly", "y", "ie", "ness"),
    *("less", "ful", "ment", "able", "ible", "ability", "ibility", "ish", "ism", "ist", "ity"),
    *("ty", "ize", "ise", "ization", "isation", "ation", "ion", "tion", "al", "ial", "ally", "ic"),
    *("ical", "ous", "ious", "ive", "ance", "ence", "ant", "ent", "ship", "hood", "dom", "like"),
    *("e", "a", "o", "i", "n", "an", "ian", "en", "'ll", "'d", "'ve", "'re", "eth", "st"),
)
BEGINNINGS = ("un", "re", "in", "im", "dis", "non", "mis", "over", "under", "out", "pre", "fore")
LEAST = 4  # letters of a stem
CHUNK = 50  # batches whose words are sorted by length together


def find_stem(word: str) -> str:
    """Cut endings and beginnings off as long as four letters stay: what relatives share."""
    changed = True
    while changed:
        changed = False
        for ending in sorted(ENDINGS, key=len, reverse=True):
            if word.endswith(ending) and len(word) - len(ending) >= LEAST:
                word, changed = word[: -len(ending)], True
                break
        else:
            for beginning in BEGINNINGS:
                if word.startswith(beginning) and len(word) - len(beginning) >= LEAST:
                    word, changed = word[len(beginning) :], True
                    break
    # "stopped", "stop"; "happily", "happy"
    if len(word) > LEAST and word[-1] == word[-2]:
        word = word[:-1]
    return word.replace("'", "")


def hold_out_words(
    words: Iterable[str], candidates: Sequence[set[str]], counts: Sequence[int]
) -> tuple[list[list[str]], list[str]]:
    """Choose sets of words to hold out, by a hash of their stems, one word of a stem.

    Args:
        words: all of them; which ones are chosen depends on these alone.
        candidates: for each set the words that may be in it.
        counts: how many it gets, or fewer if there are no more.
    Returns:
        the sets, sorted, and the words that share no stem with any of them.
    """
    families: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        families.setdefault(find_stem(word), []).append(word)
    order = sorted(families, key=lambda stem: hashlib.sha256(stem.encode()).digest())
    taken: set[str] = set()
    sets = []
    for allowed, count in zip(candidates, counts, strict=True):
        chosen: list[str] = []
        for stem in order:
            if len(chosen) == count:
                break
            fitting = [word for word in families[stem] if word in allowed]
            if stem not in taken and fitting:
                # by a hash, too: the first one would be the shortest
                chosen.append(min(fitting, key=lambda w: hashlib.sha256(w.encode()).digest()))
                taken.add(stem)
        sets.append(sorted(chosen))
    rest = [word for stem, family in families.items() if stem not in taken for word in family]
    return sets, sorted(rest)


def fits(word: str, phones: Sequence[str], slots: int) -> bool:
    """Whether the letters have label frames for the phones and the blanks between equal ones."""
    repeats = sum(a == b for a, b in zip(phones, phones[1:], strict=False))
    return len(phones) + repeats <= slots * len(word)


class Spelling(NamedTuple):
    """Words and what they sound like."""

    letters: Tensor  # (words, letters) int64, 0 beyond their ends
    lengths: Tensor  # (words,) int64
    labels: Tensor  # (phones of all words,) int64
    num_labels: Tensor  # (words,) int64


class WordBatches:
    """Words in batches of about equal length, in another order in each pass.

    What a step reads is a function of the seed and the step.

    Args:
        config: of the sounder.
        phones: of each word, all of them its symbols.
        hp: ``seed`` and ``batch``, words of a step.
        device: where batches lie.
    """

    def __init__(
        self,
        config: SounderConfig,
        phones: Mapping[str, Sequence[str]],
        hp: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.device, self.seed, self.size = device, hp["seed"], hp["batch"]
        index = {symbol: number for number, symbol in enumerate(config.phones, 1)}
        self.words = sorted(phones)
        self.labels = {word: [index[phone] for phone in phones[word]] for word in self.words}
        self.num_batches = len(self.words) // self.size
        if not self.num_batches:
            raise ValueError(f"{len(self.words)} words are fewer than a step takes")
        self.number, self.batches = -1, [self.words]

    def batch(self, step: int) -> Spelling:
        """Return what a step reads."""
        number, at = divmod(step, self.num_batches)
        if number != self.number:
            self.number, self.batches = number, self._order(number)
        words = self.batches[at]
        letters, lengths = Sounder.spell(words)
        rows = [self.labels[word] for word in words]
        labels = torch.tensor([label for row in rows for label in row])
        num_labels = torch.tensor([len(row) for row in rows])
        return Spelling(*(x.to(self.device) for x in (letters, lengths, labels, num_labels)))

    def _order(self, number: int) -> list[list[str]]:
        """Part the words of a pass into batches."""
        rng = random.Random(self.seed * 1_000_003 + number)
        words = rng.sample(self.words, len(self.words))
        batches = []
        for start in range(0, len(words), CHUNK * self.size):
            chunk = sorted(words[start : start + CHUNK * self.size], key=len)
            parts = [chunk[at : at + self.size] for at in range(0, len(chunk), self.size)]
            batches += rng.sample(parts, len(parts))
        # one batch is smaller unless the words come out even
        return [batch for batch in batches if len(batch) == self.size]


def sounding_loss(log_probs: Tensor, spelling: Spelling, slots: int) -> Tensor:
    """Return the CTC loss of a batch, nats per phone."""
    total = F.ctc_loss(
        log_probs.transpose(0, 1),
        spelling.labels,
        spelling.lengths * slots,
        spelling.num_labels,
        reduction="sum",
    )
    return total / spelling.num_labels.sum()
