"""Pack recordings and a table of their texts into shards with a manifest (a training tool).

python recipes/transcribe/make_shards.py --table validated.tsv --clips clips --out DIR \
    --name train-commonvoice --source common_voice/en --held-out DIR/dev.jsonl DIR/eval-*.jsonl

The columns' defaults are Mozilla Common Voice's. Hours left out are counted of decoded clips only.
"""

import csv
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from audiossm.audio import mix, open_audio, resample
from audiossm.audio.encoded import encode_opus
from audiossm.errors import AudioError, AudioSSMError, ManifestError
from audiossm.manifest import Utterance, read_manifest
from audiossm.prepare import Limits, ShardWriter, shards, trim
from audiossm.prepare.checks import SAMPLE_RATE
from audiossm.prepare.layouts import COLUMNS, NO_RECORDING, read_table
from audiossm.processes import start_processes
from audiossm.text import normalise_text

SHARD_BYTES = shards.SHARD_BYTES


class Clip(NamedTuple):
    """A row of the table; ``fault``, if any, is why it is left out."""

    path: Path
    text: str
    speaker: str
    fault: str
    seconds: float = 0.0
    opus: bytes = b""


def main(argv: list[str] | None = None) -> int:
    """Choose, decode and pack."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--table", type=Path, required=True, help="csv or tsv file with a header")
    for kind, names in COLUMNS.items():
        add(f"--{kind}-column", nargs="+", default=names, help="the first there is of %(default)s")
    add("--speaker-prefix", default="cv_", help="of the ids in the manifest (%(default)s)")
    add("--clips", type=Path, required=True, help="folder of the recordings")
    add("--out", type=Path, required=True, help="folder for NAME.jsonl and its shards")
    add("--name", required=True, help="of the set, and the beginning of its keys")
    add("--source", required=True, help="of the recordings, for the manifest")
    add("--lang", default="en", help="likewise (%(default)s)")
    add("--held-out", type=Path, nargs="+", default=[], help="manifests to stay off")
    add("--workers", type=int, default=1, help="processes (%(default)s)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f"--workers is {args.workers}; expected 1 or more")
    try:
        clips = list(choose(args))
        args.out.mkdir(parents=True, exist_ok=True)
        pack(clips, args)
    except (AudioSSMError, OSError, UnicodeDecodeError, csv.Error) as exc:
        print(f"make_shards: error: {exc}", file=sys.stderr)
        return 1
    return 0


def choose(args: Namespace) -> Iterator[Clip]:
    """Yield a clip a row of the table, with its fault if the row alone tells one."""
    held_out = [utterance for path in args.held_out for utterance in read_manifest(path)]
    texts, speakers = {normalise_text(u.text) for u in held_out}, {u.speaker for u in held_out}
    columns = [getattr(args, f"{kind}_column") for kind in COLUMNS]
    with args.table.open(encoding="utf-8-sig") as table:
        header = re.split("[,\t]", table.readline().strip())
    if held_out and not set(columns[-1]) & set(header):
        print("the table has no speakers: those of --held-out can't be told")
    options = {"columns": columns, "speaker_prefix": args.speaker_prefix}
    for item in read_table(args.table, args.clips, **options):
        found, fault = item.utterance, item.fault
        plain = normalise_text(found.text)
        if fault == NO_RECORDING:
            pass
        elif not plain or any(c.isalnum() and not normalise_text(c) for c in set(found.text)):
            fault = "no words, or digits or foreign letters among them"
        elif plain in texts or found.speaker in speakers:
            fault = "held-out text" if plain in texts else "held-out speaker"
        yield Clip(found.path, found.text, found.speaker, fault)


def render(clip: Clip) -> Clip:
    """Decode a clip and encode it again, or find its fault."""
    if clip.fault:
        return clip
    try:
        with open_audio(clip.path) as reader:
            audio = mix(np.concatenate(list(reader.blocks(1 << 16)), axis=1))
        x = resample(torch.from_numpy(audio).unsqueeze(0), reader.sample_rate, SAMPLE_RATE)[0]
    except AudioError as exc:
        print(f"left out: {exc}", file=sys.stderr, flush=True)
        return clip._replace(fault="can't be decoded")
    speech, speech_s = trim(x.numpy())
    clip = clip._replace(seconds=len(speech) / SAMPLE_RATE)
    limits = Limits()
    if not speech_s or not limits.slowest <= len(clip.text) / speech_s <= limits.fastest:
        return clip._replace(fault="silence, or speech too fast or too slow for the text")
    gain = min(1.0, 0.95 / float(np.abs(speech).max()))  # Opus overshoots
    return clip._replace(opus=encode_opus(speech * np.float32(gain), SAMPLE_RATE))


def pack(clips: list[Clip], args: Namespace) -> None:
    """Write shards of rendered clips and their manifest; print what was left out."""
    times: dict[str, list[float]] = {"": []}  # fault, if any: seconds of each clip
    writer = ShardWriter(args.out, args.name, shard_bytes=SHARD_BYTES)
    with writer, start_processes(args.workers, torch.set_num_threads, 1) as pool:
        for clip in pool.map(render, clips, chunksize=16):
            times.setdefault(clip.fault, []).append(clip.seconds)
            if clip.fault:
                continue
            key = f"{args.name}-{len(times['']) - 1:05}"
            rest = {"seconds": clip.seconds, "source": args.source, "lang": args.lang}
            said = Utterance(key=key, text=clip.text, speaker=clip.speaker, **rest)
            writer.add(said, clip.opus, ".opus")
    path, num_shards = writer.path, writer.num_shards
    for fault, seconds in sorted(times.items()):
        kind = f"left out, {fault}" if fault else f"in {path}, {num_shards} shards"
        print(f"{len(seconds)} clips, {sum(seconds) / 3600:.2f} h: {kind}")
    if not num_shards:
        path.unlink()
        raise ManifestError("every clip was left out: do --clips and --table match?")


if __name__ == "__main__":
    sys.exit(main())
