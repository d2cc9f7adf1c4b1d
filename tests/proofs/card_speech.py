"""Proof of how many voices one card speaks with at once: slots of the shipped generator, timed.

    python tests/proofs/card_speech.py --streams 1000 5000 --seconds 10

Every stream says sentences of tests/proofs/sentences.txt, one after the other, as somebody would
hear them: drawing, the codec's decoder and the copy of all samples to the host are part of a step.
Steps begin 20 ms apart; one takes from then to its samples on the host. A number of streams holds
if 99 of 100 steps take less than a frame and the last one began no later than a frame after its
time. The first audio is timed in a slot that begins while the others go on: from its text to its
first samples. The exit code is 1 if a number doesn't hold.

With --engine, the streams are texts of a service's engine, which have seats on the card: each is
played as it comes, and the next one begun when it was heard. A number holds if 99 of 100 pieces
come before they are due, and 99 of 100 first sounds within 150 ms. A few texts are compared with
what the same seeds say on the CPU. Weights and states are float32.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from audiossm import Speaker
from audiossm.evaluate.machine import describe_machine
from audiossm.script import ScriptReader
from audiossm.streaming import SpeechEngine, SpeechLimits, SpokenWord
from audiossm.streaming.speech import LONGEST_LEAD, LONGEST_PAUSE, LONGEST_PHONE
from audiossm.streaming.speech_engine import Packed, SpeechOrder
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
    parser.add_argument("--engine", action="store_true", help="texts of a service's engine")
    args = parser.parse_args()
    if not args.engine:
        torch.set_float32_matmul_precision("high")
    speaker = Speaker.load(args.model, backend="torch")
    if args.engine:
        rows = [asyncio.run(time_engine(args, speaker, streams)) for streams in args.streams]
        print(*map(json.dumps, rows), describe_machine(args.device), sep="\n")
        return 0 if all(row["holds"] for row in rows) else 1
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


class Bare:
    """Packs samples as they are."""

    def write(self, samples: np.ndarray) -> bytes:
        """Take the next ones."""
        return samples.tobytes()

    def finish(self) -> bytes:
        """There is nothing more."""
        return b""


async def time_engine(
    args: argparse.Namespace, speaker: Speaker, streams: int
) -> dict[str, object]:
    """Have an engine say so many texts at once for a while; return what it took."""
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    first: list[float] = []
    late: list[float] = []
    heard_s = 0.0
    limits = SpeechLimits(capacity=streams, max_ahead_s=1.0)
    device = torch.device(args.device)
    async with SpeechEngine(speaker, None, limits, device=device, has_seats=True) as engine:
        said, words = await hear(engine, sentences[0], 7, args.voice, [], [])
        alone = await asyncio.to_thread(speaker.say, sentences[0], voice=args.voice, seed=7)
        length = min(len(said), len(alone.samples))
        off = float(np.abs(said[:length] - alone.samples[:length]).max())
        same = words == [word.word for word in alone.words] and len(said) == len(alone.samples)
        before = engine.seats.num_steps, engine.seats.num_frames
        until = time.perf_counter() + args.seconds

        async def client(number: int) -> None:
            nonlocal heard_s
            await asyncio.sleep(number / streams * 2.0)  # they don't come all at once
            while time.perf_counter() < until:
                text = sentences[number % len(sentences)]
                said, _ = await hear(engine, text, number, args.voice, first, late)
                heard_s += len(said) / speaker.sample_rate
                number += streams

        await asyncio.gather(*(client(number) for number in range(streams)))
        steps, frames = engine.seats.num_steps - before[0], engine.seats.num_frames - before[1]
    first_ms, late_ms = 1000 * np.array(first), 1000 * np.array(late)
    return {
        "texts": streams,
        "device": args.device,
        "heard_s": round(heard_s),
        "first_audio_ms_median": round(float(np.median(first_ms)), 1),
        "first_audio_ms_p99": round(float(np.percentile(first_ms, 99)), 1),
        "late_ms_p99": round(float(np.percentile(late_ms, 99)), 1),
        "frames_a_step": round(frames / max(steps, 1), 1),
        "as_on_the_cpu": {"samples_and_words": same, "largest_difference": round(off, 5)},
        "holds": bool(np.percentile(late_ms, 99) <= 0 and np.percentile(first_ms, 99) <= 150),
    }


async def hear(
    engine: SpeechEngine,
    text: str,
    seed: int,
    voice: str | None,
    first: list[float],
    late: list[float],
) -> tuple[np.ndarray, list[str]]:
    """Play a text; return its samples and words, and add the times that it took."""
    rate, pieces, words = engine.speaker.sample_rate, list[bytes](), list[str]()
    asked = time.perf_counter()
    utterance = await engine.begin(SpeechOrder(voice=voice, seed=seed), lambda _: Bare())
    utterance.push(text)
    utterance.finish()
    begun, ahead_s = 0.0, 0.0
    async for told in utterance.events():
        if isinstance(told, SpokenWord):
            words.append(told.word)
        if not isinstance(told, Packed) or not told.num_samples:
            continue
        now = time.perf_counter()
        if not begun:
            begun = now
            first.append(now - asked)
        else:
            late.append(now - begun - ahead_s)
        pieces.append(told.data)
        ahead_s += told.num_samples / rate
        # a player that has half a second takes no more
        await asyncio.sleep(max(0.0, begun + ahead_s - 0.5 - now))
    await asyncio.sleep(max(0.0, begun + ahead_s - time.perf_counter()))
    return np.frombuffer(b"".join(pieces), np.float32), words


if __name__ == "__main__":
    sys.exit(main())
