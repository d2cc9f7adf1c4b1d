"""A whole corpus as one int16 tensor on the device, and rows of joined utterances from it."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import resample as resample_offline

from audiossm.audio import mix, open_audio, resample
from audiossm.errors import AudioError, ManifestError
from audiossm.manifest import Utterance, read_manifest
from audiossm.processes import start_processes
from audiossm.train.kept import name_versions, read_kept, write_kept
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["Batch", "Corpus", "pack_rows", "read_manifests"]

SAMPLE_RATE = 16000
UNREADABLE = (AudioError, ManifestError, OSError, MemoryError)  # what one recording may be


@dataclass(frozen=True)
class Batch:
    """Rows of joined utterances.

    ``audio`` is (rows, samples) float32, ``lengths`` (rows,) the samples that are speech, on the
    CPU; labels are lists of ids for each row, one list for each kind of label.
    """

    audio: Tensor
    lengths: Tensor
    labels: tuple[list[list[int]], ...]


@dataclass(frozen=True)
class Corpus:
    """Utterances end to end: ``audio`` (samples,) int16; item i lies at starts[i], sizes[i]."""

    audio: Tensor
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: tuple[list[list[int]], ...]
    joints: tuple[list[int], ...]  # what stands between the labels of two joined utterances
    texts: list[str]
    sources: list[str]
    faults: dict[str, str] = field(default_factory=dict)  # by key, why it isn't among the items

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def hours(self) -> float:
        """Length of all audio."""
        return float(self.sizes.sum()) / SAMPLE_RATE / 3600

    @staticmethod
    def load(
        utterances: Sequence[Utterance],
        labellers: Sequence[Callable[[Utterance], list[int]]],
        joints: Sequence[list[int]],
        workers: int = 1,
        cache: Path | None = None,
    ) -> "Corpus":
        """Decode utterances on ``workers`` processes; what can't be read is printed and left out.

        Args:
            utterances: of a manifest.
            labellers: turn an utterance into ids, one for each kind of label.
            joints: for each kind of label, the ids between two joined utterances.
            workers: processes that decode.
            cache: a file that keeps the decoded samples for the next run over the same files.

        Raises:
            ManifestError: there are no utterances.
            ModelError: the cache is damaged.
            WorkerError: a process that decodes was killed.
        """
        if not utterances:
            raise ManifestError("a corpus needs utterances, but the manifests leave none")
        versions = name_versions(utterances)
        saved = read_kept(cache) if cache and cache.exists() else {}
        if saved.get("versions") != versions:
            if workers > 1:
                with start_processes(workers) as pool:
                    decoded = list(pool.map(decode, utterances, chunksize=16))
            else:
                decoded = [decode(utterance) for utterance in utterances]
            sizes = torch.tensor([len(audio) for audio in decoded])
            audio = torch.from_numpy(np.concatenate(decoded))
            saved = {"versions": versions, "sizes": sizes, "audio": audio}
            if cache:
                write_kept(saved, cache)
        sizes = saved["sizes"].numpy()
        kept = [i for i in range(len(sizes)) if sizes[i]]
        return Corpus(
            audio=saved["audio"],
            starts=(np.cumsum(sizes) - sizes)[kept],
            sizes=sizes[kept],
            labels=tuple([label(utterances[i]) for i in kept] for label in labellers),
            joints=tuple(joints),
            texts=[utterances[i].text for i in kept],
            sources=[utterances[i].source for i in kept],
            faults={
                utterances[i].key: find_fault(utterances[i])
                for i in range(len(sizes))
                if not sizes[i]
            },
        )

    def to(self, device: str) -> "Corpus":
        """Move the samples."""
        return replace(self, audio=self.audio.to(device))

    def at_speed(self, speed: float) -> "Corpus":
        """Return the corpus faster and higher (above 1) or slower and lower, by resampling."""
        if speed == 1.0:
            return self
        rate = round(SAMPLE_RATE * speed)
        ratio = SAMPLE_RATE / rate
        # the whole tape at once: what smears over a border is a millisecond
        pieces = [
            resample_offline(self.audio[at : at + rate * 300].float(), rate, SAMPLE_RATE)
            for at in range(0, len(self.audio), rate * 300)
        ]
        return replace(
            self,
            audio=torch.cat([x.round().clamp(-32768, 32767).to(torch.int16) for x in pieces]),
            starts=(self.starts * ratio).astype(np.int64),
            sizes=np.floor(self.sizes * ratio).astype(np.int64),
        )

    def cut(self, item: int) -> Tensor:
        """Return the samples of one item, int16."""
        start = int(self.starts[item])
        return self.audio[start : start + int(self.sizes[item])]

    def batch(
        self,
        rows: Sequence[Sequence[int]],
        num_samples: int,
        rng: random.Random,
        ranks: Ranks = ALONE,
    ) -> Batch:
        """Join the items of each row with short gaps between them, padded to ``num_samples``.

        Of several processes each gets its own rows; gaps are drawn for all.
        """
        own = {row: place for place, row in enumerate(ranks.own(range(len(rows))))}
        audio = torch.zeros(len(own), num_samples, dtype=torch.int16, device=self.audio.device)
        lengths = []
        for row, items in enumerate(rows):
            spare = num_samples - sum(int(self.sizes[item]) for item in items)
            at = 0
            for position, item in enumerate(items):
                if position:
                    gap = rng.randint(0, min(spare, SAMPLE_RATE))
                    at, spare = at + gap, spare - gap
                size = int(self.sizes[item])
                if row in own:
                    audio[own[row], at : at + size] = self.cut(item)
                at += size
            lengths.append(at)
        return Batch(
            audio=audio.float() / 32768.0,
            lengths=torch.tensor(ranks.own(lengths)),
            labels=tuple(
                [join_labels([kind[item] for item in items], joint) for items in ranks.own(rows)]
                for kind, joint in zip(self.labels, self.joints, strict=True)
            ),
        )


def join_labels(parts: list[list[int]], joint: list[int]) -> list[int]:
    """Return the labels of joined utterances."""
    joined = list(parts[0])
    for part in parts[1:]:
        joined += joint + part
    return joined


def decode(utterance: Utterance) -> NDArray[np.int16]:
    """Read one utterance as int16 at 16 kHz; empty, with a printed line, if it can't be read."""
    torch.set_num_threads(1)
    try:
        audio = read_samples(utterance)
    except UNREADABLE as exc:
        print(f"left out: {utterance.key}: {exc}", flush=True)
        return np.zeros(0, np.int16)
    return (audio * 32767.0).round().clamp(-32768, 32767).to(torch.int16).numpy()


def read_samples(utterance: Utterance) -> Tensor:
    """Read one utterance, its channels mixed, at 16 kHz: (samples,) float32.

    Raises:
        AudioError: it can't be read to its end, or has no samples.
        ManifestError: its shard is missing or lacks it.
    """
    with open_audio(utterance.open()) as reader:
        blocks = list(reader.blocks(1 << 20))
        if not blocks:
            raise AudioError(f"{reader.name}: there are no samples")
        audio = torch.from_numpy(mix(np.concatenate(blocks, axis=1)))
        return resample(audio.unsqueeze(0), reader.sample_rate, SAMPLE_RATE)[0]


def find_fault(utterance: Utterance) -> str:
    """Say why an utterance has no samples."""
    try:
        return "" if len(read_samples(utterance)) else "there are no samples"
    except UNREADABLE as exc:
        return str(exc)


def read_manifests(folder: Path, names: Sequence[str]) -> list[Utterance]:
    """Read ``<folder>/<name>.jsonl`` for each name.

    Raises:
        ManifestError: one isn't there, or can't be read.
    """
    for name in names:
        if not (folder / f"{name}.jsonl").exists():
            raise ManifestError(
                f"{folder} has no {name}.jsonl: expected what 'audiossm prepare' makes of a "
                "folder of recordings, or manifests of the names in the config"
            )
    return [u for name in names for u in read_manifest(folder / f"{name}.jsonl")]


def pack_rows(
    sizes: NDArray[np.int64],
    num_samples: int,
    rng: random.Random,
    items: Sequence[int] | None = None,
) -> Iterator[list[int]]:
    """Yield rows of ``items`` (default: all) that fill ``num_samples``, each once, in random order.

    Longer items than a row are left out. First fit over a window of open rows.
    """
    items = range(len(sizes)) if items is None else items
    order = [item for item in items if sizes[item] <= num_samples]
    rng.shuffle(order)
    rows: list[tuple[int, list[int]]] = []
    for item in order:
        size = int(sizes[item])
        for i, (left, row) in enumerate(rows):
            if size <= left:
                row.append(item)
                rows[i] = (left - size, row)
                break
        else:
            rows.append((num_samples - size, [item]))
        if len(rows) > 64:
            fullest = min(range(len(rows)), key=lambda i: rows[i][0])
            yield rows.pop(fullest)[1]
    rng.shuffle(rows)
    for _, row in rows:
        yield row
