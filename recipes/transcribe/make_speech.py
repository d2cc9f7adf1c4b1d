"""Write a corpus of synthetic English speech with its transcripts (a training tool).

python recipes/transcribe/make_speech.py --sentences FILE [FILE ...] --out DIR --hours H

Needs opusenc and a synthesiser. On Debian (rhvoice and pico are non-free: models without source):
apt-get install opus-tools espeak-ng flite festival festvox-us-slt-hts festvox-kdlpc16k \
    rhvoice rhvoice-english libttspico-utils
"""

import argparse
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from audiossm.audio import mix, open_audio, resample
from audiossm.errors import AudioError, AudioSSMError, DependencyError, ManifestError, OutputError
from audiossm.text import normalise_text

Voices = Mapping[str, Mapping[str, float]]  # synthesiser: voice: share

NAME = "train-synthetic"
SAMPLE_RATE = 16000  # Hz, of what is written
SHARD_BYTES = 26_000_000
NUM_WORDS = range(4, 26)  # of a sentence
LETTER_S = (0.02, 0.25)  # seconds a letter; anything else isn't that sentence
TITLES = {"Mr": "Mister", "Mrs": "Missus", "Dr": "Doctor"}  # said so, and written so in LibriSpeech
WARPS = (0.93, 0.96, 1.0, 1.04, 1.07)  # resampling: the length of the vocal tract, and the pitch
# Voices and how often they speak: three quarters for recorded people (statistical models and Pico),
# a quarter for formants and diphones. Of rhvoice's, evgeniy-eng and lyubov forbid commercial use,
# and for alan, bdl and clb upstream names no licence.
VOICES: Voices = {
    "rhvoice": {"slt": 9},
    "pico": {"en-US": 18, "en-GB": 17},
    "flite": {"rms": 11, "awb": 9, "slt": 5, "kal16": 2},
    "festival": {"cmu_us_slt_arctic_hts": 4, "ked_diphone": 1},
    "espeak": {"en-us": 9, "en-gb": 6, "en-gb-scotland": 3, "en-us-nyc": 2, "en-029": 2},
}
ESPEAK_VARIANTS = (  # those that could be people
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 adam Alex Alicia Andrea Andy Annie "
    "anika belinda benjamin boris caleb david Denis Diogo ed edward Gene grandma grandpa Henrique "
    "Hugo Jacky john Lee linda Marco Mario max Michael miguel Mike norbert pablo paul pedro quincy "
    "rob robert sandro shelby steph steph2 steph3 travis victor zac"
).split()


@dataclass(frozen=True)
class Take:
    """One sentence to be spoken: ``rate`` and ``pitch`` are factors, 1 is the voice's own."""

    text: str
    synthesiser: str
    voice: str
    variant: str
    warp: float = 1.0
    rate: float = 1.0
    pitch: float = 1.0


def main(argv: list[str] | None = None) -> int:
    """Plan, speak and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sentences", type=Path, nargs="+", required=True, help="text files, a sentence a line")
    add("--shares", type=float, nargs="+", help="how often each file is drawn from (alike)")
    add("--out", type=Path, required=True, help=f"folder for {NAME}.jsonl and its shards")
    add("--hours", type=float, required=True, help="of speech")
    add("--bitrate", type=int, choices=range(9, 33), default=11, help="kbit/s (%(default)s)")
    add("--seed", type=int, default=0, help="of the plan (%(default)s)")
    add("--workers", type=int, default=1, help="sentences at a time (%(default)s)")
    args = parser.parse_args(argv)
    shares = args.shares or [1.0] * len(args.sentences)
    if len(shares) != len(args.sentences) or min(args.hours, args.workers, *shares) <= 0:
        parser.error("needs --hours, --workers and --shares above 0, and one share a file")
    torch.set_num_threads(1)
    try:
        files = [read_sentences(path) for path in args.sentences]
        takes = plan(files, shares, find_voices(), args.seed)
        pack(takes, args.out, args.hours, args.bitrate, args.workers)
    except AudioSSMError as exc:
        print(f"make_speech: error: {exc}", file=sys.stderr)
        return 1
    return 0


def read_sentences(path: Path) -> list[str]:
    """Return the lines of a file that can be spoken as they are written."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ManifestError(f"{path}: can't read the sentences: {exc}") from exc
    sentences = [sentence for sentence in map(clean_sentence, lines) if sentence]
    if not sentences:
        raise ManifestError(f"{path}: no plain sentence of {min(NUM_WORDS)}-{max(NUM_WORDS)} words")
    return sentences


def clean_sentence(line: str) -> str:
    """Return a line as synthesisers get it, or "" if its sound wouldn't be its letters."""
    text = re.sub(r"\b(Mr|Mrs|Dr)\.? (?=[A-Z])", lambda m: f"{TITLES[m[1]]} ", line)
    text = " ".join(re.sub(r'["()]|--+', " ", text).split()).strip("' ,;:-")
    # digits, abbreviations (inner full stops) and runs of capitals are read in many ways
    if re.search(r"[^A-Za-z' ,;:.?!-]|\.\s*[^\s?!']|\b[A-Z]{2,}", text):
        return ""
    return text if len(normalise_text(text).split()) in NUM_WORDS else ""


def plan(files: list[list[str]], shares: list[float], voices: Voices, seed: int) -> Iterator[Take]:
    """Yield takes until the file that is next runs out; longer sentences sooner, none twice."""
    rng = random.Random(seed)
    orders = [iter(sorted(x, key=lambda text: -(rng.random() ** (1 / len(text))))) for x in files]
    weights = {(kind, name): x for kind, names in voices.items() for name, x in names.items()}
    said = set()
    while text := next(rng.choices(orders, shares)[0], ""):
        if (plain := normalise_text(text)) in said:
            continue
        said.add(plain)
        kind, voice = rng.choices(list(weights), list(weights.values()))[0]
        if kind == "espeak":
            rate, pitch = rng.uniform(0.81, 1.25), rng.uniform(0.4, 1.6)
            yield Take(text, kind, voice, rng.choice(ESPEAK_VARIANTS), 1.0, rate, pitch)
        else:
            rate, pitch, warp = rng.uniform(0.85, 1.25), rng.uniform(0.85, 1.18), rng.choice(WARPS)
            yield Take(text, kind, voice, f"{warp:.2f}", warp, rate, pitch)


def find_voices() -> Voices:
    """Return the voices that speak here; what doesn't is named in a printed line."""
    if not shutil.which("opusenc"):
        raise DependencyError("opusenc isn't installed: apt-get install opus-tools")
    found: dict[str, dict[str, float]] = {}
    for kind, names in VOICES.items():
        probes = [Take("This is a test.", kind, name, "m1") for name in names]
        if not shutil.which(program := make_command(probes[0], "")[0]):
            print(f"left out: {kind}: {program} isn't installed", flush=True)
            continue
        for probe in probes:
            try:
                speak(probe)
                found.setdefault(kind, {})[probe.voice] = names[probe.voice]
            except AudioError as exc:
                print(f"left out: {kind} {probe.voice}: {exc}", flush=True)
    if not found:
        raise DependencyError(f"no synthesiser speaks here: expected one of {', '.join(VOICES)}")
    return found


def make_command(take: Take, wav: str) -> list[str]:
    """Return the command that speaks a take; rhvoice and festival want the text on stdin."""
    voice, percent, pitch = take.voice, f"{100 * take.rate:.0f}", f"{100 * take.pitch:.0f}"
    stretch = f"{1 / take.rate:.3f}"
    match take.synthesiser:
        case "rhvoice":
            return ["RHVoice-test", "-p", voice, "-r", percent, "-t", pitch, "-o", wav]
        case "pico":
            text = f'<speed level="{percent}"><pitch level="{pitch}">{take.text}</pitch></speed>'
            return ["pico2wave", "-l", voice, "-w", wav, text]
        case "flite":
            options = ["--setf", f"duration_stretch={stretch}", "-t", take.text]
            return ["flite", "-voice", voice, *options, "-o", wav]
        case "festival":
            options = ["-eval", f"(Parameter.set 'Duration_Stretch {stretch})"]
            return ["text2wave", "-eval", f"(voice_{voice})", *options, "-o", wav]
        case _:
            options = ["-s", f"{160 * take.rate:.0f}", "-p", f"{50 * take.pitch:.0f}"]
            return ["espeak-ng", "-v", f"{voice}+{take.variant}", *options, "-w", wav, take.text]


def speak(take: Take) -> np.ndarray:
    """Return a take at 16 kHz, (samples,) float32, its peak 0.7 and its quiet ends cut."""
    with TemporaryDirectory() as folder:
        wav = Path(folder) / "take.wav"
        command = make_command(take, str(wav))
        done = subprocess.run(command, input=take.text, capture_output=True, text=True)
        if done.returncode or not wav.exists():
            raise AudioError(f"{command[0]} failed: {' '.join(done.stderr.split())[:200]}")
        with open_audio(wav) as reader:
            audio = mix(np.concatenate(list(reader.blocks(1 << 20)), axis=1))
            rate = round(reader.sample_rate * take.warp)
    x = resample(torch.from_numpy(audio).unsqueeze(0), rate, SAMPLE_RATE)[0].numpy()
    x = x * (0.7 / max(float(np.abs(x).max()), 1e-4))
    loud, margin = np.flatnonzero(np.abs(x) > 0.01), SAMPLE_RATE // 10
    x = x[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else x[:0]
    seconds, letters = len(x) / SAMPLE_RATE, sum(map(str.isalpha, take.text))
    if not LETTER_S[0] <= seconds / letters <= LETTER_S[1]:
        raise AudioError(f"{command[0]} gave {seconds:.2f} s for {take.text!r}")
    return x


def render(take: Take, bitrate: int) -> tuple[float, bytes]:
    """Return a take's seconds and its Ogg Opus; none, with a printed line, if it fails."""
    try:
        x = speak(take)
    except AudioError as exc:
        print(f"left out: {exc}", flush=True)
        return 0.0, b""
    raw = f"--raw --raw-rate {SAMPLE_RATE} --raw-chan 1 --discard-comments --padding 0 --quiet"
    # 4008=1103 holds it wide-band; by itself opusenc falls to 4 kHz somewhere near 9 kbit/s
    opus = f"--vbr --bitrate {bitrate} --framesize 60 --comp 5 --serial 1 --set-ctl-int 4008=1103"
    command, pcm = ["opusenc", *raw.split(), *opus.split(), "-", "-"], (x * 32767).astype("<i2")
    done = subprocess.run(command, input=pcm.tobytes(), capture_output=True, check=True)
    return len(x) / SAMPLE_RATE, done.stdout


def pack(takes: Iterator[Take], out: Path, hours: float, bitrate: int, workers: int) -> None:
    """Speak takes until there are ``hours``, into shards and a manifest."""
    path = out / f"{NAME}.jsonl"
    if path.exists():
        raise OutputError(f"{path} is there already: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    tar, num_shards, num_takes, total_s = None, 0, 0, 0.0
    with ExitStack() as shards, ThreadPoolExecutor(workers) as pool, path.open("w") as manifest:
        while total_s < hours * 3600 and (batch := list(islice(takes, 16 * workers))):
            rendered = pool.map(render, batch, [bitrate] * len(batch))
            for take, (seconds, opus) in zip(batch, rendered, strict=True):
                if not opus or total_s >= hours * 3600:
                    continue
                if tar is None or tar.offset + len(opus) > SHARD_BYTES:
                    shards.close()
                    shard, num_shards = f"{NAME}-{num_shards:02}.tar", num_shards + 1
                    tar = shards.enter_context(tarfile.open(out / shard, "w"))
                member = tarfile.TarInfo(f"{NAME}-{num_takes:05}.opus")
                member.size = len(opus)
                tar.addfile(member, io.BytesIO(opus))
                row = {"key": f"{NAME}-{num_takes:05}", "shard": shard, "text": take.text}
                row |= {"speaker": f"{take.synthesiser}-{take.voice}-{take.variant}"}
                row |= {"source": f"synthetic/{take.synthesiser}", "lang": "en"}
                manifest.write(json.dumps({**row, "seconds": round(seconds, 3)}) + "\n")
                num_takes, total_s = num_takes + 1, total_s + seconds
    print(f"{path}: {total_s / 3600:.2f} hours in {num_takes} takes, {num_shards} shards")
    if total_s < hours * 3600:
        raise ManifestError(f"the sentences ran out before {hours} hours: give more")


if __name__ == "__main__":
    sys.exit(main())
