"""What a text as it is said is made of: phones and pauses."""

from dataclasses import dataclass

from audiossm.lexicon import PHONES

__all__ = ["BEGINS", "ENDS", "PAUSES", "SYMBOLS", "Unit"]

# a pause that no mark asks for, and those of commas, of sentences' ends and of questions
PAUSES = ("_", ",", ".", "?")
SYMBOLS = PAUSES + PHONES
BEGINS, ENDS = 1, 2  # bits of ``Unit.place``


@dataclass(frozen=True)
class Unit:
    """A phone or a pause.

    Attributes:
        symbol: one of ``SYMBOLS``: a pause, or a phone (IPA, as espeak-ng writes it, no stress).
        stress: 0 none, 1 side, 2 main.
        place: ``BEGINS`` and ``ENDS``, added up, of a word's first and last phone; 0 of pauses.
        word: which of the script's words, from 0; a pause belongs to the word before it, and the
            one at the beginning to word 0.
    """

    symbol: str
    stress: int
    place: int
    word: int

    @property
    def is_pause(self) -> bool:
        """Whether nothing is said."""
        return self.symbol in PAUSES
