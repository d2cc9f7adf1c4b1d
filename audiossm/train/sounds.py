"""The recordings that a codec recipe's config names, decoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiossm.manifest import Utterance
from audiossm.train.corpus import Corpus, read_manifests
from audiossm.train.settings import list_left_out

__all__ = ["load_sounds"]


def load_sounds(
    folder: Path,
    data: dict[str, Any],
    label: Callable[[Utterance], list[int]],
    cache: Path,
    workers: int,
    device: str,
) -> tuple[Corpus, Corpus, Corpus | None]:
    """Decode all sets; ``cache/left-out-sounds.jsonl`` lists what isn't learnt from.

    Args:
        folder: of the manifests.
        data: names of ``train``, ``sounds`` and ``dev`` manifests, and ``dev_rows``.
        label: turns an utterance into ids; none where it has no label.
        cache: a folder that keeps what was decoded.
        workers: processes that decode.
        device: where the samples go.

    Returns:
        training, with the even lines of ``sounds``; ``dev_rows`` utterances of dev, spread over it;
        and those sounds alone, as noise, if any are named.
    """

    def load(name: str, found: list[Utterance]) -> Corpus:
        corpus = Corpus.load(found, (label,), ([],), workers, cache / f"{name}.pt")
        faults.update(corpus.faults)
        return corpus.to(device)

    faults: dict[str, str] = {}
    sounds = read_manifests(folder, data["sounds"])[::2]
    dev = read_manifests(folder, data["dev"])
    sets = (
        load("train", read_manifests(folder, data["train"]) + sounds),
        load("dev", dev[:: max(1, len(dev) // data["dev_rows"])][: data["dev_rows"]]),
        load("noise", sounds) if sounds else None,
    )
    list_left_out(cache / "left-out-sounds.jsonl", faults)
    return sets
