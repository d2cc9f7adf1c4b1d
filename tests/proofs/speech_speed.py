"""Proof that speech keeps up: text to sound frame by frame, the codec included, on one thread.

    python tests/proofs/speech_speed.py [--model NAME|DIR] [--backend torch] [--repeat 3]

Times of each text, the best of --repeat: until the first samples come, and until all are there.
Loading isn't counted, nor is the first text of a process, which chooses kernels. The processor's
time is told too: other programs on the machine don't lengthen it as much. The exit code is 1 if a
second of speech takes more than --max-rtf, or the first samples come after --max-first-ms.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch

from audiossm import Speaker
from audiossm.evaluate.machine import describe_machine, name_machine
from audiossm.streaming import Sound

TEXTS = (
    "The train to the coast leaves at nine, so we have to get up early tomorrow.",
    "She put the letter on the table, closed the window, and went out into the garden.",
    "Could you tell me where the museum is? I was told that it is near the river.",
)


def main() -> int:
    """Print the times and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--voice", metavar="NAME", help="default: the model's own")
    parser.add_argument("--backend", choices=["auto", "torch", "numba", "onnx"], default="auto")
    parser.add_argument("--repeat", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--max-rtf", type=float, default=0.8, help="default: %(default)s")
    parser.add_argument("--max-first-ms", type=float, default=400.0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one object instead of the lines")
    args = parser.parse_args()
    torch.set_num_threads(1)
    speaker = Speaker.load(args.model, backend=args.backend)
    voice = speaker.voice(args.voice)
    speaker.say("Hello there.", voice=voice)
    first_s, spent_s, cpu_s, audio_s = [], [], [], []
    for text in TEXTS:
        runs = [time_text(speaker, text, voice) for _ in range(args.repeat)]
        first_s.append(min(run[0] for run in runs))
        spent_s.append(min(run[1] for run in runs))
        cpu_s.append(min(run[2] for run in runs))
        audio_s.append(runs[0][3])
    rtf, cpu_rtf = sum(spent_s) / sum(audio_s), sum(cpu_s) / sum(audio_s)
    first_ms = 1000 * float(np.median(first_s))
    session = speaker.session(voice=voice)
    profile = f"{session.profile} / {session.decoder.profile}"
    passed = rtf <= args.max_rtf and first_ms <= args.max_first_ms
    machine = describe_machine()
    if args.json:
        report = {"model": speaker.name, "profile": profile, "rtf": rtf, "first_ms": first_ms}
        report |= {"cpu_rtf": cpu_rtf, "audio_s": sum(audio_s), "passed": passed}
        print(json.dumps(report | {"machine": machine}))
        return 0 if passed else 1
    for text, first, spent, audio in zip(TEXTS, first_s, spent_s, audio_s, strict=True):
        print(f"{audio:.2f} s in {spent:.2f} s, first after {1000 * first:.0f} ms: {text}")
    print(f"{name_machine(machine)}; {speaker.name}, {profile}")
    print(f"{cpu_rtf:.3f} s of processor time a second of speech")
    print(
        f"{'pass' if passed else 'FAIL'}: {rtf:.3f} s a second of speech (limit "
        f"{args.max_rtf:g}), first samples after {first_ms:.0f} ms (limit {args.max_first_ms:g})"
    )
    return 0 if passed else 1


def time_text(speaker: Speaker, text: str, voice: object) -> tuple[float, float, float, float]:
    """Return the seconds until the first samples and the last, of the processor, and of speech."""
    started, before = time.perf_counter(), time.process_time()
    session = speaker.session(voice=voice)
    first = None
    for events in (session.push(text), session.finish()):
        for event in events:
            if first is None and isinstance(event, Sound) and len(event.samples):
                first = time.perf_counter() - started
    spent, used = time.perf_counter() - started, time.process_time() - before
    assert first is not None
    return first, spent, used, session.seconds


if __name__ == "__main__":
    sys.exit(main())
