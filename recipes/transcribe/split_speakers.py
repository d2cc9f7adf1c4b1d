"""Part a manifest by speakers: a few minutes of some to tune on, all that others say to test on.

python recipes/transcribe/split_speakers.py DIR/train-accented.jsonl --out DIR/accented

Writes OUT/tune.jsonl (``--tune-minutes`` of ``--tune`` speakers, as much of each) and
OUT/test.jsonl (everything of ``--test`` others). A hash of their names puts them in order.
"""

import argparse
import json
import sys
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

from audiossm.manifest import Utterance, read_manifest
from audiossm_apps.recipe import run_recipe


def main(argv: list[str] | None = None) -> None:
    """Choose the speakers, write both manifests, say how long they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="with a speaker and seconds in each line")
    parser.add_argument("--out", type=Path, required=True, help="folder of both manifests")
    parser.add_argument("--tune", type=int, default=10, help="speakers (%(default)s)")
    parser.add_argument("--tune-minutes", type=float, default=10, help="in all (%(default)s)")
    parser.add_argument("--test", type=int, default=20, help="speakers (%(default)s)")
    args = parser.parse_args(argv)
    said = defaultdict[str, list[Utterance]](list)
    for utterance in read_manifest(args.manifest):
        if not utterance.speaker or utterance.seconds is None:
            parser.error(f"{utterance.where}: expected a speaker and seconds")
        said[utterance.speaker].append(utterance)
    order = sorted(said, key=lambda name: sha256(name.encode()).hexdigest())
    share_s = 60 * args.tune_minutes / args.tune
    long = [name for name in order if duration_s(said[name]) >= share_s][: args.tune]
    others = [name for name in order if name not in long][: args.test]
    if len(long) < args.tune or len(others) < args.test:
        parser.error(
            f"{args.manifest} has {len(order)} speakers, of which {len(long)} say {share_s:.0f} s "
            f"or more: not enough for {args.tune} to tune on and {args.test} to test on"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = {
        "tune": [u for name in long for u in first(said[name], share_s)],
        "test": [u for name in others for u in said[name]],
    }
    for name, utterances in chosen.items():
        write(args.out / f"{name}.jsonl", utterances)
        speakers = {utterance.speaker for utterance in utterances}
        minutes = duration_s(utterances) / 60
        print(f"{name}: {minutes:.1f} min, {len(utterances)} utterances, {len(speakers)} speakers")


def duration_s(utterances: list[Utterance]) -> float:
    """Add up seconds."""
    return sum(utterance.seconds or 0.0 for utterance in utterances)


def first(utterances: list[Utterance], share_s: float) -> list[Utterance]:
    """Return the first utterances, as many as end within ``share_s`` seconds."""
    return [u for i, u in enumerate(utterances) if duration_s(utterances[: i + 1]) <= share_s]


def write(path: Path, utterances: list[Utterance]) -> None:
    """Write a manifest whose audio stays where it is."""
    with path.open("w", encoding="utf-8") as file:
        for u in utterances:
            where = {"path": u.path} if u.path else {"shard": u.shard}
            row = {"key": u.key} | {kind: str(p.resolve()) for kind, p in where.items() if p}
            row |= {"text": u.text, "speaker": u.speaker, "seconds": u.seconds}
            row |= {"source": u.source, "lang": u.lang}
            print(json.dumps(row, ensure_ascii=False), file=file)


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
