"""What recordings say, unit by unit, and for how many frames: what a generator learns from."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from audiossm.errors import ManifestError
from audiossm.lexicon import MAIN_STRESS, SIDE_STRESS
from audiossm.script import BEGINS, ENDS, PAUSES, SYMBOLS, Unit

__all__ = ["TimedScript", "read_timed_scripts", "write_timed_scripts"]

STRESSES = ("", SIDE_STRESS, MAIN_STRESS)


@dataclass(frozen=True)
class TimedScript:
    """The units of a recording, from its first frame to its last, and how long each lasts.

    Attributes:
        key: the recording's, in its manifest.
        units: phones and pauses.
        frames: of each unit, 1 or more; 20 ms each.
    """

    key: str
    units: tuple[Unit, ...]
    frames: tuple[int, ...]


def write_timed_scripts(path: Path, scripts: Iterable[TimedScript]) -> None:
    """Write a line for each: ``{"key": .., "said": ["_", "h ə l ˈoʊ", ","], "frames": [..]}``."""
    with path.open("w", encoding="utf-8") as file:
        for script in scripts:
            said: list[str] = []
            for unit in script.units:
                phone = STRESSES[unit.stress] + unit.symbol
                if unit.is_pause or unit.place & BEGINS:
                    said.append(phone)
                else:
                    said[-1] += f" {phone}"
            row = {"key": script.key, "said": said, "frames": script.frames}
            print(json.dumps(row, ensure_ascii=False, separators=(",", ":")), file=file)


def read_timed_scripts(path: Path) -> Iterator[TimedScript]:
    """Read what ``write_timed_scripts`` wrote.

    Raises:
        ManifestError: not such a file.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                units = tuple(_read_units(row["said"]))
                frames = tuple(int(count) for count in row["frames"])
                if len(units) != len(frames) or not units or min(frames) < 1:
                    raise ValueError(f"line {number}: {len(units)} units, frames {frames[:4]}...")
                yield TimedScript(str(row["key"]), units, frames)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ManifestError(f"{path}: not a file of timed scripts ({exc})") from exc


def _read_units(said: list[str]) -> Iterator[Unit]:
    word = -1
    for item in said:
        if item in PAUSES:
            yield Unit(item, 0, 0, max(word, 0))
            continue
        word += 1
        phones = item.split(" ")
        for at, phone in enumerate(phones):
            symbol = phone.lstrip(MAIN_STRESS + SIDE_STRESS)
            if symbol not in SYMBOLS:
                raise ValueError(f"unknown phone {phone!r}")
            stress = STRESSES.index(phone[: len(phone) - len(symbol)])
            place = BEGINS * (at == 0) + ENDS * (at == len(phones) - 1)
            yield Unit(symbol, stress, place, word)
