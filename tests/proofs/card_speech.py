"""Proof of how many voices one card speaks with at once: slots of the shipped generator, timed.

    python tests/proofs/card_speech.py --streams 1000 5000 --seconds 10

Every stream says sentences of tests/proofs/sentences.txt, one after the other, as somebody would
hear them: drawing, the codec's decoder and the copy of all samples to the host are part of a step.
Steps begin 20 ms apart; one takes from then to its samples on the host. A number of streams holds
if 99 of 100 steps take less than a frame and the last one began no later than a frame after its
time. The first audio is timed in a slot that begins while the others go on: from its text to its
first samples. The exit code is 1 if a number doesn't hold.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from audiossm import Speaker
from audiossm.evaluate.machine import describe_machine
from audiossm.script import ScriptReader
from audiossm.streaming.speech import LONGEST_LEAD, LONGEST_PAUSE, LONGEST_PHONE
from audiossm.streaming.speech_slots import SlotScript, SpeechSlots

SENTENCES = Path(__file__).with_name("sentences.txt")
LEAD = 50  # steps that aren't counted
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_scripts(speaker: Speaker, voice_name: str | None) -> list[SlotScript]:
    """Read each sentence."""
    voice, scripts = speaker.voice(voice_name), []
    for number, text in enumerate(SENTENCES.read_text(encoding="utf-8").splitlines()):
        reader = ScriptReader(speaker.pronouncer)
        units = reader.push(text).units + reader.finish().units
        if not units:
            continue
        longest = [
            LONGEST_LEAD if u.symbol == "_" else LONGEST_PAUSE if u.is_pause else LONGEST_PHONE
            for u in units
        ]
        rows = np.array([speaker.row(unit) for unit in units])
        scripts.append(SlotScript(rows, np.array(longest), voice.vector, voice.pace, seed=number))
    return scripts


def main() -> int:
    """Print a line for each number of streams."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--voice", metavar="NAME")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--states", choices=list(DTYPES), default="bfloat16")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    speaker = Speaker.load(args.model, backend="torch")
    scripts = make_scripts(speaker, args.voice)
    network = speaker.network.to(args.device)
    for block in network.blocks():
        block.to(DTYPES[args.weights])
    codec = speaker.codec.network.to(args.device)
    frame_s = speaker.frame_size / speaker.sample_rate
    good = True
    for streams in args.streams:
        row = time_streams(args, network, codec, scripts, streams, frame_s)
        good &= bool(row["holds"])
        print(json.dumps(row), flush=True)
    print(describe_machine(args.device))
    return 0 if good else 1


def time_streams(
    args: argparse.Namespace,
    network: torch.nn.Module,
    codec: torch.nn.Module,
    scripts: list[SlotScript],
    streams: int,
    frame_s: float,
) -> dict[str, object]:
    """Speak with so many streams for a while; return what it took."""
    slots = SpeechSlots(
        network,
        codec,
        num_slots=streams,
        state_dtype=DTYPES[args.states],  # type: ignore[arg-type]
    )
    cuda = slots.device.type == "cuda"
    host = torch.empty(slots.said.samples.shape, pin_memory=cuda)
    busy = torch.empty(streams, dtype=torch.bool, pin_memory=cuda)
    turn = 0

    def begin(places: list[int]) -> None:
        nonlocal turn
        for at in range(0, len(places), 256):
            some = places[at : at + 256]
            slots.begin(some, [scripts[(turn + i) % len(scripts)] for i in range(len(some))])
            turn += len(some)

    begin(list(range(streams)))
    took, late, first, spoken = [], 0.0, [], 0
    waiting: dict[int, float] = {}
    steps = LEAD + round(args.seconds / frame_s)
    slots.step()
    start = time.perf_counter()
    for step in range(steps):
        due = start + step * frame_s
        now = time.perf_counter()
        if now < due:
            time.sleep(due - now)
        began = time.perf_counter()
        if step >= LEAD:
            late = max(late, began - due)
        said = slots.step()
        host.copy_(said.samples, non_blocking=True)
        busy.copy_(slots.busy, non_blocking=True)
        if cuda:
            torch.cuda.synchronize()
        ended = time.perf_counter()
        if step >= LEAD:
            took.append(ended - began)
            spoken += int(said.sounds.sum())
        for slot in [s for s in waiting if bool(host[s].any())]:
            first.append(ended - waiting.pop(slot))
        done = np.flatnonzero(~busy.numpy())[:32].tolist()
        if done:
            for slot in done:
                waiting[slot] = time.perf_counter()
            begin(done)
    times = np.array(took) * 1000
    p99 = float(np.percentile(times, 99))
    return {
        "streams": streams,
        "step_ms_median": round(float(np.median(times)), 2),
        "step_ms_p99": round(p99, 2),
        "latest_ms": round(1000 * late, 1),
        "first_audio_ms_median": round(1000 * float(np.median(first)), 1) if first else None,
        "first_audio_ms_p99": round(1000 * float(np.percentile(first, 99)), 1) if first else None,
        "sounding": round(spoken / max(len(took), 1) / streams, 3),
        "holds": p99 < 1000 * frame_s and late <= frame_s,
    }


if __name__ == "__main__":
    sys.exit(main())
