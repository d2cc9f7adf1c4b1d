"""The transcribed speech that a recipe's config names, decoded and labelled."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from audiossm.codec import ForeignCodec
from audiossm.manifest import Utterance
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.coded import pass_through
from audiossm.train.corpus import Corpus, read_manifests
from audiossm.train.phones import Phones
from audiossm.train.rows import BESIDE
from audiossm.train.settings import list_left_out

__all__ = ["load_spoken"]


def load_spoken(
    folder: Path,
    data: dict[str, Any],
    vocabulary: Vocabulary,
    phones: Phones,
    cache: Path,
    workers: int,
    device: str,
    codec: ForeignCodec | None = None,
) -> tuple[list[Corpus], Corpus, Corpus | None]:
    """Decode all sets; ``cache/left-out.jsonl`` lists what isn't learnt from.

    Args:
        folder: of the manifests.
        data: names of ``train``, ``dev`` and ``noise`` manifests, perhaps of others that stand
            ``beside`` what is to be learnt, so that it isn't all that is heard; and ``speeds``.
        vocabulary: of the letters.
        phones: of all transcripts, or none at all.
        cache: a folder that keeps what was decoded.
        workers: processes that decode.
        device: where the samples go.
        codec: what speech goes through before it is heard, if anything.

    Returns:
        training, one corpus for each speed, with letters and phones as labels; dev, with texts
        only; noise, the even lines of its manifests, if any are named.
    """

    def letters(utterance: Utterance) -> list[int]:
        return vocabulary.encode(normalise_text(utterance.text))

    def spoken(names: list[str]) -> list[Utterance]:
        heard = []
        for utterance in read_manifests(folder, names):
            if not normalise_text(utterance.text):
                faults[utterance.key] = "no words in the text"
            elif any(map(str.isdigit, utterance.text)):
                # they aren't spelled out, so such a transcript doesn't say what is heard
                faults[utterance.key] = "digits in the text"
            else:
                heard.append(utterance)
        return heard

    def load(name: str, utterances: list[Utterance], **labels: Any) -> Corpus:
        none: dict[str, Any] = {"labellers": (), "joints": ()}
        file = cache / f"{name}.pt"
        corpus = Corpus.load(utterances, workers=workers, cache=file, **(none | labels))
        faults.update(corpus.faults)
        if codec is not None and name != "spoken-noise":
            corpus = pass_through(corpus, codec, cache / f"{name}-coded.pt", device)
        return corpus.to(device)

    faults: dict[str, str] = {}
    joints: tuple[list[int], list[int]] = ([vocabulary.word_break], [])
    labels = {"labellers": (letters, phones.label), "joints": joints}
    beside = spoken(data.get("beside", []))
    learnt = spoken(data["train"])
    learnt += [replace(u, source=f"{BESIDE} {u.source}") for u in beside]
    train = load("spoken", learnt, **labels)
    long = [u for u in learnt if (u.seconds or 0) > data["row_s"]]
    faults.update((u.key, f"longer than a row of {data['row_s']} s") for u in long)
    noise = read_manifests(folder, data["noise"])[::2]
    sets = (
        [train.at_speed(speed) for speed in data["speeds"]],
        load("spoken-dev", spoken(data["dev"])),
        load("spoken-noise", noise) if noise else None,
    )
    list_left_out(cache / "left-out.jsonl", faults)
    return sets
