"""What recordings say, unit by unit, and for how many frames: what a generator learns from."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiossm.errors import ManifestError
from audiossm.lexicon import MAIN_STRESS, SIDE_STRESS
from audiossm.units import BEGINS, ENDS, PAUSES, SYMBOLS, Unit

__all__ = ["TimedScript", "fit_scripts", "read_timed_scripts", "write_timed_scripts"]

FRAME_S = 0.02  # of a file
# by which a recording may be longer or shorter than its script
SLACK_S = 0.1
STRESSES = ("", SIDE_STRESS, MAIN_STRESS)


@dataclass(frozen=True)
class TimedScript:
    """The units of a recording, from its first frame to its last, and how long each lasts.

    Attributes:
        key: the recording's, in its manifest.
        units: phones and pauses.
        frames: of each unit, 1 or more; 20 ms each in a file.
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
        ManifestError: not such a file, or none.
    """
    if not path.exists():
        raise ManifestError(f"{path}: no such file: recipes/generate/time_scripts.py makes it")
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


def fit_scripts(
    scripts: Mapping[str, TimedScript], num_frames: Mapping[str, int], frame_s: float
) -> dict[str, TimedScript]:
    """Count in a codec's frames instead of those of 20 ms; print how many it has too few for.

    Args:
        scripts: by their keys, in frames of 20 ms.
        num_frames: of each recording, by its key.
        frame_s: how long a codec's frame is, in seconds.

    Returns:
        scripts of recordings whose length is about that of their script, and of which each unit
        has a frame.

    Raises:
        ManifestError: there are scripts, but frames are too long for all of them.
    """
    fitting, short = {}, 0
    for key, script in scripts.items():
        borders = np.cumsum([0, *script.frames])
        count = num_frames.get(key, 0)
        if abs(borders[-1] * FRAME_S - count * frame_s) > SLACK_S:
            continue
        frames = np.diff(np.rint(borders / borders[-1] * count).astype(int)).tolist()
        if min(frames) < 1:
            short += 1
        else:
            fitting[key] = TimedScript(key, script.units, tuple(frames))
    if short and not fitting:
        raise ManifestError(
            f"the codec's frames of {1000 * frame_s:g} ms are longer than a phone in each of "
            f"{short} recordings: the generator needs a frame for each phone"
        )
    if short:
        print(f"left out: {short} with phones shorter than the codec's frames", flush=True)
    return fitting


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
