"""Write phones.json beside manifests: each transcript in phones, by espeak-ng (a training tool).

python recipes/transcribe/make_phones.py DIR NAME [NAME ...]     # reads DIR/NAME.jsonl
"""

import argparse
import ctypes.util
import json
import sys
from collections import Counter
from pathlib import Path

from audiossm.text import normalise_text
from audiossm.train.corpus import read_manifests
from audiossm_apps.recipe import run_recipe

# of espeak-ng's speak_lib.h
RETRIEVAL, UTF8, IPA = 1, 1, 2


def main() -> None:
    """Pronounce all transcripts of the named manifests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--out", type=Path, help="default: DIR/phones.json")
    args = parser.parse_args()
    utterances = [u for u in read_manifests(args.dir, args.names) if normalise_text(u.text)]
    rows = pronounce([normalise_text(u.text) for u in utterances])
    phones = {u.key: row for u, row in zip(utterances, rows, strict=True)}
    counts = Counter(symbol for row in phones.values() for symbol in row)
    out = args.out or args.dir / "phones.json"
    out.write_text(json.dumps({"symbols": sorted(counts), "phones": phones}, ensure_ascii=False))
    print(f"{out}: {len(phones)} transcripts, {len(counts)} phones: {counts.most_common()}")


def pronounce(texts: list[str]) -> list[list[str]]:
    """Return each text's phones without stress marks."""
    return [[symbol for word in words for symbol in word] for words in pronounce_words(texts)]


def pronounce_words(texts: list[str], *, stress: bool = False) -> list[list[list[str]]]:
    """Return the same parted at spaces: espeak-ng says some words as one ("of the").

    With ``stress``, vowels that bear it begin with a mark: ˈ for the word's main one, ˌ for others.
    """
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise SystemExit(
            "make_phones: libespeak-ng isn't installed (Debian: apt install espeak-ng)"
        )
    espeak = ctypes.CDLL(name)
    espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
    espeak.espeak_Initialize(RETRIEVAL, 0, None, 0)
    if espeak.espeak_SetVoiceByName(b"en-us"):
        raise SystemExit("make_phones: espeak-ng has no voice en-us")
    rows = []
    for text in texts:
        rest, clauses = ctypes.c_char_p(text.encode()), []
        while rest.value is not None:  # each call takes one clause and moves on
            clause = espeak.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA | ord("_") << 8)
            clauses.append(clause.decode())
        marks = " ".join(clauses).replace("(en)", "")
        if not stress:
            marks = marks.replace("ˈ", "").replace("ˌ", "")
        words = ([symbol for symbol in word.split("_") if symbol] for word in marks.split())
        rows.append([word for word in words if word])
    return rows


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
