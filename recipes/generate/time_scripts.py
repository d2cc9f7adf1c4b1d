"""Tell which phones and pauses recordings consist of, and how long each lasts.

    python recipes/generate/time_scripts.py --data DIR --model first-light --out DIR/said.jsonl
        NAME [NAME ...]

Reads DIR/NAME.jsonl and writes timed scripts (audiossm/train/timed_scripts.py). A recogniser's CTC
spikes make a first guess. Gaussians learn from the guess what 10 ms of a phone or a pause look
like, and Viterbi's algorithm makes a better guess of it, several times; last, a small network does.

Pauses may stand between any two words; those that no mark asks for and that last less than 60 ms
are given to their neighbours. A recording counts as whole frames of 20 ms: what is left at its end
isn't told of.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from audiossm.codec.stft import mel_filters
from audiossm.errors import ModelError
from audiossm.manifest import Utterance
from audiossm.models import LoadedRecogniser, SpikeOffsets
from audiossm.models.recogniser import Recogniser
from audiossm.pronouncer import Pronouncer, Pronunciation
from audiossm.script import ScriptReader, say
from audiossm.train.corpus import Corpus, read_manifests
from audiossm.train.judges import MARGIN, Judge, fit_gaussians, train_network
from audiossm.train.paths import Chain, find_paths, spell_ctc
from audiossm.train.timed_scripts import TimedScript, write_timed_scripts
from audiossm.units import ENDS, Unit
from audiossm_apps.recipe import run_recipe

FRAME, HOP, WINDOW, NUM_MELS = 320, 160, 320, 40  # samples; a frame is two hops
STATES = 3  # of a phone, each a hop or more
ROUNDS = 3  # of Gaussians
LEAST_PAUSE = 3  # frames, of one that no mark asks for
PLOSIVES = ("p", "b", "t", "d", "k", "ɡ", "tʃ", "dʒ", "ʔ")  # a short silence is theirs
LEAST_FRAMES = 2  # a phone, on average: nobody speaks faster
LATE = 20  # label frames by which spikes are late, at most
WORST_SPIKES = -1.5  # mean log-probability of a phone, below which a text must be another's
WORST_SPREAD = 5.0  # spreads below the median path

Ints = NDArray[np.int64]


@dataclass
class Recording:
    """What is said in an item of the corpus, and in which hop each unit begins."""

    key: str
    item: int
    units: tuple[Unit, ...]
    frames: int
    starts: Ints | None = None


class SaidWords(Pronouncer):
    """Says words that it was given, all at once."""

    def __init__(self, words: Sequence[str]) -> None:
        said = Pronouncer.load().pronounce_words(words)
        self.said = dict(zip(words, said, strict=True))

    def pronounce_words(self, words: Sequence[str]) -> tuple[Pronunciation, ...]:
        """Look them up."""
        return tuple(self.said[word] for word in words)


def main(argv: list[str] | None = None) -> None:
    """Read, guess, guess better, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--model", default="first-light", help="a recogniser (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--cache", type=Path, help="keeps the decoded audio for the next run")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="that decode")
    parser.add_argument("--rounds", type=int, default=1, help="of networks (default: %(default)s)")
    parser.add_argument(
        "--hops", type=int, default=30_000_000, help="that each learns from, at most"
    )
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    model = LoadedRecogniser.load(args.model, device=args.device)
    said = read_scripts(read_manifests(args.data, args.names), model.network.config.phones)
    utterances = [utterance for utterance, _ in said]
    tell(f"{len(said)} scripts")
    place = {id(utterance): [i] for i, utterance in enumerate(utterances)}
    corpus = Corpus.load(
        utterances, [lambda u: place[id(u)]], [[]], workers=args.workers, cache=args.cache
    ).to(str(model.device))
    tell(f"{corpus.hours:.2f} h of audio")
    recordings = [
        Recording(utterances[i].key, item, said[i][1], int(corpus.sizes[item]) // FRAME)
        for item, (i,) in enumerate(corpus.labels[0])
    ]
    recordings = find_first_starts(model, corpus, recordings)
    tell(f"first guess of {len(recordings)} recordings")
    aligner = Aligner(corpus, recordings, model.network.config.phones)
    for number in range(ROUNDS):
        scores = aligner.align(
            fit_gaussians(aligner.features, *aligner.label(), aligner.num_symbols)
        )
        tell(f"round {number + 1}: {scores.mean():.3f} nats a hop")
    for _ in range(args.rounds):
        network = train_network(aligner.features, *aligner.label(), aligner.num_symbols, args.hops)
        scores = aligner.align(network)
        tell(f"network: {scores.mean():.3f} nats a hop")
    middle = np.median(scores)
    spread = 1.4826 * np.median(np.abs(scores - middle))
    good = [
        r for r, s in zip(recordings, scores, strict=True) if s > middle - WORST_SPREAD * spread
    ]
    print(f"left out, badly aligned: {len(recordings) - len(good)}")
    write_timed_scripts(args.out, map(time_script, good))
    tell(f"{len(good)} timed scripts, {sum(r.frames for r in good) / 180000:.2f} h: {args.out}")


def read_scripts(
    utterances: Sequence[Utterance], phones: Sequence[str]
) -> list[tuple[Utterance, tuple[Unit, ...]]]:
    """Return what each utterance says, with a pause wherever one may be; print what is left out."""
    # capitals throughout would be read as initials
    texts = [u.text.lower() if u.text.isupper() else u.text for u in utterances]
    words = {word for text in texts for written in text.split() for word in say(written)[0]}
    pronouncer = SaidWords(sorted(words))
    found: list[tuple[Utterance, tuple[Unit, ...]]] = []
    left_out: Counter[str] = Counter()
    for utterance, text in zip(utterances, texts, strict=True):
        reader = ScriptReader(pronouncer)
        pieces = reader.push(text), reader.finish()
        units = [unit for piece in pieces for unit in piece.units]
        if any(map(str.isdigit, text)):
            left_out["digits"] += 1
        elif any(piece.skipped for piece in pieces) or not units:
            left_out["what can't be said"] += 1
        elif any(u.symbol not in phones for u in units if not u.is_pause):
            left_out["phones unknown to the recogniser"] += 1
        else:
            found.append((utterance, tuple(add_pauses(units))))
    for reason, count in left_out.items():
        print(f"left out, {reason}: {count}", flush=True)
    return found


def add_pauses(units: Sequence[Unit]) -> Iterator[Unit]:
    """Yield the units and a pause behind each word that has none."""
    for unit, following in zip(units, [*units[1:], None], strict=True):
        yield unit
        if unit.place & ENDS and following is not None and not following.is_pause:
            yield Unit("_", 0, 0, unit.word)


def make_batches(recordings: Sequence[Recording], device: str) -> Iterator[list[Recording]]:
    """Yield recordings of similar length that fill a batch."""
    most, rows = (250_000, 1024) if device == "cuda" else (3000, 64)  # frames; recordings
    batch: list[Recording] = []
    for recording in sorted(recordings, key=lambda r: r.frames):
        if len(batch) == rows or (batch and (len(batch) + 1) * recording.frames > most):
            yield batch
            batch = []
        batch.append(recording)
    if batch:
        yield batch


def find_first_starts(
    model: LoadedRecogniser, corpus: Corpus, recordings: list[Recording]
) -> list[Recording]:
    """Set ``starts`` from the spikes of phones; return the recordings whose text is theirs."""
    symbols = {phone: i + 1 for i, phone in enumerate(model.network.config.phones)}
    said_phones = [sum(not unit.is_pause for unit in r.units) for r in recordings]
    fitting = [
        r for r, n in zip(recordings, said_phones, strict=True) if r.frames > LEAST_FRAMES * n
    ]
    print(f"left out, too short for their texts: {len(recordings) - len(fitting)}", flush=True)
    kept: list[Recording] = []
    for batch in make_batches(fitting, model.device.type):
        log_probs = hear(model.network, corpus, batch)
        said = [[symbols[u.symbol] for u in r.units if not u.is_pause] for r in batch]
        lengths = [r.frames + LATE for r in batch]
        chains = [spell_ctc(labels) for labels in said]
        paths, _ = find_paths(log_probs, lengths, chains)
        log_probs = log_probs.cpu()
        for row, (recording, path) in enumerate(zip(batch, paths, strict=True)):
            first = 1 + 2 * np.arange(len(said[row]))
            begin, end = np.searchsorted(path, first), np.searchsorted(path, first + 1)
            peaks = log_probs[row, torch.from_numpy(begin), said[row]]
            if float(peaks.mean()) > WORST_SPIKES:
                recording.starts = guess(recording, begin, end, model.offsets)
                kept.append(recording)
    print(f"left out, other words than heard: {len(fitting) - len(kept)}", flush=True)
    return kept


@torch.no_grad()
def hear(network: Recogniser, corpus: Corpus, batch: Sequence[Recording]) -> Tensor:
    """Return log-probabilities of phones (rows, label frames, phones + 1), without the delay."""
    config = network.config
    ahead = max(config.lookahead_frames)
    frames = -(-(max(r.frames for r in batch) + LATE) // config.stack) + ahead
    rows = [[r.item] for r in batch]
    size = max(frames * config.frame_size, max(int(corpus.sizes[r.item]) for r in batch))
    audio = corpus.batch(rows, size, random.Random(0)).audio[:, : frames * config.frame_size]
    state = network.init_state(len(batch), ahead)
    encoded, encoder = network.encoder.step(audio, state.encoder)
    _, phones, _ = network.step_encoded(encoded, state._replace(encoder=encoder))
    if phones is None:
        raise ModelError("the recogniser hears no phones")
    return phones[:, ahead * config.stack :].float()


def guess(recording: Recording, begin: Ints, end: Ints, offsets: SpikeOffsets) -> Ints:
    """Return the hop in which each unit begins, from where its spike begins and ends."""
    first, last, inner = (
        row[-1] for row in (offsets.phones_start, offsets.phones_end, offsets.phones_inner)
    )
    starts = np.zeros(len(recording.units))
    spike, ended = 0, 0.0
    for i, unit in enumerate(recording.units):
        if unit.is_pause:
            starts[i] = ended
            continue
        after_pause = i == 0 or recording.units[i - 1].is_pause
        starts[i] = begin[spike] + (first if after_pause else inner)
        ended = end[spike] + last
        spike += 1
    hops = np.round(starts * FRAME / HOP).astype(np.int64)
    # what isn't said takes no time, and nothing ends before it begins
    return np.minimum.accumulate(hops.clip(0, 2 * recording.frames)[::-1])[::-1]


class Aligner:
    """Learns what phones look like from where they are thought to be, and moves them there."""

    def __init__(
        self, corpus: Corpus, recordings: Sequence[Recording], phones: Sequence[str]
    ) -> None:
        self.corpus, self.recordings = corpus, recordings
        self.device = corpus.audio.device
        # 0 is silence
        self.symbols = {phone: 1 + STATES * i for i, phone in enumerate(phones)}
        self.num_symbols = 1 + STATES * len(phones)
        self.mel = mel_filters(NUM_MELS, WINDOW // 2 + 1, 16000).to(self.device)
        pieces, self.at, at = [], [], MARGIN
        for recording in recordings:
            pieces.append(F.pad(self.look(recording), (0, 0, MARGIN, 0)))
            self.at.append(at)
            at += len(pieces[-1])
        self.features = F.pad(torch.cat(pieces), (0, 0, 0, MARGIN))
        self.chains = [self.make_chain(recording) for recording in recordings]

    def look(self, recording: Recording) -> Tensor:
        """Return log-mel energies (hops, mels), each mel's level and their spread taken away."""
        audio = self.corpus.cut(recording.item)[: recording.frames * FRAME].float() / 32768
        audio = F.pad(audio, ((WINDOW - HOP) // 2, (WINDOW - HOP) // 2))
        window = torch.hann_window(WINDOW, device=self.device)
        spectra = torch.fft.rfft(audio.unfold(0, WINDOW, HOP) * window)
        mels = (spectra.abs().square() @ self.mel + 1e-6).log()
        return ((mels - mels.mean(0)) / (mels.std() + 0.1)).half()

    def make_chain(self, recording: Recording) -> Chain:
        """Return the states of a recording: several of a phone, one of a pause."""
        symbols: list[int] = []
        optional: list[bool] = []
        for unit in recording.units:
            if unit.is_pause:
                symbols.append(0)
                optional.append(True)
            else:
                symbols += [self.symbols[unit.symbol] + state for state in range(STATES)]
                optional += [False] * STATES
        return Chain(symbols, [True] * len(symbols), optional)

    def label(self) -> tuple[Tensor, Tensor]:
        """Return where in the features each hop is, and its symbol: parts of a phone are equal."""
        places, labels = [], []
        for recording, at in zip(self.recordings, self.at, strict=True):
            assert recording.starts is not None
            sizes = np.diff(recording.starts, append=2 * recording.frames)
            since = np.arange(2 * recording.frames) - np.repeat(recording.starts, sizes)
            symbols = [self.symbols.get(unit.symbol, 0) for unit in recording.units]
            row = np.repeat(symbols, sizes)
            row += (row > 0) * (STATES * since // np.repeat(sizes, sizes))
            places.append(np.arange(at, at + len(row)))
            labels.append(row)
        where, what = (
            torch.from_numpy(np.concatenate(x)).to(self.device) for x in (places, labels)
        )
        return where, what

    def align(self, judge: Judge) -> NDArray[np.float64]:
        """Move the units to where ``judge`` likes them; return each one's mean score of a hop."""
        place = {id(recording): i for i, recording in enumerate(self.recordings)}
        scores = np.zeros(len(self.recordings))
        for batch in make_batches(self.recordings, self.device.type):
            numbers = [place[id(recording)] for recording in batch]
            hops = [2 * recording.frames for recording in batch]
            ahead = torch.arange(max(hops), device=self.device)
            at = torch.tensor([self.at[i] for i in numbers], device=self.device)
            seen = (at.unsqueeze(1) + ahead).clamp(max=len(self.features) - 1 - MARGIN)
            liked = judge(self.features, seen.flatten()).view(*seen.shape, -1)
            paths, totals = find_paths(liked, hops, [self.chains[i] for i in numbers])
            for i, recording, path, total in zip(numbers, batch, paths, totals, strict=True):
                sizes = [1 if unit.is_pause else STATES for unit in recording.units]
                recording.starts = np.searchsorted(path, np.cumsum([0, *sizes[:-1]]))
                scores[i] = total / len(path)
        return scores


def time_script(recording: Recording) -> TimedScript:
    """Return a recording's units and their frames, without pauses that nobody makes."""
    assert recording.starts is not None
    edges = np.append((recording.starts + 1) // 2, recording.frames)
    edges[0] = 0
    frames, units = np.diff(edges), recording.units
    for i, unit in enumerate(units):
        # before the first word nothing is said, however short it is
        if unit.symbol == "_" and 0 < i and frames[i] < LEAST_PAUSE:
            before = 0 if units[i + 1].symbol in PLOSIVES else (int(frames[i]) + 1) // 2
            frames[i + 1] += frames[i] - before
            frames[i - 1] += before
            frames[i] = 0
    kept = [i for i in range(len(units)) if frames[i]]
    return TimedScript(
        recording.key, tuple(units[i] for i in kept), tuple(int(frames[i]) for i in kept)
    )


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
