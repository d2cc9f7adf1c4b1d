"""A folder of speech, whatever its layout, as shards and manifests that the recipes read."""

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch

from audiossm.aloud import say_numbers
from audiossm.config import dump_toml
from audiossm.errors import AlignmentError, AudioError, ManifestError
from audiossm.lexicon import PHONES, drop_stress
from audiossm.manifest import Utterance, read_manifest
from audiossm.prepare.checks import Clip, Limits, inspect
from audiossm.prepare.layouts import Recording, find_layout, name_member, read_layout
from audiossm.prepare.report import Report
from audiossm.prepare.shards import ShardWriter
from audiossm.processes import start_processes
from audiossm.pronouncer import MAX_LETTERS, Pronouncer
from audiossm.text import normalise_text

__all__ = ["Aligner", "Fit", "choose_dev", "prepare"]

SPLITS = ("train", "dev")
SETTINGS = "data.toml"
LEFT_OUT = "left-out.jsonl"
NAMES = tuple(f"{split}{end}" for split in SPLITS for end in (".jsonl", "-00.tar"))


class Fit(Protocol):
    """How well a text fits its recording: ``misfit`` in nats a letter, and whether it ``fits``."""

    @property
    def misfit(self) -> float: ...
    @property
    def fits(self) -> bool: ...


Aligner = Callable[[io.BytesIO, str], Fit]


def prepare(
    folder: Path,
    out: Path,
    *,
    layout: str | None = None,
    limits: Limits | None = None,
    coding: str = "flac",
    dev_share: float = 0.05,
    lang: str = "en",
    source: str = "",
    numbers: bool = False,
    phones: bool = True,
    aligner: Aligner | None = None,
    held_out: Sequence[Path] = (),
    workers: int = 1,
    on_start: Callable[[int], object] = lambda total: None,
    on_clip: Callable[[Clip], object] = lambda clip: None,
) -> Report:
    """Check the recordings of a folder and pack those that are good.

    Writes into ``out``: ``train.jsonl`` and ``dev.jsonl`` with their shards, ``phones.json`` of all
    their texts, ``data.toml`` that tells the recipes of them, ``left-out.jsonl`` (key, path, fault,
    detail), ``report.md`` and ``report.json``. The same folder gives the same files.

    Dev are whole speakers, if two or more are known, otherwise single recordings; hashes of their
    names decide.

    Args:
        folder: as one of ``LAYOUTS``, or a manifest.
        out: a folder without prepared data; it is made.
        layout: of the folder; None finds it out.
        limits: beyond which a recording is left out.
        coding: "flac", or "opus" of 18 kbit/s.
        dev_share: part of the texts' characters that goes to dev; 0 leaves dev out.
        lang: of all that the folder doesn't tell the language of.
        source: likewise; the folder's name without one.
        numbers: write digits as English words, as they are commonly read.
        phones: write phones.json; English only.
        aligner: lays a text over a recording; what it finds not to fit is left out.
        held_out: manifests whose speakers and texts are left out.
        workers: processes that decode.
        on_start: told how many recordings there are.
        on_clip: told of each one that was looked at.

    Raises:
        ManifestError: no such layout, ``out`` has prepared data or manifests of its own, or nothing
            good is there.
        WorkerError: a process that decodes was killed.
    """
    if not 0 <= dev_share < 1:
        raise ManifestError(f"the share of dev is {dev_share}; expected 0 or more, below 1")
    if (out / SETTINGS).exists():
        raise ManifestError(f"{out} holds prepared data already: choose another folder")
    # what a run left that was stopped is replaced, nothing else
    theirs = [name for name in NAMES if (out / name).exists() and not (out / LEFT_OUT).exists()]
    if theirs:
        raise ManifestError(f"{out} has a {theirs[0]} that isn't prepared: choose another folder")
    layout = layout or find_layout(folder)
    recordings = read_layout(folder, layout)
    name = source or folder.resolve().stem
    recordings = [complete(r, lang=lang, source=name, numbers=numbers) for r in recordings]
    recordings = leave_out(recordings, held_out)
    dev = choose_dev([r for r in recordings if not r.fault], dev_share)
    report = Report(layout)
    on_start(len(recordings))
    out.mkdir(parents=True, exist_ok=True)
    digests, kept = dict[str, str](), list[Utterance]()
    with ExitStack() as files:
        left_out = files.enter_context((out / LEFT_OUT).open("w", encoding="utf-8"))
        writers = {
            split: files.enter_context(ShardWriter(out, split, replaces=True)) for split in SPLITS
        }
        for clip in inspect_all(recordings, limits or Limits(), coding, workers):
            clip = compare(clip, digests)
            if aligner is not None and not clip.fault:
                clip = check_text(clip, aligner)
            utterance = replace(clip.recording.utterance, seconds=clip.seconds or None)
            split = "dev" if utterance.key in dev else "train"
            utterance = replace(utterance, key=name_member(utterance.key))
            report.add(clip, split)
            if clip.fault:
                row = {"key": utterance.key, "path": utterance.where, "fault": clip.fault}
                print(json.dumps(row | {"detail": clip.detail}, ensure_ascii=False), file=left_out)
            else:
                writers[split].add(utterance, clip.data, f".{coding}")
                kept.append(utterance)
            on_clip(clip)
    finish(out, report, kept, phones and lang == "en")
    return report


def complete(recording: Recording, *, lang: str, source: str, numbers: bool) -> Recording:
    """Fill in what a layout doesn't tell."""
    utterance = recording.utterance
    text = " ".join(say_numbers(utterance.text).split()) if numbers else utterance.text
    utterance = replace(
        utterance,
        text=text,
        lang=utterance.lang or lang,
        source=utterance.source or source,
        where=str(utterance.path or utterance.where),
    )
    return replace(recording, utterance=utterance)


def leave_out(recordings: list[Recording], held_out: Sequence[Path]) -> list[Recording]:
    """Find fault with the texts and speakers of manifests."""
    held = [utterance for path in held_out for utterance in read_manifest(path)]
    texts = {normalise_text(utterance.text) for utterance in held}
    speakers = {utterance.speaker for utterance in held} - {""}

    def fault(recording: Recording) -> str:
        if recording.fault or not held:
            return recording.fault
        if normalise_text(recording.utterance.text) in texts:
            return "held-out text"
        return "held-out speaker" if recording.utterance.speaker in speakers else ""

    return [replace(recording, fault=fault(recording)) for recording in recordings]


def choose_dev(recordings: Sequence[Recording], share: float) -> set[str]:
    """Return the keys of dev: whole speakers in the order of a hash, until they have their share.

    Who says more than both that share and an average speaker is for training, and so is what nobody
    knows the speaker of. Without two known speakers, or where less than half has one, they are
    single recordings. Something is always left to train on.
    """
    utterances = [recording.utterance for recording in recordings]
    whole = sum(len(utterance.text) for utterance in utterances)
    known = [utterance for utterance in utterances if utterance.speaker]
    by_speaker = len({utterance.speaker for utterance in known}) > 1
    by_speaker &= 2 * sum(len(utterance.text) for utterance in known) >= whole
    groups = defaultdict[str, list[Utterance]](list)
    for utterance in known if by_speaker else utterances:
        groups[utterance.speaker if by_speaker else utterance.key].append(utterance)
    order = sorted(groups, key=lambda name: sha256(name.encode()).hexdigest())
    sizes = {name: sum(len(utterance.text) for utterance in groups[name]) for name in order}
    if by_speaker:
        order = [n for n in order if sizes[n] <= max(share * whole, whole / len(groups))]
    chosen, size = set[str](), 0
    for name in order[: len(groups) - 1]:
        if size >= share * whole:
            break
        chosen |= {utterance.key for utterance in groups[name]}
        size += sizes[name]
    return chosen


def inspect_all(
    recordings: Sequence[Recording], limits: Limits, coding: str, workers: int
) -> Iterator[Clip]:
    """Look at all, in their order."""
    look = partial(inspect, limits=limits, coding=coding)
    if workers == 1:
        yield from map(look, recordings)
        return
    with start_processes(workers, torch.set_num_threads, 1) as pool:
        yield from pool.map(look, recordings, chunksize=8)


def compare(clip: Clip, digests: dict[str, str]) -> Clip:
    """Find fault with a recording that was there before; remember this one."""
    if clip.fault:
        return clip
    key = clip.recording.utterance.key
    first = digests.setdefault(clip.digest, key)
    return clip if first == key else replace(clip, fault="duplicate", detail=f"the same as {first}")


def check_text(clip: Clip, aligner: Aligner) -> Clip:
    """Find fault with a text that a recogniser can't lay over its recording."""
    try:
        fit = aligner(io.BytesIO(clip.data), clip.recording.utterance.text)
    except (AlignmentError, AudioError) as exc:
        return replace(clip, fault="text doesn't fit: words", detail=str(exc))
    if fit.fits:
        return clip
    return replace(clip, fault="text doesn't fit: words", detail=f"misfit {fit.misfit:.1f}")


def finish(out: Path, report: Report, kept: Sequence[Utterance], phones: bool) -> None:
    """Write what is known once all was seen.

    Raises:
        ManifestError: there is nothing to train on.
    """
    for split in SPLITS:
        if split not in report.splits:
            (out / f"{split}.jsonl").unlink(missing_ok=True)
    if "train" in report.splits and "dev" not in report.splits:
        report.warnings.append("there is no dev set: runs are scored on what they learn from")
    elif "train" in report.splits and report.speakers["dev"] & report.speakers["train"]:
        report.warnings.append(
            "dev has speakers of train (too few are known): it says nothing of others"
        )
    written = json.dumps(report.to_json(), ensure_ascii=False, indent=2) + "\n"
    (out / "report.json").write_text(written, encoding="utf-8")
    (out / "report.md").write_text(report.to_markdown(), encoding="utf-8")
    if "train" not in report.splits:
        faults = ", ".join(f"{fault} ({len(keys)})" for fault, keys in report.faults.items())
        raise ManifestError(f"{out}: every recording was left out: {faults}")
    if phones:
        write_phones(out / "phones.json", kept)
    dev = ["dev"] if "dev" in report.splits else ["train"]
    table = {"train": ["train"], "dev": dev, "noise": [], "sounds": []}
    (out / SETTINGS).write_text(dump_toml({"data": table}), encoding="utf-8")


def write_phones(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write each text's phones, by the lexicon or by the shipped model of pronunciations."""
    texts = {utterance.key: normalise_text(utterance.text).split() for utterance in utterances}
    words = sorted({word for row in texts.values() for word in row if len(word) <= MAX_LETTERS})
    said = {
        item.word: drop_stress(item.phones) for item in Pronouncer.load().pronounce_words(words)
    }
    phones = {key: [x for word in row for x in said.get(word, ())] for key, row in texts.items()}
    table = {"symbols": list(PHONES), "phones": phones}
    path.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
