"""What a search hears, letters or phones, and how words are spelled in them."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from audiossm.errors import ConfigError, HotwordError
from audiossm.hotwords import HotWord
from audiossm.lexicon import Lexicon, drop_stress
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

    def spell(self, words: Sequence[str]) -> list[tuple[Spelling, ...]]:
        """Return for each word how it is spelled or said, in each way; perhaps in none."""

    def guess(self, words: Sequence[str]) -> list[tuple[Spelling, ...]]:
        """Return the same of words that aren't known."""


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

    def spell(self, words: Sequence[str]) -> list[tuple[Spelling, ...]]:
        """Return how each word is spelled."""
        index = {ord(piece): i for i, piece in enumerate(self.symbols) if len(piece) == 1}
        return [(Spelling(tuple(map(ord, word.translate(index))), 0.0),) for word in words]

    def guess(self, words: Sequence[str]) -> list[tuple[Spelling, ...]]:
        """Return the same: letters spell any word."""
        return self.spell(words)


class Phones:
    """The phones of a network that has a head for them, beside its letters.

    Args:
        vocabulary: the network's pieces, letters.
        phones: its phones, without the blank; label 1 is the first one.
        said: words and how they are said, with the share of each way.
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
        said: Mapping[str, Sequence[tuple[tuple[str, ...], float]]],
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
        self._index = {symbol: label for label, symbol in enumerate(self.symbols) if label}

    def spell(self, words: Sequence[str]) -> list[tuple[Spelling, ...]]:
        """Return how each word is said; in no way if that isn't known, or in unknown phones."""
        rows = []
        for word in words:
            labels = {self._label(phones): math.log(p) for phones, p in self._said.get(word, ())}
            rows.append(tuple(Spelling(way, worth) for way, worth in labels.items() if way))
        return rows

    def guess(self, words: Sequence[str]) -> list[tuple[Spelling, ...]]:
        """Return how words are said that nobody knows; in no way if it takes unknown phones."""
        ways = [self._label(phones) for phones in self._pronounce(words)]
        return [(Spelling(way, 0.0),) if way else () for way in ways]

    def _label(self, phones: Iterable[str]) -> tuple[int, ...]:
        """Return the labels of phones, none if one of them isn't known."""
        plain = drop_stress(phones)
        if not self._index.keys() >= set(plain):
            return ()
        return tuple(self._index[phone] for phone in plain)


def load_phones(vocabulary: Vocabulary, phones: Sequence[str]) -> Phones:
    """Return phones with the words of the shipped lexicon; a small model pronounces others.

    Raises:
        ConfigError: there are no phones, or the pieces don't spell letters.
        ModelError: the lexicon is missing or damaged.
    """
    lexicon = Lexicon.load()
    said = {
        word: [way for way in ways if way[1] >= RARE * max(share for _, share in ways)]
        for word in lexicon.words
        if (ways := lexicon.ways(word))
    }
    pronouncer = Pronouncer(lexicon)

    def pronounce(words: Sequence[str]) -> list[tuple[str, ...]]:
        return [item.phones for item in pronouncer.pronounce_words(words)]

    digest = hashlib.sha256(repr(sorted(said.items())).encode()).hexdigest()
    return Phones(vocabulary, phones, said, pronounce, f"phones {' '.join(phones)} {digest}")
