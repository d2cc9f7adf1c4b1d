"""Hot words: words and phrases that somebody expects to be said."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from audiossm.errors import HotwordError
from audiossm.text import normalise_text

__all__ = ["HotWord", "check_hotwords", "read_hotwords"]

MAX_PHRASES = 10_000
MAX_LETTERS = 100  # of a phrase, the spaces counted
MAX_WEIGHT = 10.0


@dataclass(frozen=True, order=True)
class HotWord:
    """A word or phrase as people write it, and its weight: 2 counts twice what 1 does.

    Raises:
        HotwordError: it can't be said in the model's letters, is too long, or its weight is not
            above 0 and at most ``MAX_WEIGHT``.
    """

    phrase: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MAX_WEIGHT:
            raise HotwordError(
                f"hot word {self.phrase!r} has the weight {self.weight:g}: it must be above 0 and "
                f"at most {MAX_WEIGHT:g}"
            )
        for char in self.phrase:
            plain = unicodedata.normalize("NFKD", char)[0]
            if char.isalnum() and not re.fullmatch("[A-Za-z]", plain):
                raise HotwordError(
                    f"hot word {self.phrase!r} has {char!r}: write it as it is said, in the "
                    "letters a to z"
                )
        plain_phrase = normalise_text(self.phrase)
        if not plain_phrase:
            raise HotwordError(f"hot word {self.phrase!r} has no letters")
        if len(plain_phrase) > MAX_LETTERS:
            raise HotwordError(
                f"hot word {self.phrase[:20]!r}... has {len(plain_phrase)} letters: at most "
                f"{MAX_LETTERS} are taken"
            )


def check_hotwords(hotwords: Iterable[str | HotWord]) -> tuple[HotWord, ...]:
    """Return the hot words in plain letters, sorted; of two alike the one of more weight.

    Args:
        hotwords: phrases of weight 1, or ``HotWord``.

    Raises:
        HotwordError: one of them isn't one, or there are more than ``MAX_PHRASES``.
    """
    if isinstance(hotwords, str):
        raise HotwordError(f"hot words are a list of phrases, got the text {hotwords[:20]!r}")
    weights: dict[str, float] = {}
    for item in hotwords:
        word = item if isinstance(item, HotWord) else HotWord(item)
        phrase = normalise_text(word.phrase)
        weights[phrase] = max(weights.get(phrase, 0.0), float(word.weight))
    if len(weights) > MAX_PHRASES:
        raise HotwordError(f"{len(weights)} hot words are too many: at most {MAX_PHRASES}")
    return tuple(HotWord(phrase, weight) for phrase, weight in sorted(weights.items()))


def read_hotwords(path: str | Path) -> tuple[HotWord, ...]:
    """Read a file of a phrase a line, perhaps with a tab and its weight (without: 1) after it.

    Empty lines, and those that begin with ``#``, are left out.

    Raises:
        HotwordError: it can't be read, holds no phrase, or a line is wrong (``file:line``).
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise HotwordError(f"{path}: can't read the hot words: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise HotwordError(f"{path}: not a list of hot words (it isn't UTF-8 text)") from exc
    words = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            try:
                words.append(_parse_line(line))
            except HotwordError as exc:
                raise HotwordError(f"{path}:{number}: {exc}") from exc
    if not words:
        raise HotwordError(f"{path}: no hot words in it: a phrase a line is expected")
    return check_hotwords(words)


def _parse_line(line: str) -> HotWord:
    phrase, tab, weight = line.strip().partition("\t")
    if not tab:
        return HotWord(phrase)
    try:
        return HotWord(phrase, float(weight))
    except ValueError as exc:
        raise HotwordError(f"weight {weight!r} after {phrase!r} is not a number") from exc
