"""Many callers of the live service at once, from one thread: what each was told, and when."""

import asyncio
import itertools
import random
import time
from dataclasses import dataclass, field
from typing import Any

from audiossm.errors import ProtocolError, ServiceError
from audiossm.protocol import encode_samples
from audiossm.protocol.native import (
    Failure,
    Finish,
    Finished,
    Partial,
    Seen,
    Start,
    Started,
    Word,
    Written,
    decode_reply,
    encode,
)
from audiossm_apps.client import stream_address
from audiossm_apps.clips import RATE, Clip

__all__ = ["Call", "Load", "Tally"]

PING_EVERY_S = 2.0
PAUSE_S = (0.2, 1.0)  # between two calls of a caller
ANSWER_S = 30.0  # who waits longer for the end, or for a pong, gives up
SHORTEST_RETRY_S = 0.2


@dataclass
class Call:
    """One recording said to the server, and what was told."""

    clip: Clip
    words: list[str] = field(default_factory=list)  # plain ones
    written: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What came of all calls. Times are seconds."""

    calls: list[Call] = field(default_factory=list)  # that came to their end
    partials: list[float] = field(default_factory=list)  # sample sent to text of it received
    finals: list[float] = field(default_factory=list)  # end sent to all received
    starts: list[float] = field(default_factory=list)  # connecting, until let in
    pongs: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)  # of messages, behind the pace of speech
    drops: list[str] = field(default_factory=list)  # why calls broke off
    refusals: int = 0  # with a hint when to come again
    rude: list[str] = field(default_factory=list)  # refusals without one
    most_at_once: int = 0
    model: str = ""


@dataclass(frozen=True)
class _Script:
    """A clip as messages."""

    clip: Clip
    messages: list[bytes]
    ends: list[float]  # seconds of audio up to the end of each


class _Refused(Exception):
    """The server has no room."""

    def __init__(self, retry_s: float) -> None:
        super().__init__()
        self.retry_s = retry_s


class Load:
    """Callers who each say one clip after the other, at the pace of speech.

    Args:
        server: its address.
        clips: what they say.
        message_ms: audio in a message.
        key: API key, if the server wants one.
        seed: of the pauses and the first clips.
    """

    def __init__(
        self, server: str, clips: list[Clip], message_ms: int, key: str | None, seed: int = 0
    ) -> None:
        self.address = stream_address(server)
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        size = RATE * message_ms // 1000
        self.scripts = [_cut(clip, size) for clip in clips]
        self.rng = random.Random(seed)
        self.tally = Tally()
        self.at_once = 0

    async def run(self, num_callers: int, seconds: float) -> Tally:
        """Have so many callers for so long; calls that were begun are said to their end.

        Raises:
            ServiceError: nobody answers there, or the server refuses for good.
        """
        until = time.monotonic() + seconds
        callers = [
            asyncio.create_task(self._keep_calling(turn / num_callers, turn, until))
            for turn in range(num_callers)
        ]
        try:
            await asyncio.gather(*callers)
        finally:
            for task in callers:
                task.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
        return self.tally

    async def _keep_calling(self, phase: float, turn: int, until: float) -> None:
        scripts = itertools.islice(itertools.cycle(self.scripts), turn % len(self.scripts), None)
        # they don't begin, and so don't end, all at once
        await asyncio.sleep(phase * self.scripts[turn % len(self.scripts)].clip.seconds)
        script = next(scripts)
        while time.monotonic() < until:
            try:
                await self._call(script)
            except _Refused as refusal:
                wait_s = max(SHORTEST_RETRY_S, refusal.retry_s) * self.rng.uniform(0.7, 1.3)
                await asyncio.sleep(min(wait_s, max(0.0, until - time.monotonic())))
                continue
            script = next(scripts)
            await asyncio.sleep(self.rng.uniform(*PAUSE_S))

    async def _call(self, script: _Script) -> None:
        """Say one clip over a connection of its own."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidStatus

        began = time.monotonic()
        try:
            async with connect(
                self.address,
                additional_headers=self.headers,
                compression=None,
                ping_interval=None,  # our own are timed
                open_timeout=ANSWER_S,
            ) as socket:
                await self._converse(socket, script, began)
        except InvalidStatus as exc:
            response = exc.response
            if response.status_code not in (429, 503):
                raise ServiceError(f"{self.address}: HTTP {response.status_code}") from exc
            self._refuse(response.headers.get("Retry-After", ""), f"HTTP {response.status_code}")
        except (OSError, ConnectionClosed, TimeoutError, ProtocolError) as exc:
            if not self.tally.model:
                raise ServiceError(f"{self.address}: {exc or type(exc).__name__}") from exc
            self.tally.drops.append(f"{type(exc).__name__}: {exc}")

    async def _converse(self, socket: Any, script: _Script, began: float) -> None:
        await socket.send(encode(Start(sample_rate=RATE)))
        async with asyncio.timeout(ANSWER_S):
            reply = decode_reply(await socket.recv())
        if isinstance(reply, Failure) and reply.code == "full":  # also closes with 1013
            self._refuse(str(reply.retry_s), "full")
        if not isinstance(reply, Started):
            raise ProtocolError(f"expected 'started', got {reply}")
        tally, call = self.tally, Call(script.clip)
        tally.model = tally.model or reply.model
        tally.starts.append(time.monotonic() - began)
        self.at_once += 1
        tally.most_at_once = max(tally.most_at_once, self.at_once)
        sent: list[float] = []
        speaking = asyncio.create_task(self._speak(socket, script, sent))
        pinging = asyncio.create_task(self._ping(socket))
        try:
            await self._listen(socket, call, script, sent)
        finally:
            self.at_once -= 1
            for task in (speaking, pinging):
                task.cancel()
            await asyncio.gather(speaking, pinging, return_exceptions=True)

    def _refuse(self, hint: str, what: str) -> None:
        """Count a refusal.

        Raises:
            _Refused: always.
        """
        try:
            retry_s = float(hint)
        except ValueError:
            retry_s = 0.0
        if retry_s > 0:
            self.tally.refusals += 1
        else:
            self.tally.rude.append(f"{what} without a time to come again")
        raise _Refused(retry_s)

    async def _speak(self, socket: Any, script: _Script, sent: list[float]) -> None:
        """Send each message when its last sample would have been said; note when."""
        begin = time.monotonic()
        for message, end_s in zip(script.messages, script.ends, strict=True):
            await asyncio.sleep(max(0.0, begin + end_s - time.monotonic()))
            now = time.monotonic()
            sent.append(now)
            self.tally.late.append(now - begin - end_s)
            await socket.send(message)
        sent.append(time.monotonic())
        await socket.send(encode(Finish()))

    async def _ping(self, socket: Any) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S * self.rng.uniform(0.5, 1.0))
            asked = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_S):
                    await (await socket.ping())
            except TimeoutError:
                self.tally.drops.append(f"no pong for {ANSWER_S:g} s")
                await socket.close()
            self.tally.pongs.append(time.monotonic() - asked)

    async def _listen(self, socket: Any, call: Call, script: _Script, sent: list[float]) -> None:
        tally, size = self.tally, len(script.messages[0]) // 2
        limit_s = script.clip.seconds + ANSWER_S
        async with asyncio.timeout(limit_s):
            while True:
                reply = decode_reply(await socket.recv())
                match reply:
                    case Partial(heard=heard) if heard:
                        last = (heard - 1) // size
                        tally.partials.append(time.monotonic() - sent[last])
                    case Word(word=word):
                        call.words.append(word)
                    case Written(text=text):
                        call.written.append(text)
                    case Failure(code=code, message=message):
                        tally.drops.append(f"{code}: {message}")
                        return
                    case Finished():
                        tally.finals.append(time.monotonic() - sent[-1])
                        tally.calls.append(call)
                        # what was seen is forgotten
                        await socket.send(encode(Seen(seq=reply.seq)))
                        return


def _cut(clip: Clip, size: int) -> _Script:
    data = encode_samples(clip.samples, "s16")
    messages = [data[at : at + 2 * size] for at in range(0, len(data), 2 * size)]
    ends = [min((i + 1) * size, len(clip.samples)) / RATE for i in range(len(messages))]
    return _Script(clip, messages, ends)
