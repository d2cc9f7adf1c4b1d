"""What was found in a folder of speech: how much, how it sounds, what is written, what is left."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from audiossm.prepare.checks import Clip
from audiossm.text import CHARACTERS, normalise_text

__all__ = ["Report"]

SLIGHTLY_CLIPPED = 0.0005  # of the samples: kept, but told
MOST_NAMED = 3


@dataclass
class Report:
    """Sums over the clips of a folder; ``add`` each of them.

    Attributes:
        layout: how the folder is laid out.
        splits: by name, how many clips and seconds went there.
        speakers: by split, the names of who speaks.
        faults: by fault, the keys of the clips that were left out.
        warnings: sentences about the whole.
    """

    layout: str
    splits: dict[str, tuple[int, float]] = field(default_factory=dict)
    speakers: dict[str, set[str]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    source_s: float = 0.0
    rates: Counter[tuple[int, int]] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    clipped: list[str] = field(default_factory=list)

    def add(self, clip: Clip, split: str) -> None:
        """Count a clip; ``split`` is where it went, if it has no fault."""
        utterance = clip.recording.utterance
        self.characters.update(utterance.text)
        self.source_s += clip.source_s
        if clip.source_rate:
            self.rates[clip.source_rate, clip.channels] += 1
        if clip.fault:
            self.faults.setdefault(clip.fault, []).append(utterance.key)
            return
        count, seconds = self.splits.get(split, (0, 0.0))
        self.splits[split] = count + 1, seconds + clip.seconds
        self.speakers.setdefault(split, set()).add(utterance.speaker)
        self.words.update(normalise_text(utterance.text).split())
        self.seconds.append(clip.seconds)
        self.speeds.append(clip.rate)
        if clip.clipped > SLIGHTLY_CLIPPED:
            self.clipped.append(utterance.key)

    @property
    def kept(self) -> int:
        """How many clips have no fault."""
        return sum(count for count, _ in self.splits.values())

    @property
    def left_out(self) -> int:
        """How many have one."""
        return sum(map(len, self.faults.values()))

    @property
    def strange(self) -> dict[str, int]:
        """Letters and digits of the texts that the alphabet lacks, and how often each stands."""
        return {
            char: count
            for char, count in self.characters.most_common()
            if char.isalnum() and (char.isdigit() or not normalise_text(char))
        }

    @property
    def changed(self) -> dict[str, int]:
        """Letters with accents, which are written without, and how often each stands."""
        return {
            char: count
            for char, count in self.characters.most_common()
            if char.isalpha() and char.lower() not in CHARACTERS and normalise_text(char)
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {
            "layout": self.layout,
            "kept": self.kept,
            "left_out": {fault: len(keys) for fault, keys in sorted(self.faults.items())},
            "source_hours": round(self.source_s / 3600, 4),
            "splits": {
                name: {
                    "utterances": count,
                    "hours": round(seconds / 3600, 4),
                    "speakers": len(self.speakers[name] - {""}),
                }
                for name, (count, seconds) in self.splits.items()
            },
            "rates": [
                {"hz": rate, "channels": channels, "files": count}
                for (rate, channels), count in sorted(self.rates.items())
            ],
            "seconds": quantiles(self.seconds),
            "characters_a_second": quantiles(self.speeds),
            "words": self.words.total(),
            "different_words": len(self.words),
            "outside_alphabet": self.strange,
            "accents_dropped": self.changed,
            "slightly_clipped": self.clipped,
            "warnings": self.warnings,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return what a person reads: names and what was found."""
        rows = [("layout", self.layout)]
        for name, (count, seconds) in self.splits.items():
            known = len(self.speakers[name] - {""})
            who = f"{known} speakers" if known else "speakers unknown"
            rows.append((name, f"{count} utterances, {tell_duration(seconds)}, {who}"))
        rows.append(("left out", f"{self.left_out} of {self.kept + self.left_out}"))
        for fault, keys in sorted(self.faults.items(), key=lambda pair: -len(pair[1])):
            rows.append((f"  {fault}", f"{len(keys)}: {name_some(keys)}"))
        files = (
            f"{rate} Hz {'mono' if channels == 1 else f'{channels} channels'} ({count})"
            for (rate, channels), count in self.rates.most_common()
        )
        rows.append(("files", ", ".join(files) or "none was read"))
        if self.seconds:
            low, middle, high = quantiles(self.seconds)
            rows.append(("seconds", f"{low:.1f} to {high:.1f}, half below {middle:.1f}"))
            low, middle, high = quantiles(self.speeds)
            told = f"{low:.1f} to {high:.1f}, half below {middle:.1f}"
            rows.append(("characters a second", told))
            rows.append(("words", f"{self.words.total()}, {len(self.words)} different ones"))
        rows.append(("outside the alphabet", tell_characters(self.strange)))
        if self.changed:
            rows.append(("accents dropped", tell_characters(self.changed)))
        if self.clipped:
            rows.append(
                ("slightly clipped", f"{len(self.clipped)}, kept: {name_some(self.clipped)}")
            )
        return rows + [("note", warning) for warning in self.warnings]

    def to_markdown(self) -> str:
        """Return ``rows`` as a table of Markdown."""
        lines = ["# What was prepared", "", "| what | found |", "|---|---|"]
        for name, found in self.rows():
            cells = (cell.strip().replace("|", "\\|") for cell in (name, found))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def quantiles(values: Sequence[float]) -> list[float]:
    """Return the lowest, the middle and the highest; nothing of nothing."""
    return [round(float(q), 2) for q in np.quantile(values, (0, 0.5, 1))] if values else []


def tell_duration(seconds: float) -> str:
    """Write hours, or minutes if there are few."""
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def tell_characters(counts: dict[str, int]) -> str:
    """Write the commonest characters with their numbers."""
    told = ", ".join(f"{char} ({count})" for char, count in list(counts.items())[:20])
    return f"{told} and {len(counts) - 20} more" if len(counts) > 20 else told or "none"


def name_some(keys: Iterable[str]) -> str:
    """Name the first few."""
    keys = list(keys)
    return ", ".join(keys[:MOST_NAMED]) + (", ..." if len(keys) > MOST_NAMED else "")
