"""Write voices that a generator learnt as files of its model, under names of their own.

    python recipes/generate/keep_voices.py --model OUT/model --voices OUT/voices.safetensors \\
        --origin "VCTK speaker p225, recordings of the corpus" --licence "CC BY 4.0" p225=anna

A voice belongs to the model's weights as they are: shrink the model first. Without a licence that
allows it, a person's voice isn't shipped.
"""

import argparse
import json
import sys
from pathlib import Path

from safetensors import safe_open

from audiossm.errors import AudioSSMError
from audiossm.models import LoadedGenerator, Voice, save_voice


def main() -> int:
    """Write a file for each voice, and print its path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the generator's folder")
    parser.add_argument("--voices", type=Path, required=True, help="what train.py left")
    parser.add_argument("--origin", required=True, help="one line: whose they are, of what")
    parser.add_argument("--licence", required=True, help="one line: on what terms")
    parser.add_argument(
        "names", nargs="+", metavar="SPEAKER=NAME", help="whom to keep, and as whom"
    )
    args = parser.parse_args()
    with safe_open(args.voices, "pt") as file:
        speakers = json.loads(file.metadata()["names"])
        vectors, paces = file.get_tensor("voices").numpy(), file.get_tensor("paces").tolist()
    generator = LoadedGenerator.load(args.model)
    for pair in args.names:
        speaker, _, name = pair.partition("=")
        if speaker not in speakers:
            parser.error(f"no speaker {speaker!r}: there are {', '.join(speakers[:20])} ...")
        row = speakers.index(speaker)
        voice = Voice(
            name=name or speaker,
            vector=vectors[row].copy(),
            pace=paces[row],
            origin=args.origin,
            licence=args.licence,
        )
        print(save_voice(generator, voice))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AudioSSMError as exc:
        sys.exit(f"keep_voices: {exc}")
