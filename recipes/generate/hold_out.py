"""Write a manifest of recordings that a generator's training held out, of voices that it has.

    python recipes/generate/hold_out.py --data DIR --out DIR/held-out.jsonl

For ``audiossm evaluate speech --voices-manifest``: the speakers are renamed as make_voices.py
names their voices. OUT stands in DIR, as the shards are found from there.
"""

import argparse
import json
import sys
from pathlib import Path

from make_voices import VOICES

from audiossm.config import change_value, load_toml
from audiossm.train.settings import adopt_sets
from audiossm.train.takes import is_held_out
from audiossm_apps.recipe import run_recipe

HERE = Path(__file__).parent


def main() -> None:
    """Copy the lines of the recordings that are held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    args = parser.parse_args()
    if args.out.resolve().parent != args.data.resolve():
        parser.error(f"{args.out} must stand in {args.data}, where the shards are")
    table = load_toml(args.config)
    table["data"] = adopt_sets(table["data"], args.data)
    for change in args.set:
        change_value(table, change)
    data = table["data"]
    names = {whose.speaker: name for name, whose in VOICES.items()}
    rows = []
    for manifest in data["train"]:
        with (args.data / f"{manifest}.jsonl").open(encoding="utf-8") as file:
            rows += [json.loads(line) for line in file if line.strip()]
    chosen = [
        row | {"speaker": names[row["speaker"]]}
        for row in rows
        if row.get("speaker") in names and is_held_out(row["key"], data["dev_share"])
    ]
    with args.out.open("w", encoding="utf-8") as file:
        for row in chosen:
            print(json.dumps(row, ensure_ascii=False), file=file)
    for name in VOICES:
        print(f"{name}: {sum(row['speaker'] == name for row in chosen)} recordings")


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
