"""What a search hears, letters or phones, and how words are spelled in them."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from audiossm.errors import ConfigError, HotwordError
from audiossm.hotwords import HotWord
from audiossm.lexicon import MAIN_STRESS, SIDE_STRESS, Lexicon
from audiossm.pronouncer import Pronouncer
from audiossm.text import Vocabulary

__all__ = ["Letters", "Phones", "Spelling", "Units", "load_phones", "spell_parts"]

RARE = 0.02  # a way to say a word that is so much rarer than its commonest isn't tried


class Spelling(NamedTuple):
    """One way to spell or say a word, and the log-probability of this way."""

    labels: tuple[int, ...]
    worth: float


class Units(Protocol):
    """What labels are to a search; label 0 is the blank."""

    def __hash__(self) -> int: ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's pieces, of which partial words and new words are written."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The name of each label."""

    @property
    def first_column(self) -> int:
        """Which column of the network's log-probabilities is label 0."""

    @property
    def word_break(self) -> int:
        """The label between two words; the number after the last label if there is none."""

    @property
    def spells(self) -> bool:
        """Whether the labels of a word tell how it is written."""

    @property
    def name(self) -> str:
        """What results depend on."""

    def spell(self, words: Sequence[str]) -> Iterator[tuple[Spelling, ...]]:
        """Yield for each word how it is spelled or said, in each way; perhaps in none."""

    def guess(self, words: Sequence[str]) -> Iterator[tuple[Spelling, ...]]:
        """Yield the same of words that aren't known."""


def spell_parts(units: Units, hotwords: Sequence[HotWord]) -> dict[str, tuple[Spelling, ...]]:
    """Return how each word of hot words is spelled or said.

    Raises:
        HotwordError: one of them can't be.
    """
    parts = sorted({part for word in hotwords for part in word.phrase.split()})
    ways = dict(zip(parts, units.spell(parts), strict=True))
    unknown = [part for part in parts if not ways[part]]
    ways |= zip(unknown, units.guess(unknown), strict=True)
    for part, row in ways.items():
        if not row:
            raise HotwordError(f"hot word {part!r} can't be said in the model's phones")
    return ways


@dataclass(frozen=True)
class Letters:
    """A model's pieces, which spell letter by letter.

    Raises:
        ConfigError: they don't.
    """

    vocabulary: Vocabulary
    first_column = 0
    spells = True
    name = "letters"

    def __post_init__(self) -> None:
        if not self.vocabulary.spells_letters:
            raise ConfigError("beam search needs a model whose pieces are single letters")

    @property
    def symbols(self) -> tuple[str, ...]:
        """The pieces."""
        return self.vocabulary.pieces

    @property
    def word_break(self) -> int:
        """The piece between two words."""
        return self.vocabulary.word_break

    def spell(self, words: Sequence[str]) -> Iterator[tuple[Spelling, ...]]:
        """Yield how each word is spelled."""
        index = {ord(piece): i for i, piece in enumerate(self.symbols) if len(piece) == 1}
        for word in words:
            yield (Spelling(tuple(map(ord, word.translate(index))), 0.0),)

    def guess(self, words: Sequence[str]) -> Iterator[tuple[Spelling, ...]]:
        """Yield the same: letters spell any word."""
        return self.spell(words)


class Phones:
    """The phones of a network that has a head for them, beside its letters.

    Args:
        vocabulary: the network's pieces, letters.
        phones: its phones, without the blank; label 1 is the first one.
        said: tells how a word is said, and the share of each way; nothing if that isn't known.
        pronounce: tells how words are said that aren't among them.
        name: of all these.

    Raises:
        ConfigError: there are no phones, or the pieces don't spell letters.
    """

    spells = False

    def __init__(
        self,
        vocabulary: Vocabulary,
        phones: Sequence[str],
        said: Callable[[str], Sequence[tuple[Sequence[str], float]]],
        pronounce: Callable[[Sequence[str]], Sequence[Sequence[str]]],
        name: str,
    ) -> None:
        if not phones or not vocabulary.spells_letters:
            raise ConfigError(
                "decoding phones needs a model that has a head for them, and single letters beside"
            )
        self.vocabulary, self.name = vocabulary, name
        self.symbols = (vocabulary.pieces[0], *phones)
        self.first_column, self.word_break = len(vocabulary), len(self.symbols)
        self._said, self._pronounce = said, pronounce
        self._index = {
            mark + symbol: label
            for label, symbol in enumerate(self.symbols)
            for mark in ("", MAIN_STRESS, SIDE_STRESS)
            if label
        }

    def spell(self, words: Sequence[str]) -> Iterator[tuple[Spelling, ...]]:
        """Yield how each word is said; in no way if that isn't known, or in unknown phones."""
        for word in words:
            worths = {}
            for phones, share in self._said(word):
                if labels := self._label(phones):
                    worths[labels] = math.log(share)
            yield tuple(map(Spelling._make, worths.items()))

    def guess(self, words: Sequence[str]) -> Iterator[tuple[Spelling, ...]]:
        """Yield how words are said that nobody knows; in no way if it takes unknown phones."""
        for way in map(self._label, self._pronounce(words)):
            yield (Spelling(way, 0.0),) if way else ()

    def _label(self, phones: Iterable[str]) -> tuple[int, ...]:
        """Return the labels of phones, none if one of them isn't known."""
        try:
            return tuple(map(self._index.__getitem__, phones))
        except KeyError:
            return ()


def load_phones(vocabulary: Vocabulary, phones: Sequence[str]) -> Phones:
    """Return phones with the words of the shipped lexicon; a small model pronounces others.

    Raises:
        ConfigError: there are no phones, or the pieces don't spell letters.
        ModelError: the lexicon is missing or damaged.
    """
    lexicon = Lexicon.load()

    def say(word: str) -> tuple[tuple[tuple[str, ...], float], ...]:
        ways = lexicon.ways(word)
        if len(ways) < 2:
            return ways
        least = RARE * max(share for _, share in ways)
        return tuple(way for way in ways if way[1] >= least)

    pronouncer = Pronouncer(lexicon)

    def pronounce(words: Sequence[str]) -> list[tuple[str, ...]]:
        return [item.phones for item in pronouncer.pronounce_words(words)]

    name = f"phones {' '.join(phones)} {lexicon.hash} {RARE}"
    return Phones(vocabulary, phones, say, pronounce, name)
