"""Recordings as the codes of a codec, made once and kept in a file."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiossm.audio import resample
from audiossm.codec import Codec, ForeignCodec, LoadedCodec
from audiossm.manifest import Utterance
from audiossm.train.corpus import SAMPLE_RATE, Corpus
from audiossm.train.crops import cut_rows
from audiossm.train.disguise import Disguise, Wardrobe
from audiossm.train.kept import name_versions, read_kept, write_kept

__all__ = ["encode_corpus", "load_codes", "name_at", "pass_through"]

NOTHING = Wardrobe()
BATCH_S = 600  # of audio that is encoded at once

Change = Callable[[Tensor, NDArray[np.int64]], Tensor]  # of (rows, samples), of these items


def name_at(name: str, speed: float) -> str:
    """Name a recording, or a speaker, as heard at another speed: ``NAME@0.9``."""
    return name if speed == 1.0 else f"{name}@{speed:g}"


def load_codes(
    utterances: Sequence[Utterance],
    codec: LoadedCodec,
    cache: Path,
    workers: int,
    device: str,
    speeds: Sequence[float] = (1.0,),
    wardrobe: Wardrobe = NOTHING,
) -> dict[str, NDArray[np.int16]]:
    """Return the codes of each utterance that can be read, (frames, groups), by its key.

    Args:
        utterances: of manifests.
        codec: makes the codes; its network is moved to ``device``.
        cache: a file that keeps them for the next run over the same files.
        workers: processes that decode.
        device: where they are made.
        speeds: at which all are heard, pitch and formants included; but for 1, keys are those of
            ``name_at``.
        wardrobe: at other speeds than 1, everybody is in disguise, the same one in all recordings;
            each recording by nobody has one of its own.

    Raises:
        ManifestError: there are no utterances.
        ModelError: the cache is damaged.
    """
    keys = [name_at(utterance.key, speed) for speed in speeds for utterance in utterances]
    known = {"keys": keys, "codec": codec.codes_hash, "versions": name_versions(utterances)}
    saved = read_kept(cache) if cache.exists() else {}
    # older files have none; those with a colour had one for each recording
    worn = saved.get("wardrobe", None if saved.get("colour_db") else asdict(NOTHING))
    other = worn != asdict(wardrobe)
    if other or {name: saved.get(name) for name in known} != known:
        numbers = {utterance.key: number for number, utterance in enumerate(utterances)}
        corpus = Corpus.load(utterances, [lambda u: [numbers[u.key]]], [[]], workers).to(device)
        # what can't be read isn't in the corpus
        made = [np.zeros((0, codec.config.quantiser.num_groups), np.int16) for _ in keys]
        those = [utterances[number] for (number,) in corpus.labels[0]]
        people = [each.speaker or f"nobody {each.key}" for each in those]
        codec.network.to(device)
        foreign = isinstance(codec, ForeignCodec)
        for turn, speed in enumerate(speeds):
            heard, change = corpus.at_speed(speed), None
            if speed != 1.0 and not wardrobe.is_empty:
                change = Disguise.draw(people, wardrobe, speed).wear
            if foreign:
                coded = encode_alone(heard, codec, change)
            else:
                coded = encode_corpus(heard, codec.network, change=change)
            for (number,), codes in zip(corpus.labels[0], coded, strict=True):
                made[turn * len(utterances) + number] = codes
        sizes = torch.tensor([len(codes) for codes in made])
        joined = torch.from_numpy(np.concatenate(made))
        saved = known | {"wardrobe": asdict(wardrobe), "sizes": sizes, "codes": joined}
        write_kept(saved, cache)
    parts = torch.split(saved["codes"], saved["sizes"].tolist())
    return {key: part.numpy() for key, part in zip(keys, parts, strict=True) if len(part)}


@torch.no_grad()
def encode_corpus(
    corpus: Corpus,
    codec: Codec,
    batch_s: float = BATCH_S,
    change: Change | None = None,
) -> list[NDArray[np.int16]]:
    """Encode each item from a fresh state: (samples // frame_size, groups).

    Code i is made of the samples before ``(i + 1) * frame_size`` alone, so an item may stand in a
    batch with longer ones. ``change`` is done to (rows, samples) of some items before, padding
    included; one that looks ahead, as a disguise does, may smear some milliseconds.
    """
    size = codec.config.frame_size
    frames = corpus.sizes // size
    none = np.zeros((0, codec.config.quantiser.num_groups), np.int16)
    made = [none] * len(corpus)
    order = [int(item) for item in np.argsort(-frames, kind="stable") if frames[item]]
    while order:
        longest = int(frames[order[0]])
        count = max(int(batch_s * SAMPLE_RATE) // (longest * size), 1)
        items, order = order[:count], order[count:]
        samples = cut_rows(corpus, corpus.starts[items], frames[items] * size, longest * size)
        if change is not None:
            samples = change(samples, np.array(items))
        codes = codec.encode(samples).transpose(1, 2).to(torch.int16).cpu().numpy()
        for item, row in zip(items, codes, strict=True):
            made[item] = row[: frames[item]].copy()
    return made


@torch.no_grad()
def encode_alone(
    corpus: Corpus, codec: LoadedCodec, change: Change | None = None
) -> list[NDArray[np.int16]]:
    """Encode each item by itself, with a codec that looks ahead or has another rate."""
    made = []
    for item in range(len(corpus)):
        samples = at_codec_rate(corpus, codec, item, change)
        codes = codec.network.encode(samples)
        made.append(codes[0].t().to(torch.int16).cpu().numpy())
    return made


@torch.no_grad()
def pass_through(corpus: Corpus, codec: ForeignCodec, cache: Path, device: str) -> Corpus:
    """Return the corpus as it sounds after the codec: what its codes hold of it.

    Args:
        corpus: at 16 kHz.
        codec: encodes and decodes each item; its network is moved to ``device``.
        cache: a file that keeps the sound for the next run over the same audio.
        device: where that is done.
    """
    sizes = corpus.sizes.tolist()
    known = {"codec": codec.codes_hash, "sizes": sizes, "starts": corpus.starts.tolist()}
    known["heard"] = sha256(corpus.audio.cpu().numpy().tobytes()).hexdigest()
    saved = read_kept(cache) if cache.exists() else {}
    if {name: saved.get(name) for name in known} != known:
        codec.network.to(device)
        audio = corpus.audio.clone()
        for item in range(len(corpus)):
            codes = codec.network.encode(at_codec_rate(corpus, codec, item))
            sound = codec.network.decode(codes).cpu()
            sound = resample(sound, codec.config.sample_rate, SAMPLE_RATE)[0, : sizes[item]]
            begin = int(corpus.starts[item])
            whole = (sound * 32767.0).round().clamp(-32768, 32767).to(audio)
            audio[begin : begin + len(whole)] = whole
        saved = known | {"audio": audio.cpu()}
        write_kept(saved, cache)
    return replace(corpus, audio=saved["audio"].to(corpus.audio.device))


def at_codec_rate(
    corpus: Corpus, codec: LoadedCodec, item: int, change: Change | None = None
) -> Tensor:
    """Return an item (1, samples), changed at 16 kHz, at the codec's rate, where its network is."""
    samples = corpus.cut(item).float().cpu().unsqueeze(0) / 32768.0
    if change is not None:
        samples = change(samples, np.array([item]))
    there = next(codec.network.parameters()).device
    return resample(samples, SAMPLE_RATE, codec.config.sample_rate).to(there)
