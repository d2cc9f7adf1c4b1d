"""Recordings with their codes and when what is said in them; which are for training."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.codec import ForeignCodec, LoadedCodec
from audiossm.errors import ConfigError, ManifestError
from audiossm.manifest import Utterance
from audiossm.train.coded import load_codes, name_at
from audiossm.train.corpus import read_manifests
from audiossm.train.disguise import Wardrobe
from audiossm.train.settings import list_left_out
from audiossm.train.timed_scripts import TimedScript, fit_scripts, read_timed_scripts
from audiossm.units import Unit

__all__ = [
    "Take",
    "find_voices",
    "hold_out_takes",
    "is_held_out",
    "load_strangers",
    "load_takes",
    "match_takes",
    "stretch_script",
    "take_untold",
    "tell_faults",
    "usual_frames",
]

Scripter = Callable[[Iterable[Utterance], Mapping[str, int]], Iterable[TimedScript]]


@dataclass(frozen=True)
class Take:
    """A recording and what is said in it.

    Attributes:
        utterance: with the speaker's name; that of another speed is another speaker's.
        script: one long pause where nobody knows what is said.
        codes: (frames, groups).
        has_script: rows without one have no text.
        always_told: rows of it never lack the text.
    """

    utterance: Utterance
    script: TimedScript
    codes: NDArray[np.int16]
    has_script: bool = True
    always_told: bool = False


def load_takes(
    folder: Path,
    data: Mapping[str, Any],
    codec: LoadedCodec,
    cache: Path,
    workers: int,
    device: str,
    scripter: Scripter | None = None,
) -> tuple[list[Take], list[Take]]:
    """Return what a generator is trained with, and what dev is, which is never in it.

    Args:
        folder: has the manifests, shards and scripts that ``data`` names.
        data: the table ``data`` of recipes/generate/config.toml.
        codec: whose codes; its network is moved to ``device``.
        cache: a folder that keeps the codes for the next run, and says what was left out.
        workers: processes that decode.
        device: where codes are made.
        scripter: says what is said when, of utterances and their numbers of frames, if there is no
            file of scripts.

    Raises:
        ConfigError: the recordings aren't wanted as they are.
        ManifestError: a manifest or the scripts can't be read, or nothing is left.
    """
    speeds, share = data["speeds"], data["dev_share"]
    if 1.0 not in speeds or min(speeds) <= 0:
        raise ConfigError(f"data.speeds is {speeds}, must be above 0 and have 1.0, dev's, in it")
    if min(data["untold_speeds"], default=0.0) <= 0:
        raise ConfigError(f"data.untold_speeds is {data['untold_speeds']}, must be above 0")
    utterances = read_manifests(folder, data["train"])
    wardrobe = Wardrobe.of(data)
    codes = load_codes(utterances, codec, cache / "codes.pt", workers, device, speeds, wardrobe)
    said = folder / data["scripts"]
    if scripter is not None and not said.exists():
        frames = {key: len(rows) for key, rows in codes.items()}
        timed = {script.key: script for script in scripter(utterances, frames)}
    else:
        timed = {script.key: script for script in read_timed_scripts(said)}
        if isinstance(codec, ForeignCodec):
            frames = {key: len(rows) for key, rows in codes.items()}
            timed = fit_scripts(timed, frames, codec.config.frame_size / codec.config.sample_rate)
    list_left_out(cache / "left-out.jsonl", tell_faults(utterances, timed, codes))
    told = {item.key for item in read_manifests(folder, data["always_told"])}
    takes = {speed: match_takes(utterances, timed, codes, speed, told) for speed in speeds}
    train, dev = hold_out_takes(takes.pop(1.0), share)
    more = [take for others in takes.values() for take in others]
    if data["untold"]:
        rest, speeds = read_manifests(folder, data["untold"]), data["untold_speeds"]
        kept = cache / "codes-untold.pt"
        heard = load_codes(rest, codec, kept, workers, device, speeds, wardrobe)
        more += [take for speed in speeds for take in take_untold(rest, heard, speed)]
    return train + [take for take in more if not is_held_out(take.utterance.key, share)], dev


def load_strangers(
    folder: Path,
    data: Mapping[str, Any],
    codec: LoadedCodec,
    cache: Path,
    workers: int,
    device: str,
) -> list[Take]:
    """Return the recordings, untold, of ``data.strangers``; arguments as of ``load_takes``.

    Raises:
        ConfigError: one of these people is in the training, too.
        ManifestError: a manifest can't be read.
        ModelError: the cache is damaged.
    """
    if not data["strangers"]:
        return []
    utterances = read_manifests(folder, data["strangers"])
    known = {each.speaker for each in read_manifests(folder, [*data["train"], *data["untold"]])}
    if both := sorted({each.speaker for each in utterances if each.speaker} & known):
        raise ConfigError(f"data.strangers has {both[0]!r}, who is in the training, too")
    kept = cache / "codes-strangers.pt"
    return take_untold(utterances, load_codes(utterances, codec, kept, workers, device))


def tell_faults(
    utterances: Iterable[Utterance],
    scripts: Mapping[str, TimedScript],
    codes: Mapping[str, NDArray[np.int16]],
) -> dict[str, str]:
    """Say of each utterance that ``match_takes`` leaves out why."""
    faults = {}
    for utterance in utterances:
        key = utterance.key
        if key not in codes:
            faults[key] = "can't be read"
        elif key not in scripts:
            faults[key] = "has no timed script"
        elif (said := sum(scripts[key].frames)) != len(codes[key]):
            faults[key] = f"its script has {said} frames, its codes {len(codes[key])}"
    return faults


def match_takes(
    utterances: Iterable[Utterance],
    scripts: Mapping[str, TimedScript],
    codes: Mapping[str, NDArray[np.int16]],
    speed: float = 1.0,
    always_told: Collection[str] = (),
) -> list[Take]:
    """Join what belongs together; print how many have no script, or one of another length.

    Args:
        utterances: of manifests.
        scripts: by their keys, as they were said.
        codes: by the keys at this speed.
        speed: at which they are heard, by somebody else then.
        always_told: the keys of those that aren't to be heard without their texts.

    Raises:
        ManifestError: nothing is left.
    """
    takes, silent, unlike = [], 0, 0
    for utterance in utterances:
        heard = codes.get(name_at(utterance.key, speed))
        script = scripts.get(utterance.key)
        if heard is None or script is None:
            silent += 1
            continue
        if speed != 1.0:
            script = stretch_script(script, len(heard))
        if script is None or sum(script.frames) != len(heard):
            unlike += 1
            continue
        if utterance.speaker:
            utterance = replace(utterance, speaker=name_at(utterance.speaker, speed))
        takes.append(Take(utterance, script, heard, always_told=utterance.key in always_told))
    if silent or unlike:
        print(f"left out: {silent} without audio or script, {unlike} of another length", flush=True)
    if not takes:
        raise ManifestError("no recording has a timed script of its length")
    return takes


def stretch_script(script: TimedScript, num_frames: int) -> TimedScript | None:
    """Return a script of so many frames, a frame for each unit at least; None if they are more."""
    count = len(script.frames)
    if count > num_frames:
        return None
    whole = np.cumsum(script.frames)
    ends = np.rint(whole * (num_frames / whole[-1])).astype(np.int64)
    numbers = np.arange(count)
    ends = np.maximum.accumulate(np.maximum(ends - numbers, 1)) + numbers
    ends = np.minimum(ends, num_frames - numbers[::-1])
    return TimedScript(script.key, script.units, tuple(np.diff(ends, prepend=0).tolist()))


def take_untold(
    utterances: Iterable[Utterance], codes: Mapping[str, NDArray[np.int16]], speed: float = 1.0
) -> list[Take]:
    """Take recordings of which nobody knows when what is said; ``codes`` by keys at this speed."""
    takes = []
    for utterance in utterances:
        heard = codes.get(name_at(utterance.key, speed))
        if heard is None:
            continue
        script = TimedScript(utterance.key, (Unit("_", 0, 0, 0),), (len(heard),))
        if utterance.speaker:
            utterance = replace(utterance, speaker=name_at(utterance.speaker, speed))
        takes.append(Take(utterance, script, heard, has_script=False))
    return takes


def hold_out_takes(takes: Iterable[Take], share: float) -> tuple[list[Take], list[Take]]:
    """Part training from dev, which gets this share, by a hash of the keys.

    Raises:
        ManifestError: one of them would be empty.
    """
    train: list[Take] = []
    dev: list[Take] = []
    for take in takes:
        (dev if is_held_out(take.utterance.key, share) else train).append(take)
    if not train or not dev:
        raise ManifestError(f"dev_share {share} leaves {len(train)} to train, {len(dev)} for dev")
    return train, dev


def is_held_out(key: str, share: float) -> bool:
    """Tell whether a recording is one of those that dev gets."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def find_voices(takes: Iterable[Take], least: int) -> list[str]:
    """Return the names of those who say ``least`` frames or more."""
    frames = dict[str, int]()
    for take in takes:
        name = take.utterance.speaker
        frames[name] = frames.get(name, 0) + len(take.codes)
    return sorted(name for name, count in frames.items() if name and count >= least)


def usual_frames(takes: Iterable[Take]) -> dict[str, float]:
    """Return how many frames each phone has on average."""
    sums, counts = dict[str, int](), dict[str, int]()
    for take in takes:
        for unit, frames in zip(take.script.units, take.script.frames, strict=True):
            if not unit.is_pause:
                sums[unit.symbol] = sums.get(unit.symbol, 0) + frames
                counts[unit.symbol] = counts.get(unit.symbol, 0) + 1
    return {symbol: total / counts[symbol] for symbol, total in sums.items()}
