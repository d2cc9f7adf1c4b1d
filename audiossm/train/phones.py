"""Phone transcripts of a corpus, as ``recipes/transcribe/make_phones.py`` writes them."""

import json
from dataclasses import dataclass
from pathlib import Path

from audiossm.errors import ManifestError
from audiossm.manifest import Utterance

__all__ = ["Phones", "read_phones"]


@dataclass(frozen=True)
class Phones:
    """Phone symbols (id 0 is the CTC blank, which isn't listed) and the phones of utterances."""

    symbols: tuple[str, ...]
    by_key: dict[str, list[int]]

    def label(self, utterance: Utterance) -> list[int]:
        """Return an utterance's phone ids, from 1; none if there are no phones at all.

        Raises:
            ManifestError: others have phones, but not this one: a row without them would be
                learnt as silence.
        """
        if self.symbols and utterance.key not in self.by_key:
            raise ManifestError(
                f"{utterance.where}: no phones of {utterance.key!r}: run make_phones.py over this "
                "manifest too"
            )
        return self.by_key.get(utterance.key, [])

    def in_order(self, symbols: tuple[str, ...]) -> "Phones":
        """Return the same phones with the ids that other symbols give them, which have them all."""
        if not self.symbols or symbols == self.symbols:
            return self
        ids = [0, *(symbols.index(symbol) + 1 for symbol in self.symbols)]
        return Phones(symbols, {key: [ids[i] for i in row] for key, row in self.by_key.items()})


def read_phones(path: Path) -> Phones:
    """Read ``{"symbols": [...], "phones": {key: [symbol, ...]}}``.

    Raises:
        ManifestError: not such a file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        index = {symbol: i + 1 for i, symbol in enumerate(data["symbols"])}
        by_key = {key: [index[symbol] for symbol in row] for key, row in data["phones"].items()}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ManifestError(f"{path}: not a file of phones ({exc!r})") from exc
    return Phones(tuple(index), by_key)
