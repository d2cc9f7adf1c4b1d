"""What a generator learns from at each step: rows of one speaker's recordings, unit by unit."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.models.generator import GeneratorConfig
from audiossm.train.losses import send
from audiossm.train.ranks import ALONE, Ranks
from audiossm.train.takes import Take
from audiossm.train.timed_scripts import TimedScript
from audiossm.units import PAUSES

__all__ = ["UNTOLD", "Recital", "Recitals"]

MOST_OPEN = 16  # rows that have room for others yet
UNTOLD = -1  # in ``Recital.ends``: there is no unit, or no frame


class Recital(NamedTuple):
    """Rows of joined takes, frame by frame; after their ends there are no codes and no text."""

    codes: Tensor  # (rows, frames, groups) int16; ``num_codes`` is none
    units: Tensor  # (rows, units, 3) uint8, as ``Generator.read`` takes them; the last is none
    place: Tensor  # (rows, frames) int16: which of its row's units a frame belongs to
    age: Tensor  # (rows, frames) int16: frames since it began
    ends: Tensor  # (rows, frames) int8: whether it ends with this frame, or UNTOLD
    pace: Tensor  # (rows, frames) float32
    who: Tensor  # (rows,) int64: the speaker, from 1 on; 0 is nobody

    def counts(self, none: int) -> list[int]:
        """Return over how many things the losses of ``Talker`` are means; ``none`` is no code."""
        frames = self.codes.shape[1]
        told = [
            int((group[:, : max(frames - late, 0)] != none).sum())
            for late, group in enumerate(self.codes.unbind(2))
        ]
        return [*told, int((self.ends != UNTOLD).sum())]

    def to(self, device: torch.device) -> "Recital":
        """Move it without waiting for the device."""
        return Recital(*(send(tensor, device) for tensor in self))


def find_pace(script: TimedScript, usual: Mapping[str, float]) -> float:
    """Return the logarithm of the mean of how much longer than usual phones are; 0 without any."""
    ratios = [
        frames / usual[unit.symbol]
        for unit, frames in zip(script.units, script.frames, strict=True)
        if unit.symbol in usual
    ]
    return float(np.log(np.mean(ratios))) if ratios else 0.0


class Recitals:
    """All takes end to end, and a recital for each step: a function of the seed and the step.

    A row begins with a take, or now and then with the rest of one that a row before had no room
    for, and goes on with others of the speaker, in another order in each pass. Where two takes
    meet, their pauses are one, as a script of both has it. With ``people_meet`` rows without a
    script that aren't full go on with other people, and are nobody's.

    Args:
        config: of the generator.
        takes: at least one.
        speakers: who has a voice of their own.
        usual: frames of each phone, by ``usual_frames``.
        data: the table ``data`` of recipes/generate/config.toml.
        seed: decides the order.
        ranks: the processes that have a part of each recital's rows.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        takes: Sequence[Take],
        speakers: Sequence[str],
        usual: Mapping[str, float],
        data: Mapping[str, Any],
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.data, self.seed, self.ranks = config, data, seed, ranks
        ranks.part(int(data["rows"]))
        self.rows, self.frames = int(data["rows"]), int(data["row_frames"])
        index = {symbol: number for number, symbol in enumerate(config.symbols.split(), 1)}
        self.paces = [find_pace(take.script, usual) for take in takes]
        self.names = [take.utterance.speaker for take in takes]
        numbers = {name: number for number, name in enumerate(speakers, 1)}
        self.who = np.array([numbers.get(name, 0) for name in self.names])
        self.silent = np.array([not take.has_script for take in takes])
        self.always_told = np.array([take.always_told for take in takes])
        self.sizes = np.array([len(take.codes) for take in takes])
        self.starts = self.sizes.cumsum() - self.sizes
        self.codes = np.concatenate([take.codes[:, : config.num_groups] for take in takes])
        units = [(index[u.symbol], u.stress, u.place) for take in takes for u in take.script.units]
        self.units = np.array(units, np.uint8)
        counts = np.array([count for take in takes for count in take.script.frames])
        self.unit_of = np.arange(len(counts)).repeat(counts)  # of each frame
        self.age = np.arange(len(self.unit_of)) - (counts.cumsum() - counts).repeat(counts)
        self.ends = np.zeros(len(self.unit_of), np.int8)
        self.ends[counts.cumsum() - 1] = 1
        self.pause = np.isin(self.units[:, 0], [index[pause] for pause in PAUSES if pause in index])
        self.take_ends = np.array([len(take.script.units) for take in takes]).cumsum()
        # a pass has as many steps as if no row were padded or cut
        self.num_steps = max(len(self.codes) // (self.rows * self.frames), 1)
        self.number, self.order = -1, list[list[tuple[int, int, int]]]()

    def recital(self, step: int) -> Recital:
        """Return what a step of training learns from, on the CPU: this process's rows of it."""
        number, at = divmod(step, self.num_steps)
        if number != self.number:
            self.number, self.order = number, self.arrange(number, self.data["people_meet"])
        rows = [
            self.order[i % len(self.order)] for i in range(at * self.rows, (at + 1) * self.rows)
        ]
        rng = np.random.default_rng([self.seed, 1, step])
        takes = [[take for take, _, _ in row] for row in rows]
        untold = rng.random(self.rows) < self.data["untold_share"]
        untold &= ~np.array([self.always_told[row].any() for row in takes])
        untold |= np.array([self.silent[row].any() for row in takes])
        alone = np.where(untold, self.data["untold_nobody_share"], self.data["nobody_share"])
        nobody = rng.random(self.rows) < alone
        nobody |= np.array([len({self.names[take] for take in row}) > 1 for row in takes])
        own = slice(self.ranks.number, None, self.ranks.count)
        return self.assemble(rows[own], untold[own], nobody[own])

    def dev_ways(self) -> list[tuple[Recital, Recital, Recital]]:
        """Return what to score by, up to ``dev_batches``.

        Each is told its text; isn't; and is told neither text nor voice, as a prompt that is gone
        on from is.
        """
        rows = self.arrange(0)[: self.rows * self.data["dev_batches"]]
        batches = [rows[at : at + self.rows] for at in range(0, len(rows), self.rows)]
        ways = []
        for batch in batches:
            no = np.zeros(len(batch), np.bool_)
            ways.append(
                (
                    self.assemble(batch, no, no),
                    self.assemble(batch, ~no, no),
                    self.assemble(batch, ~no, ~no),
                )
            )
        return ways

    def mean_paces(self, speakers: Sequence[str]) -> Tensor:
        """Return the mean pace of each of these."""
        of: dict[str, list[float]] = {}
        for name, pace in zip(self.names, self.paces, strict=True):
            of.setdefault(name, []).append(pace)
        return torch.tensor([np.mean(of[name]) for name in speakers], dtype=torch.float32)

    def arrange(self, number: int, meet: bool = False) -> list[list[tuple[int, int, int]]]:
        """Return the rows of a pass: of takes, each from a frame up to another one.

        Where people ``meet``, rows without a script that aren't full are joined, if they fit.
        """
        rng = np.random.default_rng([self.seed, 0, number])
        takes_of: dict[str, list[int]] = {}
        for take, name in enumerate(self.names):
            takes_of.setdefault(name, []).append(take)
        rows = []
        for takes in takes_of.values():
            row: list[tuple[int, int, int]] = []
            left = self.frames
            for take in rng.permutation(takes).tolist():
                at, size = 0, int(self.sizes[take])
                while at < size:
                    end = min(at + left, size)
                    row.append((take, at, end))
                    left -= end - at
                    at = end
                    if not left:
                        rows.append(row)
                        row, left = [], self.frames
                        if rng.random() < 0.5:
                            break  # else no row but a speaker's first would begin with a take
            if row:
                rows.append(row)
        rows = [rows[i] for i in rng.permutation(len(rows))]
        return self.join(rows) if meet else rows

    def join(self, rows: Sequence[list[tuple[int, int, int]]]) -> list[list[tuple[int, int, int]]]:
        """Put rows without a script into those before them that have room for all of them."""
        joined, room = list[list[tuple[int, int, int]]](), dict[int, int]()  # by number, the newest
        for row in rows:
            size = sum(end - at for _, at, end in row)
            silent = all(self.silent[take] for take, _, _ in row)
            into = next((n for n, left in room.items() if silent and left >= size), None)
            if into is not None:
                joined[into].extend(row)
                room[into] -= size
                if not room[into]:
                    del room[into]
                continue
            joined.append(list(row))
            if silent and size < self.frames:
                room[len(joined) - 1] = self.frames - size
                if len(room) > MOST_OPEN:
                    room.pop(next(iter(room)))
        return joined

    def assemble(
        self,
        rows: Sequence[Sequence[tuple[int, int, int]]],
        untold: NDArray[np.bool_],
        nobody: NDArray[np.bool_],
    ) -> Recital:
        """Write rows out; ``untold`` ones have no text, and ``nobody`` speaks in others."""
        config, shape = self.config, (len(rows), self.frames)
        # none behind the look-ahead, which sees no text before it either
        none = self.frames + config.units_after + config.units_before
        codes = np.full((*shape, config.num_groups), config.num_codes, np.int16)
        units = np.zeros((len(rows), none + 1, 3), np.uint8)
        place, age = np.full(shape, none, np.int16), np.zeros(shape, np.int16)
        ends, pace = np.full(shape, UNTOLD, np.int8), np.zeros(shape, np.float32)
        who = np.zeros(len(rows), np.int64)
        for number, row in enumerate(rows):
            who[number] = 0 if nobody[number] else self.who[row[0][0]]
            at = count = last = 0  # frames and units so far, and the newest of those
            for take, begin, end in row:
                begin, end = begin + self.starts[take], end + self.starts[take]
                here = slice(at, at + end - begin)
                codes[number, here] = self.codes[begin:end]
                at = here.stop
                if untold[number]:
                    continue
                first, now = self.unit_of[begin], self.unit_of[end - 1] + 1
                shared = count > 0 and self.pause[last] and self.pause[first]
                ages = self.age[begin:end].copy()
                if shared:
                    ends[number, here.start - 1] = 0
                    ages[self.unit_of[begin:end] == first] += age[number, here.start - 1] + 1
                count -= int(shared)
                place[number, here] = count + self.unit_of[begin:end] - first
                age[number, here], ends[number, here] = ages, self.ends[begin:end]
                pace[number, here] = self.paces[take]
                # of a pause that two share, the first one's mark stands
                kept = units[number, count].copy() if shared else self.units[first]
                seen = min(now + config.units_after, self.take_ends[take])
                units[number, count : count + seen - first] = self.units[first:seen]
                units[number, count] = kept
                count, last = count + int(now - first), now - 1
        arrays = (codes, units, place, age, ends, pace, who)
        return Recital(*(torch.from_numpy(array) for array in arrays))
