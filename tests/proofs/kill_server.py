"""Proof that a dead server costs no word: kill it at random moments while clients stream speech.

    python tests/proofs/kill_server.py                 100 kills, the shipped model
    python tests/proofs/kill_server.py --kills 5       a quick try

Each kill is SIGKILL to ``audiossm serve``; a new process takes over on the same port and folder of
snapshots. Clients send the committed recordings in pieces of random sizes, at --speed times the
pace of speech, with flushes at random places; each goes on to the next one. What a client was told
must be what a session in this process is told of the same samples with the same flushes: every word
and its times. The exit code is 1 if a word was lost, doubled or changed.
"""

import argparse
import asyncio
import os
import random
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from audiossm.protocol.native import Rewound, Word, Written
from audiossm.streaming import Transcriber, WrittenWord
from audiossm.streaming import Word as PlainWord
from audiossm_apps.client import connect

SPEECH = Path(__file__).parent.parent / "speech"
Told = tuple[str, float, float]


class Server:
    """``audiossm serve`` in a process of its own, again and again on one port."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = open(folder / "server.log", "ab")
        self.command = [
            *(sys.executable, "-m", "audiossm_apps.cli", "serve", "--port", str(self.port)),
            *("--store", str(folder / "streams"), *options),
        ]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=self.log
        )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 120)
        if b"serving" not in line:
            raise RuntimeError(f"the server said {line!r}: see its log")

    async def stop(self, how: signal.Signals) -> int:
        """End it and return its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await self.process.wait()


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    hit: int = 0  # streams that a kill interrupted
    streams: int = 0
    words: int = 0
    wrong: list[str] = field(default_factory=list)
    running: int = 0
    enough: bool = False


async def talk(
    server: Server, transcriber: Transcriber, tally: Tally, seed: int, speed: float
) -> None:
    """Stream one recording after the other until there were enough kills."""
    rng = random.Random(seed)
    paths = sorted(SPEECH.glob("*.flac"))
    while not tally.enough:
        audio, rate = soundfile.read(rng.choice(paths), dtype="float32", always_2d=True)
        samples = np.ascontiguousarray(audio[:, 0])
        flushes = sorted(rng.sample(range(1, len(samples)), rng.randint(0, 2)))
        tally.running += 1
        told = await stream(server.port, samples, rate, flushes, rng, speed)
        tally.running -= 1
        expected = await asyncio.to_thread(alone, transcriber, samples, rate, flushes)
        tally.streams += 1
        tally.words += len(expected)
        if told != expected:
            tally.wrong.append(f"expected {expected}\n     got {told}")


async def stream(
    port: int, samples: np.ndarray, rate: int, flushes: list[int], rng: random.Random, speed: float
) -> list[Told]:
    """Send a recording and return the words that came."""
    told: list[Told] = []

    async with connect(
        f"127.0.0.1:{port}", sample_rate=rate, encoding="f32", max_waiting_s=1.0, give_up_s=300
    ) as client:

        async def send() -> None:
            at = 0
            for stop in [*flushes, len(samples)]:
                while at < stop:
                    size = min(rng.randint(1, rate // 3), stop - at)
                    await client.send(samples[at : at + size])
                    at += size
                    await asyncio.sleep(size / rate / speed)
                if stop < len(samples):
                    await client.flush()
            await client.finish()

        sending = asyncio.create_task(send())
        async for reply in client:
            assert not isinstance(reply, Rewound)
            if isinstance(reply, Word):
                told.append((reply.word, reply.start_s, reply.end_s))
            elif isinstance(reply, Written):
                told.append((reply.text, reply.start_s, reply.end_s))
        await sending
    return told


def alone(
    transcriber: Transcriber, samples: np.ndarray, rate: int, flushes: list[int]
) -> list[Told]:
    """What a session is told that nothing disturbs."""
    session, events, at = transcriber.session(rate), [], 0
    for flush in flushes:
        events += session.push(samples[at:flush]) + session.flush()
        at = flush
    events += session.push(samples[at:]) + session.finish()
    return [
        (
            event.word if isinstance(event, PlainWord) else event.text,
            round(event.start_s, 4),
            round(event.end_s, 4),
        )
        for event in events
        if isinstance(event, PlainWord | WrittenWord)
    ]


async def prove(kills: int, clients: int, speed: float, model: str | None, seed: int) -> Tally:
    """Kill a server so many times."""
    rng, tally = random.Random(seed), Tally()
    transcriber = Transcriber.load(model, readable=True)
    with tempfile.TemporaryDirectory() as name:
        options = ["--capacity", str(4 * clients), *(["--model", model] if model else [])]
        server = Server(Path(name), options)
        try:
            await server.start()
            talking = [
                asyncio.create_task(talk(server, transcriber, tally, seed + turn, speed))
                for turn in range(clients)
            ]
            while tally.kills < kills:
                waiting = asyncio.create_task(asyncio.sleep(rng.uniform(0.2, 6.0)))
                await asyncio.wait([waiting, *talking], return_when=asyncio.FIRST_COMPLETED)
                for task in talking:
                    if task.done():
                        task.result()
                await waiting
                tally.hit += tally.running
                await server.stop(signal.SIGKILL)
                tally.kills += 1
                await server.start()
                if tally.kills % 10 == 0:
                    print(f"{tally.kills} kills, {tally.streams} streams", flush=True)
            tally.enough = True
            await asyncio.wait_for(asyncio.gather(*talking), 300)
            code = await server.stop(signal.SIGTERM)
            if code:
                tally.wrong.append(f"the last server ended with exit code {code}")
        finally:
            await server.stop(signal.SIGKILL)
            server.log.close()
            if tally.wrong:
                print((Path(name) / "server.log").read_text()[-3000:], file=sys.stderr)
    return tally


def main(argv: list[str] | None = None) -> int:
    """Print what happened and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--clients", type=int, default=3, metavar="N", help="at once")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    tally = asyncio.run(prove(args.kills, args.clients, args.speed, args.model, args.seed))
    for wrong in tally.wrong:
        print(wrong)
    passed = not tally.wrong and tally.hit and tally.words
    print(
        f"{'pass' if passed else 'FAIL'}: {tally.kills} kills hit {tally.hit} streams; "
        f"{len(tally.wrong)} of {tally.streams} streams ({tally.words} words, written ones counted "
        f"again) were told otherwise; {time.monotonic() - started:.0f} s"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
