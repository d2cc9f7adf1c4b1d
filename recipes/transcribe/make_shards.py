"""Pack recordings and a table of their texts into shards with a manifest (a training tool).

python recipes/transcribe/make_shards.py --table validated.tsv --clips clips --out DIR \
    --name train-commonvoice --source common_voice/en --held-out DIR/dev.jsonl DIR/eval-*.jsonl

The columns' defaults are Mozilla Common Voice's. Hours left out are counted of decoded clips only.
"""

import csv
import io
import json
import re
import sys
import tarfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from audiossm.audio import mix, open_audio, resample
from audiossm.audio.ogg import page_checksum
from audiossm.errors import AudioError, AudioSSMError, ManifestError
from audiossm.manifest import read_manifest
from audiossm.text import normalise_text

SAMPLE_RATE = 16000  # Hz, of what is written
SHARD_BYTES = 28_000_000
COMPRESSION = 0.96  # of libsndfile's 0 to 1: about 18 kbit/s
FRAME = 320  # samples, of the level
MARGIN = 6400  # samples of silence kept at either end
RATE = (5.5, 26.0)  # characters a second of speech; anything else isn't that text
COLUMNS = {"path": ["path", "filename"], "text": ["sentence", "text"], "speaker": ["client_id", ""]}
VOTES = ("up_votes", "down_votes")


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
    text = args.table.read_text(encoding="utf-8-sig")
    table = csv.DictReader(io.StringIO(text, newline=""), restval="")
    if "\t" in text.split("\n")[0]:  # in Common Voice's tsv a quote is a character as any other
        table = csv.DictReader(text.split("\n"), restval="", delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [*(table.fieldnames or ()), ""]
    wanted = [getattr(args, f"{kind}_column") for kind in COLUMNS]
    columns = [next(filter(header.__contains__, names), None) for names in wanted]
    if None in columns:
        raise ManifestError(f"{args.table}: expected a column of each of {wanted}, got {header}")
    path_column, text_column, speaker_column = columns
    held_out = [utterance for path in args.held_out for utterance in read_manifest(path)]
    texts, speakers = {normalise_text(u.text) for u in held_out}, {u.speaker for u in held_out}
    if held_out and not speaker_column:
        print("the table has no speakers: those of --held-out can't be told")
    for row in table:
        name, text = row[path_column], " ".join(row[text_column].split())
        if re.fullmatch(r'"([^"]|"")+"', text):  # so in the tsv of some releases
            text = text[1:-1].replace('""', '"').strip()
        path = next(filter(Path.is_file, (args.clips / name, args.clips / Path(name).name)), None)
        # without ids each clip has a speaker of its own; a long hash is cut
        speaker = row.get(speaker_column) or re.sub(r"\.\w+$", "", name)
        speaker = args.speaker_prefix + re.sub("^([0-9a-f]{16})[0-9a-f]{16,}$", r"\1", speaker)
        up, down = (int(row[v]) if row.get(v, "").isdecimal() else 0 for v in VOTES)
        plain, fault = normalise_text(text), ""
        if path is None:
            fault = "no such recording"
        elif not plain or any(char.isalnum() and not normalise_text(char) for char in set(text)):
            fault = "no words, or digits or foreign letters among them"
        elif plain in texts or speaker in speakers:
            fault = "held-out text" if plain in texts else "held-out speaker"
        elif all(v in row for v in VOTES) and up <= down:
            fault = "not more up-votes than down-votes"
        yield Clip(path or Path(name), text, speaker, fault)


def trim(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Cut silence at the ends of (samples,) down to ``MARGIN``; also give the seconds between."""
    frames = x[: len(x) // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)  # dB of full scale
    quiet, loud = np.percentile(level, (10, 97)) if len(level) else (-100.0, -100.0)
    if loud < -60:
        return x[:0], 0.0
    # where noise hides the pauses, all of it counts as speech
    floor = max(quiet + 0.3 * (loud - quiet), loud - 35) if loud - quiet > 8 else -np.inf
    heard = np.flatnonzero(level > floor)
    start, end = int(heard[0]) * FRAME, int(heard[-1] + 1) * FRAME
    return x[max(0, start - MARGIN) : end + MARGIN], (end - start) / SAMPLE_RATE


def encode(x: np.ndarray) -> bytes:
    """Return (samples,) float32 at 16 kHz as Ogg Opus, the same bytes each time."""
    file, at = io.BytesIO(), 0
    soundfile.write(file, x, SAMPLE_RATE, "OPUS", format="OGG", compression_level=COMPRESSION)
    ogg = bytearray(file.getvalue())
    while at < len(ogg):  # libsndfile draws the stream's number by the clock: make it 1 everywhere
        segments = ogg[at + 27 : at + 27 + ogg[at + 26]]
        end = at + 27 + len(segments) + sum(segments)
        ogg[at + 14 : at + 18] = b"\1\0\0\0"
        ogg[at + 22 : at + 26] = page_checksum(bytes(ogg[at:end]))
        at = end
    return bytes(ogg)


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
    if not speech_s or not RATE[0] <= len(clip.text) / speech_s <= RATE[1]:
        return clip._replace(fault="silence, or speech too fast or too slow for the text")
    gain = min(1.0, 0.95 / float(np.abs(speech).max()))  # Opus overshoots
    return clip._replace(opus=encode(speech * gain))


def pack(clips: list[Clip], args: Namespace) -> None:
    """Write shards of rendered clips and their manifest; print what was left out."""
    path, tar, shards = args.out / f"{args.name}.jsonl", None, 0
    times: dict[str, list[float]] = {"": []}  # fault, if any: seconds of each clip
    with path.open("x", encoding="utf-8") as manifest, ExitStack() as archive:
        # spawn: a forked child of a threaded torch can wait for ever
        with get_context("spawn").Pool(args.workers, torch.set_num_threads, (1,)) as pool:
            for clip in pool.imap(render, clips, chunksize=16):
                times.setdefault(clip.fault, []).append(clip.seconds)
                if clip.fault:
                    continue
                # a header, padding, and at the end as much as makes the archive a multiple of 10240
                if tar is None or tar.offset + len(clip.opus) + 12 * 1024 > SHARD_BYTES:
                    archive.close()
                    shard, shards = f"{args.name}-{shards:02}.tar", shards + 1
                    tar = archive.enter_context(tarfile.open(args.out / shard, "w"))
                member = tarfile.TarInfo(f"{args.name}-{len(times['']) - 1:05}.opus")
                member.size = len(clip.opus)
                tar.addfile(member, io.BytesIO(clip.opus))
                row = {"key": member.name[:-5], "shard": shard, "text": clip.text}
                rest = {"seconds": round(clip.seconds, 3), "source": args.source, "lang": args.lang}
                row |= {"speaker": clip.speaker, **rest}
                manifest.write(json.dumps(row, ensure_ascii=False) + "\n")
    for fault, seconds in sorted(times.items()):
        kind = f"left out, {fault}" if fault else f"in {path}, {shards} shards"
        print(f"{len(seconds)} clips, {sum(seconds) / 3600:.2f} h: {kind}")
    if not shards:
        path.unlink()
        raise ManifestError("every clip was left out: do --clips and --table match?")


if __name__ == "__main__":
    sys.exit(main())
