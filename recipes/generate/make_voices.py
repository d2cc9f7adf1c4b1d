"""Make voice files of what a generator was trained with.

    python recipes/generate/make_voices.py OUT/model [OUT/voices.safetensors] [--only NAME,...]
    python recipes/generate/make_voices.py OUT/model --level

Writes ``voices/NAME.safetensors`` into the model's folder for those speakers of the training whose
recordings are licensed for it (VOICES below). Each says some sentences and gets the gain by which
all are equally loud; ``--level`` does that again with the files that there are. The model's
weights, and with them its hash, must be those that are shipped: voices belong to them.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from audiossm.errors import ModelError
from audiossm.models import Voice
from audiossm.models.voices import save_voice
from audiossm.streaming import Speaker as Model
from audiossm.train.voice_level import level_voice
from audiossm_apps.recipe import run_recipe


@dataclass(frozen=True)
class Speaker:
    """Who may be spoken as: the name in the manifests, and what the voice's file says."""

    speaker: str
    origin: str
    licence: str


ARCTIC = (
    "free for any use with its notice: (c) 2003 Carnegie Mellon University, CMU ARCTIC databases"
)
VOICES = {
    "kathleen": Speaker(
        "kathleen", "Kathleen, a woman who recorded it for Rhasspy to be spoken as", "CC0-1.0"
    ),
    "lj": Speaker(
        "lj",
        "Linda Johnson, a woman reading for LibriVox (LJ Speech, Keith Ito)",
        "public domain",
    ),
    "slt": Speaker("arctic_slt", "SLT, a woman of the CMU ARCTIC databases", ARCTIC),
    "bdl": Speaker("arctic_bdl", "BDL, a man of the CMU ARCTIC databases", ARCTIC),
}


def main() -> None:
    """Write a file for each voice that there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="its folder")
    parser.add_argument("voices", type=Path, nargs="?", help="default: the file beside the folder")
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(VOICES)}")
    parser.add_argument("--level", action="store_true", help="measure how loud they are, anew")
    args = parser.parse_args()
    generator = Model.load(args.model)
    if args.level:
        for name in generator.voices:
            write(generator, generator.voice(name))
        return
    path = args.voices or args.model.parent / "voices.safetensors"
    with safe_open(path, "pt") as file:
        names = json.loads(file.metadata()["names"])
        vectors, paces = file.get_tensor("voices"), file.get_tensor("paces")
    if vectors.shape != (len(names), generator.config.d_voice):
        raise ModelError(f"{path}: voices of {(*vectors.shape,)} aren't of {args.model}")
    for name in args.only.split(",") if args.only else VOICES:
        if name not in VOICES:
            parser.error(f"no voice {name!r}, but {', '.join(VOICES)}")
        whose = VOICES[name]
        if whose.speaker not in names:
            print(f"{name}: {whose.speaker} wasn't in the training")
            continue
        number = names.index(whose.speaker)
        voice = Voice(
            name=name,
            vector=vectors[number].numpy(),
            pace=float(paces[number]),
            origin=whose.origin,
            licence=whose.licence,
        )
        write(generator, voice)


def write(generator: Model, voice: Voice) -> None:
    """Level a voice, write its file and tell."""
    louder = level_voice(generator, voice)
    print(f"{voice.name}: {save_voice(generator, louder)}, {louder.gain_db:+.1f} dB")


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
