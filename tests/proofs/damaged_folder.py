"""Does anything in a folder end ``audiossm prepare``? Recordings and texts with random damage.

python tests/proofs/damaged_folder.py [--files 300] [--seed 0]

Each file is a test recording in one of five formats that was cut, overwritten, emptied, filled with
noise or left alone, and its text likewise. Prints how many were kept, and the faults of the others;
ends with a traceback if one gets through.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import numpy as np

from audiossm.audio import mix, open_audio, write_audio
from audiossm.manifest import read_manifest
from audiossm.prepare import prepare

SPEECH = Path(__file__).parents[1] / "speech"
SUFFIXES = (".wav", ".flac", ".opus", ".ogg", ".mp3")  # the last one has another's bytes


def main() -> None:
    """Damage, prepare, count, read what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        rows = [json.loads(line) for line in (SPEECH / "manifest.jsonl").read_text().splitlines()]
        sounds = {row["key"]: encode(SPEECH / row["path"], Path(place)) for row in rows}
        for number in range(args.files):
            row, suffix = rng.choice(rows), rng.choice(SUFFIXES)
            data = sounds[row["key"]][".ogg" if suffix == ".mp3" else suffix]
            (folder / f"{number}{suffix}").write_bytes(damage(data, rng))
            text = row["text"].encode()
            (folder / f"{number}.txt").write_bytes(
                damage(text, rng) if rng.random() < 0.3 else text
            )
        report = prepare(folder, Path(place) / "out", phones=False)
        kept = [
            utterance
            for name in report.splits
            for utterance in read_manifest(Path(place) / "out" / f"{name}.jsonl")
        ]
        for utterance in kept:
            with open_audio(utterance.open()) as reader:
                assert sum(block.shape[1] for block in reader.blocks(1 << 16)) > 0
    print(f"{args.files} files, {len(kept)} kept and read again, {report.left_out} left out:")
    for fault, keys in sorted(report.faults.items(), key=lambda pair: -len(pair[1])):
        print(f"{len(keys):6} {fault}")
    assert len(kept) + report.left_out == args.files


def encode(path: Path, folder: Path) -> dict[str, bytes]:
    """Return a recording's bytes by suffix."""
    with open_audio(path) as reader:
        audio = mix(np.concatenate(list(reader.blocks(1 << 16)), axis=1))[None]
    found = {}
    for suffix in SUFFIXES[:-1]:
        rate = 16000 if suffix == ".opus" else reader.sample_rate
        write_audio(folder / f"x{suffix}", audio, rate)
        found[suffix] = (folder / f"x{suffix}").read_bytes()
    return found


def damage(data: bytes, rng: random.Random) -> bytes:
    """Cut, overwrite, empty, replace, or leave alone."""
    broken = bytearray(data)
    match rng.choice(("none", "cut", "head", "bits", "block", "empty", "noise", "twice")):
        case "cut":
            return bytes(broken[: rng.randrange(len(broken))])
        case "head":
            return bytes(broken[rng.randrange(1, 64) :])
        case "bits":
            for _ in range(rng.randrange(1, 200)):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        case "block":
            start, size = rng.randrange(len(broken)), rng.randrange(1, 5000)
            broken[start : start + size] = rng.randbytes(size)
        case "empty":
            return b""
        case "noise":
            return rng.randbytes(len(broken))
        case "twice":
            return bytes(broken * 2)
    return bytes(broken)


if __name__ == "__main__":
    main()
