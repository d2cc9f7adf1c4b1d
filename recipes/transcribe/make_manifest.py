"""Write a manifest of LibriSpeech utterances, from the folder that its archives unpack to.

python recipes/transcribe/make_manifest.py LibriSpeech/test-clean --out DIR/NAME.jsonl \
    --ids recipes/transcribe/eval-librispeech-clean-200.txt
"""

import argparse
import json
import sys
from pathlib import Path

from audiossm.prepare.layouts import read_librispeech
from audiossm_apps.recipe import run_recipe


def main() -> None:
    """Look up the transcripts and write a line for each utterance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="speaker folders with chapters in them")
    parser.add_argument("--ids", type=Path, help="a file of utterance ids (default: all)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    texts = {item.utterance.key: item.utterance for item in read_librispeech(args.folder)}
    wanted = args.ids.read_text(encoding="utf-8").split() if args.ids else list(texts)
    missing = [key for key in wanted if key not in texts]
    if missing or not wanted:
        parser.error(
            f"{args.folder} has {len(texts)} transcripts and lacks {len(missing)} of "
            f"{len(wanted)} utterances ({', '.join(missing[:3])}): is it the folder above the "
            "speakers' folders?"
        )
    with args.out.open("w", encoding="utf-8") as out:
        for key in wanted:
            found, source = texts[key], f"librispeech/{args.folder.name}"
            row = {"key": key, "path": str(found.path.resolve()), "text": found.text}
            row["speaker"] = found.speaker
            print(json.dumps(row | {"source": source, "lang": "en"}), file=out)
    print(f"{args.out}: {len(wanted)} utterances")


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
