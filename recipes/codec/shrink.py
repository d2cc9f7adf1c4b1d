"""Turn a trained model into the form that is shipped: half the size, rows of whole numbers.

    python recipes/codec/shrink.py MODEL --out DIR [--keep PREFIX ...] [--dependants MODEL ...]
    python recipes/codec/shrink.py MODEL --out DIR --bits 6     # three eighths of the size

config.toml, but for its format_version, and the card go along as they are; DIR may be MODEL's own
folder. A recogniser stands on the frames of one codec and refuses others: --dependants are those
that stand on MODEL's, and ties them to the rounded ones, as their config.toml then says. Nothing is
trained. Graphs of 8 bits have to be exported again; those of float32 hold no weights, and fit.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from audiossm.checkpoint import ModelFolder, shrink_model
from audiossm.codec import CodecPin, LoadedCodec
from audiossm.config import from_dict
from audiossm.errors import ModelError
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import Utterance
from audiossm_apps.recipe import run_recipe

SPEECH = Path(__file__).parents[2] / "assets" / "audio" / "first-light.flac"
# of frames, RMS: those of rounded weights differ by a few per cent, those of others by about 1
FURTHEST = 0.1


def read_speech(codec: LoadedCodec) -> Tensor:
    """Return a recording (1, samples), whole frames of it."""
    utterance = Utterance(key=SPEECH.stem, text="", path=SPEECH)
    samples = read_recording(utterance).at_rate(codec.config.sample_rate)
    whole = len(samples) // codec.config.frame_size * codec.config.frame_size
    return torch.from_numpy(samples[:whole]).unsqueeze(0)


@torch.no_grad()
def compare(before: LoadedCodec, after: LoadedCodec) -> float:
    """Print how far frames and codes are from what they were; return the frames' distance."""
    x = read_speech(before)
    old, new = before.network.encoder(x), after.network.encoder(x)
    distance = ((new - old).square().mean() / old.square().mean()).sqrt().item()
    same = (before.network.encode(x) == after.network.encode(x)).float().mean().item()
    print(f"{SPEECH.name}: frames {distance:.2%} off, {same:.1%} of the codes as before")
    return distance


def pin_anew(folder: ModelFolder, before: LoadedCodec, after: LoadedCodec) -> None:
    """Tie a model to a codec's rounded frames; its config says which they were made of.

    Raises:
        ModelError: it stands on neither.
    """
    table = folder.config.get("codec")
    pin = from_dict(CodecPin, table, "codec") if isinstance(table, dict) else None
    if (
        pin is None
        or pin.name != after.name
        or pin.hash not in (before.frames_hash, after.frames_hash)
    ):
        raise ModelError(
            f"{folder.path}: doesn't stand on codec {after.name!r} with frames of hash "
            f"{before.frames_hash}: train it on this codec"
        )
    if pin.hash == after.frames_hash:
        print(f"{folder.path}: stands on these frames already")
        return
    path = folder.path / "config.toml"
    text = path.read_text(encoding="utf-8")
    old = f'hash = "{pin.hash}"\n'
    # a text, so that comments stay
    new = f'hash = "{after.frames_hash}"\nrounded_from = "{pin.rounded_from or pin.hash}"\n'
    if text.count(old) != 1:
        raise ModelError(f"{path}: expected one line {old.strip()!r}")
    path.write_text(text.replace(old, new), encoding="utf-8")
    print(f"{folder.path}: pinned to frames {after.frames_hash}, rounded from {pin.hash}")


def main() -> None:
    """Shrink, load again, compare, pin anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a name or a folder")
    parser.add_argument("--out", type=Path, required=True, help="the new folder; names the model")
    parser.add_argument(
        "--keep", nargs="+", default=[], metavar="PREFIX", help="of float16 weights"
    )
    parser.add_argument("--bits", type=int, choices=[8, 6], default=8, help="of a whole number")
    parser.add_argument("--dependants", nargs="+", default=[], metavar="MODEL")
    args = parser.parse_args()
    folder = ModelFolder.open(args.model)
    before = LoadedCodec.load(folder.path, backend="torch") if folder.kind == "codec" else None
    if args.dependants and before is None:
        parser.error(f"a {folder.kind} has no dependants, only a codec has")
    dependants = [ModelFolder.open(name) for name in args.dependants]
    size = folder.weights.stat().st_size
    steps = before.network.steps if before else {}
    shrink_model(args.out, folder, steps, tuple(args.keep), args.bits)
    shrunk = ModelFolder.open(args.out)
    print(f"{shrunk.weights}: {shrunk.weights.stat().st_size} bytes, {size} before")
    if before is None:
        return
    after = LoadedCodec.load(shrunk.path, backend="torch")
    if compare(before, after) > FURTHEST:
        raise ModelError(f"{shrunk.path}: these frames are no rounding of those of {folder.path}")
    for dependant in dependants:
        pin_anew(dependant, before, after)


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
