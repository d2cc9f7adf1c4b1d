"""Proof that a dead server costs no word: kill it at random moments while clients stream speech.

    python tests/proofs/kill_server.py                 100 kills, the shipped model
    python tests/proofs/kill_server.py --kills 5       a quick try
    python tests/proofs/kill_server.py --kills 1000 --tiny --decoder greedy --fork
                                                       many: a tiny random model, quick starts
    python tests/proofs/kill_server.py --servers 2 --store redis --drain
                                                       two servers, one Redis, half of them asked
    python tests/proofs/kill_server.py --ray --store redis --tiny --decoder greedy --kills 10
                                                       two replicas of Ray Serve, one Redis

Each kill is SIGKILL to ``audiossm serve``; a new process takes over on the same port and store of
snapshots. With two servers the other one takes over at once, as behind a load balancer, which is
written down here. With --ray, Ray Serve keeps two replicas and puts new ones in the place of those
that are killed. With --drain, every second end is SIGTERM, as in a rolling restart: then the
server has to end in peace. With --rewind clients also go back in their streams, some of them after
a kill. Clients send the committed recordings in pieces of random sizes, at --speed times the pace
of speech, with flushes at random places; each goes on to the next one. What a client was told must
be what a stream in this process is told of the same samples with the same flushes: every word and
its times. The exit code is 1 if a word was lost, doubled or changed.

With --fork a server is a fork of a process that has imported everything and has neither a model nor
a thread; else it is a process from the start, which takes some seconds of a core each time.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import re
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
from audiossm.streaming import Stream, Transcriber, WrittenWord
from audiossm.streaming import Word as PlainWord
from audiossm.streaming import stream as stream_events
from audiossm_apps.client import connect

sys.path.append(str(Path(__file__).parent))
from children import find_children  # beside this file, wherever it is run

SPEECH = Path(__file__).parent.parent / "speech"
DEPLOY = Path(__file__).parents[2] / "apps" / "deploy"
KEEP_S = 5  # how far back streams go
START_S = 300
IMPORTED = [
    *("audiossm.streaming", "audiossm_apps.cli", "audiossm_apps.live.server"),
    *("uvicorn", "onnxruntime", "numba"),
]
Told = tuple[str, float, float]


class Server:
    """``audiossm serve`` in a process of its own, again and again on one port."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = open(folder / "server.log", "ab")
        self.arguments = ["serve", "--port", str(self.port), *options]
        self.command = [sys.executable, "-m", "audiossm_apps.cli", *self.arguments]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=self.log
        )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), START_S)
        if b"serving" not in line:
            raise RuntimeError(f"the server said {line!r}: see its log")

    async def stop(self, how: signal.Signals) -> int:
        """End it and return its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await self.process.wait()


def serve(log: str, arguments: list[str]) -> None:
    """Be the server, in a process that was forked for it."""
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from audiossm_apps.cli import main as run_command

    sys.exit(run_command(arguments))


class ForkedServer(Server):
    """The same, forked from a process that has imported everything already."""

    forked: multiprocessing.process.BaseProcess | None = None

    async def start(self) -> None:
        """Start it and wait until it serves."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self.forked = context.Process(target=serve, args=(self.log.name, self.arguments))
        self.forked.start()
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", self.port))[1].close()
                    return
                if not self.forked.is_alive():
                    raise RuntimeError("the server ended: see its log")
                await asyncio.sleep(0.02)

    async def stop(self, how: signal.Signals) -> int:
        """End it and return its exit code."""
        assert self.forked is not None and self.forked.pid is not None
        if self.forked.is_alive():
            os.kill(self.forked.pid, how)
        await asyncio.to_thread(self.forked.join)
        assert self.forked.exitcode is not None
        return self.forked.exitcode


class RayService(Server):
    """``audiossm serve --replicas 2``, of which one is killed again and again."""

    num_replicas = 2

    def __init__(self, folder: Path, options: list[str]) -> None:
        replicas = ["--replicas", str(self.num_replicas), "--replica-cpus", "0.5"]
        super().__init__(folder, [*options, *replicas, "--speaker", "none"])
        self.servers: list[Server] = [self]

    async def replace(self, how: signal.Signals) -> int:
        """End one replica and wait until Ray has put another one in its place."""
        assert self.process is not None
        alive = find_children(self.process.pid, "ServeReplica")
        os.kill(alive[0], how)
        async with asyncio.timeout(START_S):
            while len(set(find_children(self.process.pid, "ServeReplica")) - {alive[0]}) < (
                self.num_replicas
            ):
                await asyncio.sleep(0.1)
        return 0


class Balancer:
    """One port in front of several servers: a new connection goes to the first one that is up."""

    def __init__(self, servers: list[Server], folder: Path, proxy: str | None = None) -> None:
        self.servers, self.folder, self.proxy_name = servers, folder, proxy
        self.listener: asyncio.Server | None = None
        self.proxy: asyncio.subprocess.Process | None = None
        self.up = [*servers]
        self.port = 0

    async def start(self) -> None:
        """Start all servers, and listen."""
        await asyncio.gather(*(server.start() for server in self.servers))
        if self.proxy_name is not None:
            self.port = await self._start_proxy(self.proxy_name)
            return
        self.listener = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]

    async def replace(self, how: signal.Signals) -> int:
        """End the server that is first in line, put another one first, and start it again."""
        first = self.up[0]
        if len(self.up) > 1:
            self.up.append(self.up.pop(0))
        code = await first.stop(how)
        await first.start()
        return code

    async def stop(self, how: signal.Signals) -> int:
        """Listen no more and end all; return the highest exit code."""
        if self.listener is not None:
            self.listener.close()
        if self.proxy is not None and self.proxy.returncode is None:
            self.proxy.terminate()
            await self.proxy.wait()
        return max(await asyncio.gather(*(server.stop(how) for server in self.servers)))

    async def _start_proxy(self, name: str) -> int:
        """Start nginx or Caddy as it is deployed, but for TLS, and return its port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = self.folder / f"{name}.conf"
        ports = [server.port for server in self.servers]
        make = {"nginx": make_nginx, "caddy": make_caddy}[name]
        config.write_text(make(self.folder, port, ports))
        command = {
            "nginx": ["nginx", "-c", str(config)],
            "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)],
        }[name]
        with open(self.folder / f"{name}.log", "wb") as log:
            self.proxy = await asyncio.create_subprocess_exec(
                *command,
                stdout=log,
                stderr=log,
                env=os.environ | {"XDG_CONFIG_HOME": str(self.folder)},
            )
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    return port
                await asyncio.sleep(0.05)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up, down = await asyncio.open_connection("127.0.0.1", self.up[0].port)
        except OSError:
            writer.transport.abort()
            return

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pass_on(reader, down), pass_on(up, writer))


def make_nginx(folder: Path, port: int, ports: list[int]) -> str:
    """Return the deployed configuration for these ports, without TLS."""
    text = (DEPLOY / "nginx.conf").read_text()
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    text = re.sub(r"^ *ssl_.*\n", "", text, flags=re.MULTILINE)
    for deployed, own in zip(("8765", "8766"), ports, strict=True):
        text = text.replace(f"127.0.0.1:{deployed}", f"127.0.0.1:{own}")
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;"
    return f"{main} events {{}} http {{ access_log off; {paths}\n{text}}}"


def make_caddy(folder: Path, port: int, ports: list[int]) -> str:
    """Return the deployed configuration for these ports, without TLS."""
    text = (DEPLOY / "Caddyfile").read_text()
    text = text.replace("talk.example.org", f"http://127.0.0.1:{port}")
    for deployed, own in zip(("8765", "8766"), ports, strict=True):
        text = text.replace(f"127.0.0.1:{deployed}", f"127.0.0.1:{own}")
    options = f"admin off\n auto_https off\n storage file_system {folder}/caddy"
    return f"{{\n {options}\n}}\n{text}"


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    drains: int = 0  # of these, those that were asked to end
    hit: int = 0  # streams that a kill interrupted
    streams: int = 0
    words: int = 0
    wrong: list[str] = field(default_factory=list)
    running: int = 0
    enough: bool = False


async def talk(
    server: "Balancer | RayService",
    transcriber: Transcriber,
    tally: Tally,
    args: argparse.Namespace,
    seed: int,
) -> None:
    """Stream one recording after the other until there were enough kills."""
    rng = random.Random(seed)
    paths = sorted(SPEECH.glob("*.flac"))
    while not tally.enough:
        audio, rate = soundfile.read(rng.choice(paths), dtype="float32", always_2d=True)
        samples = np.ascontiguousarray(audio[:, 0])
        flushes = sorted(rng.sample(range(1, len(samples)), rng.randint(0, 2)))
        back = rng.randint(0, KEEP_S * rate) if args.rewind else 0
        tally.running += 1
        told = await stream(server.port, samples, rate, flushes, back, rng, args.speed)
        tally.running -= 1
        expected = await asyncio.to_thread(alone, transcriber, samples, rate, flushes, back)
        tally.streams += 1
        tally.words += len(expected)
        if told != expected:
            tally.wrong.append(f"expected {expected}\n     got {told}")


async def stream(
    port: int,
    samples: np.ndarray,
    rate: int,
    flushes: list[int],
    back: int,
    rng: random.Random,
    speed: float,
) -> list[Told]:
    """Send a recording, and its last ``back`` samples again; return the words that stand."""
    told: list[tuple[int, Told]] = []

    async with connect(
        f"127.0.0.1:{port}",
        sample_rate=rate,
        encoding="f32",
        max_waiting_s=1.0,
        give_up_s=300,
        keep_s=float(KEEP_S) if back else 0.0,
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
            if back:
                await client.rewind(back / rate)
                await client.send(samples[len(samples) - min(back, len(samples)) :])
            await client.finish()

        sending = asyncio.create_task(send())
        async for reply in client:
            if isinstance(reply, Word):
                told.append((reply.seq, (reply.word, reply.start_s, reply.end_s)))
            elif isinstance(reply, Written):
                told.append((reply.seq, (reply.text, reply.start_s, reply.end_s)))
            elif isinstance(reply, Rewound):
                told = [item for item in told if item[0] <= reply.keep]
        await sending
    return [word for _, word in told]


def alone(
    transcriber: Transcriber, samples: np.ndarray, rate: int, flushes: list[int], back: int
) -> list[Told]:
    """What a stream is told that nothing disturbs."""
    straight = Stream(transcriber.session(rate), KEEP_S if back else 0)
    news = []
    for stop in [*flushes, len(samples)]:
        # pieces as short as an engine's: longer ones are torch's business, which rounds otherwise
        for at in range(straight.received, stop, rate // 5):
            news += straight.push(samples[at : min(at + rate // 5, stop)])
        if stop < len(samples):
            news += straight.flush()
    if back:
        (item,) = straight.rewind(round(back / rate * rate))
        if isinstance(item.event, stream_events.Rewound):
            news = [past for past in news if past.seq <= item.event.keep]
        news += straight.push(samples[len(samples) - min(back, len(samples)) :])
    news += straight.finish()
    return [
        (
            event.word if isinstance(event, PlainWord) else event.text,
            round(event.start_s, 4),
            round(event.end_s, 4),
        )
        for event in (item.event for item in news)
        if isinstance(event, PlainWord | WrittenWord)
    ]


async def prove(args: argparse.Namespace, store: str, folder: Path) -> Tally:
    """Kill servers so many times."""
    rng, tally = random.Random(args.seed), Tally()
    transcriber = Transcriber.load(args.model, readable=True, decoder=args.decoder)
    options = ["--store", store, "--capacity", str(4 * args.clients)]
    options += ["--decoder", args.decoder] if args.decoder else []
    options += ["--model", args.model] if args.model else []
    kind = ForkedServer if args.fork else Server
    server: Balancer | RayService
    if args.ray:
        server = RayService(folder, options)
    else:
        servers = [kind(folder, options) for _ in range(args.servers)]
        server = Balancer(servers, folder, args.proxy)
    try:
        await server.start()
        talking = [
            asyncio.create_task(talk(server, transcriber, tally, args, args.seed + turn))
            for turn in range(args.clients)
        ]
        while tally.kills < args.kills:
            waiting = asyncio.create_task(asyncio.sleep(rng.uniform(0.2, args.longest_s)))
            await asyncio.wait([waiting, *talking], return_when=asyncio.FIRST_COMPLETED)
            for task in talking:
                if task.done():
                    task.result()
            await waiting
            tally.hit += tally.running
            asked = args.drain and tally.kills % 2 == 1
            code = await server.replace(signal.SIGTERM if asked else signal.SIGKILL)
            if asked and code:
                tally.wrong.append(f"a server that was asked to end did so with exit code {code}")
            tally.kills += 1
            tally.drains += asked
            if tally.kills % 10 == 0:
                print(f"{tally.kills} kills, {tally.streams} streams", flush=True)
        tally.enough = True
        await asyncio.wait_for(asyncio.gather(*talking), 300)
        code = await server.stop(signal.SIGTERM)
        if code:
            tally.wrong.append(f"the last server ended with exit code {code}")
    finally:
        await server.stop(signal.SIGKILL)
        for one in server.servers:
            one.log.close()
        if tally.wrong:
            print((folder / "server.log").read_text()[-3000:], file=sys.stderr)
    return tally


def save_tiny(folder: Path) -> Path:
    """Write down a model that is quick to load; its words are nonsense, but many.

    It has a compiled loop, as shipped ones: by torch alone, what is heard depends on the pieces in
    which samples come, if only in the last bits, and where two labels are as near, so do words.
    """
    sys.path.append(str(Path(__file__).parents[1]))
    from audiossm.checkpoint import save_model
    from audiossm.config import to_dict
    from tiny_model import make_transcriber

    model = make_transcriber(with_loop=True)
    config = {"recogniser": to_dict(model.config)}
    save_model(folder, "recogniser", "", config, model.network.state_dict())
    return folder


def main(argv: list[str] | None = None) -> int:
    """Print what happened and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--clients", type=int, default=3, metavar="N", help="at once")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: the shipped one")
    parser.add_argument("--longest-s", type=float, default=6.0, metavar="S", help="between kills")
    parser.add_argument("--decoder", metavar="NAME", help="default: the model's best")
    parser.add_argument("--tiny", action="store_true", help="a tiny model with random weights")
    parser.add_argument("--fork", action="store_true", help="servers that start quickly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--store", metavar="DIR|URL", help="'redis' starts one (default: a new folder)"
    )
    parser.add_argument("--servers", type=int, default=1, metavar="N", help="that share the store")
    parser.add_argument(
        "--proxy", choices=["nginx", "caddy"], help="with two servers: through it as deployed"
    )
    parser.add_argument("--ray", action="store_true", help="replicas of Ray Serve")
    parser.add_argument("--drain", action="store_true", help="every second end is SIGTERM")
    parser.add_argument("--rewind", action="store_true", help="go back before the end")
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = args.store or str(folder / "streams")
        if store == "redis":
            sys.path.append(str(Path(__file__).parents[1]))
            from redis_server import run_redis

            store = stack.enter_context(run_redis())[0]
        if args.tiny:
            args.model = str(save_tiny(folder / "tiny"))
        tally = asyncio.run(prove(args, store, folder))
    for wrong in tally.wrong:
        print(wrong)
    passed = not tally.wrong and tally.hit and tally.words
    print(
        f"{'pass' if passed else 'FAIL'}: {tally.kills} kills ({tally.drains} of them SIGTERM) hit "
        f"{tally.hit} streams; "
        f"{len(tally.wrong)} of {tally.streams} streams ({tally.words} words, written ones counted "
        f"again) were told otherwise; {time.monotonic() - started:.0f} s"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
