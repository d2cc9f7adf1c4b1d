"""Make the frames and pitches of real speech that train.py's task "speech" learns from.

    python recipes/periodicity/make_pitch.py --data DIR --out pitch.npz

Frames are what the decoder gets of 4 kbit/s of codes, 50 a second. Pitches are those of librosa's
pyin on the recording itself, at the beginning of each frame: a frame that is heard has 20 ms more.
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import torch

from audiossm.codec import LoadedCodec
from audiossm.manifest import Utterance
from audiossm.train.corpus import decode, read_manifests
from audiossm_apps.recipe import run_recipe

SAMPLE_RATE, FRAME_SIZE = 16000, 320
LOWEST, HIGHEST, WINDOW = 60.0, 480.0, 1024  # Hz, Hz, samples


def choose(utterances: list[Utterance], minutes: float, seed: int) -> list[Utterance]:
    """Draw utterances of 2 to 15 s, and at most so much of all."""
    drawn, seconds = [], 0.0
    for utterance in random.Random(seed).sample(utterances, len(utterances)):
        length = utterance.seconds or 0.0
        if 2 <= length <= 15 and seconds + length <= 60 * minutes:
            drawn.append(utterance)
            seconds += length
    return drawn


def track(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pitch in Hz and whether there is a voice, a value for each whole frame."""
    import librosa

    pitch, voiced, _ = librosa.pyin(
        samples,
        fmin=LOWEST,
        fmax=HIGHEST,
        sr=SAMPLE_RATE,
        frame_length=WINDOW,
        hop_length=FRAME_SIZE,
    )
    count = len(samples) // FRAME_SIZE
    return np.nan_to_num(pitch[:count]).astype(np.float32), voiced[:count]


def main() -> None:
    """Choose, track, encode, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of manifests and shards")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--train",
        nargs="+",
        default=["train-vctk", "train-librispeech", "train-voices", "train-accented"],
    )
    parser.add_argument("--dev", nargs="+", default=["dev"])
    parser.add_argument("--minutes", type=float, nargs=2, default=[30.0, 5.0], help="of each")
    parser.add_argument("--codec", help="a name or a folder")
    args = parser.parse_args()
    codec, arrays = LoadedCodec.load(args.codec, backend="torch"), {}
    for part, names, minutes in (
        ("train", args.train, args.minutes[0]),
        ("dev", args.dev, args.minutes[1]),
    ):
        rows: list[tuple[np.ndarray, ...]] = []
        for name in names:
            share = minutes / len(names)
            for utterance in choose(read_manifests(args.data, [name]), share, len(rows)):
                audio = decode(utterance)
                audio = audio[: len(audio) // FRAME_SIZE * FRAME_SIZE]
                if not len(audio):
                    continue
                samples = audio.astype(np.float32) / 32768
                with torch.no_grad():
                    codes = codec.network.encode(torch.from_numpy(samples).unsqueeze(0))
                    frames = codec.network.quantiser.decode(codes)[0]
                rows.append((frames.numpy().astype(np.float16), *track(samples)))
                print(f"{part}: {len(rows)} utterances", flush=True)
        for i, key in enumerate(("frames", "pitch", "voiced")):
            arrays[f"{part}_{key}"] = np.concatenate([row[i] for row in rows])
        arrays[f"{part}_sizes"] = np.array([len(row[0]) for row in rows])
    np.savez_compressed(args.out, **arrays)
    print({name: array.shape for name, array in arrays.items()})


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
