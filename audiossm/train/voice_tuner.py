"""Tune a voice: a pace and the state that speech begins from, on aligned recordings.

The network stays as it is (the idea of tuning a state: Lina-Speech, arXiv:2410.23320).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from audiossm.errors import AlignmentError
from audiossm.models import (
    GeneratorState,
    LoadedGenerator,
    Voice,
    delay_codes,
    find_voice,
    list_voices,
)
from audiossm.models.voices import make_nobody
from audiossm.nn import mamba_blocks, map_state
from audiossm.pronouncer import Pronouncer
from audiossm.script import ScriptReader
from audiossm.streaming import Alignment
from audiossm.streaming.speech import LONGEST_LEAD, SENTENCE_ENDS
from audiossm.units import PAUSES, Unit

__all__ = ["Phrase", "TunedVoice", "cut_phrases", "time_units", "tune_voice"]

FRAME_S = 0.02
LEAST_PAUSE = 3  # frames, of one that no mark asks for
LONGEST = 600  # frames of a phrase that are learnt from
BATCH = 1200  # frames a step
HELD_OUT = 0.2  # of the phrases
GROUP_WEIGHTS = (1.0, 0.7, 0.5, 0.4)  # as in recipes/generate; later groups have the last one's
ENDS_WEIGHT = 0.5
LEARNING_RATES = {"vector": 0.03, "pace": 0.01, "state": 0.01}
STATE_SHARE = 0.7  # of the way to what was tuned: all the way costs words (recipes/generate)

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Phrase:
    """A sentence as it was said.

    Attributes:
        units: phones and pauses.
        frames: of each unit, 1 or more.
        codes: (frames, groups).
    """

    units: tuple[Unit, ...]
    frames: tuple[int, ...]
    codes: Codes


@dataclass(frozen=True)
class TunedVoice:
    """A voice, and whether it is one.

    ``before`` and ``after`` are weighted nats per frame on phrases that it didn't learn from: those
    of the voice that it began with, and its own.
    """

    voice: Voice
    before: float
    after: float
    seconds: float  # of speech that it learnt from

    @property
    def is_better(self) -> bool:
        """Whether anything was gained."""
        return self.after < self.before


def time_units(
    alignment: Alignment, pronouncer: Pronouncer, num_frames: int
) -> tuple[tuple[Unit, ...], tuple[int, ...]]:
    """Say for how many frames each unit of an aligned text lasts.

    Args:
        alignment: of the whole text with its recording.
        pronouncer: says how words are said.
        num_frames: of the recording.

    Raises:
        AlignmentError: the text has words that can't be said, or the recording has too few frames.
    """
    reader = ScriptReader(pronouncer)
    first, last = reader.push(alignment.text), reader.finish()
    units, words = [*first.units, *last.units], [*first.words, *last.words]
    if first.skipped or last.skipped or words != [word.word for word in alignment.words]:
        left_out = ", ".join([*first.skipped, *last.skipped][:3]) or "marks alone"
        raise AlignmentError(f"the text has what can't be said ({left_out}): write it out")
    timed: list[tuple[Unit, float]] = []  # and its end, in frames
    for number, word in enumerate(alignment.words):
        said = [unit for unit in units if unit.word == number and not unit.is_pause]
        mark = [unit for unit in units if unit.word == number and unit.is_pause]
        start = word.start_s / FRAME_S
        if number == 0:
            timed.append((Unit("_", 0, 0, 0), start))
            mark = [unit for unit in mark if unit.symbol != "_"]
        elif timed[-1][0].symbol not in PAUSES and start - timed[-1][1] >= LEAST_PAUSE:
            timed.append((Unit("_", 0, 0, number - 1), start))
        else:
            timed[-1] = (timed[-1][0], start)
        edges = np.linspace(start, word.end_s / FRAME_S, len(said) + 1)[1:]
        if word.phones is not None and len(word.phones) == len(said):
            edges = np.array([phone.end_s / FRAME_S for phone in word.phones])
        timed += zip(said, edges.tolist(), strict=True)
        timed += [(unit, word.end_s / FRAME_S) for unit in mark]
    timed[-1] = (timed[-1][0], float(num_frames))
    # a frame for each at least
    ends = np.rint([end for _, end in timed]).astype(np.int64)
    ends = np.maximum.accumulate(ends - np.arange(len(ends))) + np.arange(len(ends))
    ends = np.maximum(ends, np.arange(1, len(ends) + 1))
    latest = num_frames - np.arange(len(ends))[::-1]
    ends = np.minimum(ends, latest)
    if len(ends) > num_frames or ends[0] < 1:
        raise AlignmentError(f"{len(ends)} phones and pauses in {num_frames} frames")
    frames = np.diff(ends, prepend=0)
    return tuple(unit for unit, _ in timed), tuple(frames.tolist())


def cut_phrases(units: Sequence[Unit], frames: Sequence[int], codes: Codes) -> Iterator[Phrase]:
    """Cut a recording where its sentences end: a session says each as a text of its own.

    A pause between two sentences ends the one and, up to a few frames, begins the other.

    Args:
        units: of the recording.
        frames: of each.
        codes: (frames, groups).
    """
    begin = at = 0
    now: list[tuple[Unit, int]] = []
    for number, (unit, count) in enumerate(zip(units, frames, strict=True)):
        at += count
        now.append((unit, count))
        is_last = number == len(units) - 1
        if not is_last and unit.symbol not in SENTENCE_ENDS:
            continue
        lead = 0 if is_last else min(count // 2, LONGEST_LEAD)
        now[-1] = (unit, count - lead)
        said = tuple(item for item, _ in now), tuple(size for _, size in now)
        yield _limit(Phrase(*said, codes[begin : at - lead]))
        begin, now = at - lead, []
        if lead:
            now.append((Unit("_", 0, 0, unit.word), lead))


def _limit(phrase: Phrase) -> Phrase:
    """Leave out what comes after ``LONGEST`` frames, unit by unit."""
    kept = max(1, int(np.searchsorted(np.cumsum(phrase.frames), LONGEST, side="right")))
    frames = phrase.frames[:kept]
    return Phrase(phrase.units[:kept], frames, phrase.codes[: sum(frames)])


def tune_voice(
    generator: LoadedGenerator,
    phrases: Sequence[Phrase],
    *,
    name: str,
    origin: str,
    licence: str,
    num_epochs: int = 20,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> TunedVoice:
    """Fit a voice to phrases by gradient descent, on the CPU.

    It begins from the voice of the model that fits best, whose vector it keeps, and what is kept is
    the state of the epoch that said the held-out phrases best. Of a model without voices it tunes
    the vector, too.

    Args:
        generator: the model, which isn't changed.
        phrases: of one speaker, 5 or more.
        name: of the voice.
        origin: one line: whose it is.
        licence: one line.
        num_epochs: how often all phrases are learnt from.
        seed: of their order.
        on_epoch: is called with the number of epochs that are done and the held-out loss.

    Raises:
        AlignmentError: there are too few phrases to hold some out.
    """
    if len(phrases) < 5:
        raise AlignmentError(
            f"{len(phrases)} sentences are too few to tune a voice and to check it: 5 are the "
            "least, some minutes of speech are better"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(phrases))
    num_held = max(1, round(HELD_OUT * len(phrases)))
    held = _batch([phrases[i] for i in order[:num_held]])
    learnt = [phrases[i] for i in order[num_held:]]
    start, before = _choose_start(generator, learnt, held)
    network = generator.network
    vector = torch.from_numpy(start.vector.copy()).requires_grad_(True)
    pace = torch.tensor(start.pace, requires_grad=True)
    first = network.init_state(1) if start.state is None else start.state
    # not k and v, too: where both are nought, so is the gradient of their product
    mamba_blocks(network.blocks(), "tuned voices")
    memories = [layer.ssm.clone().requires_grad_(True) for layer in first.layers]
    tuned = {"pace": [pace], "state": memories}
    if not start.name:  # a known voice's vector stays: beside those of the training words get lost
        tuned["vector"] = [vector]
    optimiser = torch.optim.Adam(
        [{"params": params, "lr": LEARNING_RATES[name]} for name, params in tuned.items()]
    )

    def state() -> GeneratorState:
        layers = zip(first.layers, memories, strict=True)
        return GeneratorState(tuple(layer._replace(ssm=ssm) for layer, ssm in layers))

    def freeze() -> Voice:
        """Return the voice as a file has it."""
        layers = zip(first.layers, state().layers, strict=True)
        part_way = GeneratorState(
            tuple(old._replace(ssm=old.ssm.lerp(new.ssm, STATE_SHARE)) for old, new in layers)
        )
        halved = map_state(lambda part: part.detach().half().float(), part_way)
        return replace(
            start,
            name=name,
            origin=origin,
            licence=licence,
            vector=vector.detach().half().float().numpy(),
            pace=float(pace.detach().half()),
            state=halved,
        )

    best, after = freeze(), before
    for epoch in range(num_epochs):
        shuffled = [learnt[i] for i in rng.permutation(len(learnt))]
        for batch in _batch(shuffled):
            optimiser.zero_grad()
            loss, frames = _weigh(generator, batch, vector, pace, state())
            (loss / frames).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        voice = freeze()
        loss_now = _score(generator, held, voice)
        if on_epoch is not None:
            on_epoch(epoch + 1, loss_now)
        if loss_now < after:
            best, after = voice, loss_now
    seconds = sum(sum(phrase.frames) for phrase in learnt) * FRAME_S
    return TunedVoice(voice=best, before=before, after=after, seconds=seconds)


def _choose_start(
    generator: LoadedGenerator, learnt: Sequence[Phrase], held: Sequence[list[Phrase]]
) -> tuple[Voice, float]:
    """Return the known voice that fits best, and what it says of the held-out phrases."""
    # nobody's fits some people better, but then words get lost
    known = [find_voice(generator, n) for n in list_voices(generator)] or [make_nobody(generator)]
    some = _batch(learnt)[:2]
    start = min(known, key=lambda voice: _score(generator, some, voice))
    return start, _score(generator, held, start)


def _batch(phrases: Sequence[Phrase]) -> list[list[Phrase]]:
    """Join phrases, in their order, to batches of about ``BATCH`` frames, padding included."""
    batches: list[list[Phrase]] = []
    for phrase in phrases:
        longest = max(len(other.codes) for other in [phrase, *(batches[-1] if batches else [])])
        if not batches or longest * (len(batches[-1]) + 1) > BATCH:
            batches.append([])
        batches[-1].append(phrase)
    return batches


@torch.no_grad()
def _score(generator: LoadedGenerator, batches: Sequence[list[Phrase]], voice: Voice) -> float:
    """Return the mean loss of a voice, weighted nats per frame."""
    first = generator.network.init_state(1) if voice.state is None else voice.state
    vector, pace = torch.from_numpy(voice.vector), torch.tensor(voice.pace)
    sums = [_weigh(generator, batch, vector, pace, first) for batch in batches]
    return float(sum(loss for loss, _ in sums)) / sum(frames for _, frames in sums)


def _weigh(
    generator: LoadedGenerator,
    batch: Sequence[Phrase],
    vector: Tensor,
    pace: Tensor,
    state: GeneratorState,
) -> tuple[Tensor, int]:
    """Return the summed loss of a batch's frames, and how many they are."""
    network, config = generator.network, generator.config
    none, num_groups = config.num_codes, config.num_groups
    # later groups make a phrase's last frames behind its end, where there is no text and no pace
    longest = max(len(phrase.codes) for phrase in batch) + num_groups - 1
    codes = torch.full((len(batch), longest, num_groups), none)
    nothing = torch.from_numpy(generator.read(np.zeros((config.window, 3), np.int64)))
    text = nothing.repeat(len(batch), longest, 1)
    ages = torch.zeros(len(batch), longest, dtype=torch.int64)
    ends, told = torch.zeros(len(batch), longest), torch.zeros(len(batch), longest)
    for row, phrase in enumerate(batch):
        size = len(phrase.codes)
        counts = torch.tensor(phrase.frames)
        codes[row, :size] = torch.from_numpy(phrase.codes)
        rows = torch.tensor([generator.row(unit) for unit in phrase.units])
        text[row, :size] = network.read(rows.unsqueeze(0))[0].repeat_interleave(counts, dim=0)
        last = counts.cumsum(0)
        ages[row, :size] = torch.arange(size) - (last - counts).repeat_interleave(counts)
        ends[row, last - 1] = 1.0
        told[row, :size] = 1.0
    targets = delay_codes(codes, none)[:, :longest]
    heard = F.pad(targets, (0, 0, 1, 0), value=none)[:, :-1]
    size = len(batch)
    x = network.embed(heard, text, ages, vector.expand(size, -1), pace * told)
    repeated = map_state(lambda part: part.expand(size, *part.shape[1:]), state)
    outputs, _ = network.step(x, repeated)
    logits = outputs[..., :-1].view(size, longest, num_groups, none)
    loss = (
        ENDS_WEIGHT
        * (
            told * F.binary_cross_entropy_with_logits(outputs[..., -1], ends, reduction="none")
        ).sum()
    )
    for group in range(num_groups):
        weight = GROUP_WEIGHTS[min(group, len(GROUP_WEIGHTS) - 1)]
        guessed, right = logits[:, :, group].flatten(0, 1), targets[:, :, group].flatten()
        loss = loss + weight * F.cross_entropy(guessed, right, ignore_index=none, reduction="sum")
    return loss, int(told.sum())
