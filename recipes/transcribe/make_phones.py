"""Write phones.json beside manifests: each transcript in phones, by espeak-ng (a training tool).

python recipes/transcribe/make_phones.py DIR NAME [NAME ...]     # reads DIR/NAME.jsonl
"""

import argparse
import json
import subprocess
from collections import Counter
from pathlib import Path

from audiossm.text import normalise_text
from audiossm.train.corpus import read_manifests


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
    command = ["espeak-ng", "-q", "-v", "en-us", "--ipa", "--sep=_"]
    rows = []
    for text in texts:
        spoken = subprocess.run([*command, text], capture_output=True, text=True, check=True)
        marks = spoken.stdout.replace("ˈ", "").replace("ˌ", "").replace("(en)", "")
        rows.append([symbol for symbol in marks.replace("_", " ").split() if symbol])
    return rows


if __name__ == "__main__":
    main()
