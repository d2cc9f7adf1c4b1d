"""Opus in live sockets: the words of the same samples, also after the stream went on elsewhere."""

import asyncio
import contextlib
import io
import json

import msgpack
import numpy as np
import pytest
import soundfile
import torch
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from audiossm.audio import Resampler, resample
from audiossm.audio.opus import OpusStream
from audiossm.audio.opus_writer import OpusWriter
from audiossm.protocol import native as n
from audiossm.streaming import FolderStore, Word
from audiossm_apps.client import AsyncStream, SyncStream, connect, stream_address
from live_service import live, run_live
from tiny_model import make_transcriber, read_speech

av = pytest.importorskip("av")
SPEECH = resample(torch.from_numpy(read_speech()[:48000].copy()).unsqueeze(0), 16000, 48000)[
    0
].numpy()


def make_ogg() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SPEECH, 48000, "OPUS", format="OGG")
    return file.getvalue()


def make_webm() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="webm", options={"live": "1"}) as container:
        track = container.add_stream("libopus", rate=48000, layout="mono")
        whole = np.int16(np.clip(SPEECH, -1, 1) * 32767)[None]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate = 48000
        for part in (frame, None):
            for packet in track.encode(part):
                container.mux(packet)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    return np.concatenate([*OpusStream().push(data)])


def alone(samples: np.ndarray, rate: int = 48000, flushed: bool = False) -> list[str]:
    session = make_transcriber().session(rate)
    events = session.push(samples) + (session.flush() if flushed else session.finish())
    return [event.word for event in events if isinstance(event, Word)]


def cut(data: bytes) -> list[bytes]:
    return [data[at : at + 3001] for at in range(0, len(data), 3001)]


@pytest.mark.parametrize("query", ["?", "?encoding=opus&sample_rate=16000"])
@pytest.mark.parametrize("make", [make_ogg, make_webm])
def test_deepgram_takes_opus_in_ogg_and_webm(query, make):
    async def test(service, address):
        data, texts = make(), []
        async with open_socket(f"ws://{address}/v1/listen{query}&interim_results=true") as socket:
            for piece in cut(data):
                await socket.send(piece)
            await socket.send('{"type":"CloseStream"}')
            with contextlib.suppress(ConnectionClosed):
                while True:
                    message = json.loads(await socket.recv())
                    if message.get("is_final"):
                        texts.append(message["channel"]["alternatives"][0]["transcript"])
            assert socket.close_code == 1000
        assert " ".join(texts).split() == alone(decode(data)) != []

    run_live(test)


def test_kyutai_takes_opus_in_ogg():
    async def test(service, address):
        data, words = make_ogg(), []
        async with open_socket(f"ws://{address}/api/asr-streaming") as socket:
            for piece in cut(data):
                await socket.send(msgpack.packb({"type": "OggOpus", "data": piece}))
            await socket.send(msgpack.packb({"type": "Marker", "id": 5}))
            while (message := msgpack.unpackb(await socket.recv()))["type"] != "Marker":
                if message["type"] == "Word":
                    words.append(message["text"])
        resampler = Resampler(48000, 24000)
        row = torch.from_numpy(decode(data)).unsqueeze(0)
        samples = resampler.step(row, resampler.init_state(1))[0][0].numpy()
        assert words == alone(samples, 24000, flushed=True) != []

    run_live(test)


@pytest.mark.parametrize(
    ("route", "message", "code"),
    [
        ("/v1/listen", b"RIFF" + bytes(40), 1008),
        ("/v1/listen?encoding=opus", b"OggS" + b"\0" * 400, 1008),
        ("/api/asr-streaming", msgpack.packb({"type": "OggOpus", "data": b"junk"}), 1007),
    ],
)
def test_what_is_no_opus_ends_the_connection(route, message, code):
    async def test(service, address):
        async with open_socket(f"ws://{address}{route}") as socket:
            await socket.send(message)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.recv()
            assert socket.close_code == code and socket.close_reason
        assert not service.engine.slots and service.engine.meters.failed == 0

    run_live(test)


START = '{"type":"start","encoding":"opus","sample_rate":48000}'


async def hear(socket, kind: str) -> list[dict]:
    said = []
    while not said or said[-1]["type"] != kind:
        said.append(json.loads(await socket.recv()))
    return said


@pytest.mark.parametrize("make", [make_ogg, make_webm])
def test_the_native_protocol_takes_opus(make):
    async def test(service, address):
        data = make()
        async with open_socket(f"ws://{address}/v1/stream") as socket:
            await socket.send(START)
            for piece in cut(data):
                await socket.send(piece)
            await socket.send('{"type":"finish"}')
            said = await hear(socket, "finished")
        words = [message["word"] for message in said if message["type"] == "word"]
        assert words == alone(decode(data)) != []
        assert said[-1]["received"] == len(decode(data))

    run_live(test)


def test_an_opus_stream_goes_on_at_a_page_on_another_server(tmp_path):
    data = make_ogg()
    pages = []
    while data:
        size = 27 + data[26] + sum(data[27 : 27 + data[26]])
        pages.append(data[:size])
        data = data[size:]
    head, *pages = [b"".join(pages[:2]), *pages[2:]]

    async def main():
        async with live(FolderStore(tmp_path)) as (first, address):
            async with open_socket(f"ws://{address}/v1/stream") as socket:
                await socket.send(START)
                handle = (await hear(socket, "started"))[-1]["handle"]
                for part in (head, *pages[:2]):
                    await socket.send(part)
                while first.engine.progress(handle).received < 90_000:
                    await asyncio.sleep(0.01)
                await first.drain()
                said = await hear(socket, "error")
        seq = max(message["seq"] for message in said)
        words = [message["word"] for message in said if message["type"] == "word"]
        async with live(FolderStore(tmp_path)) as (_, address):
            async with open_socket(f"ws://{address}/v1/stream") as socket:
                resume = {"type": "resume", "handle": handle, "seq": seq, "encoding": "opus"}
                await socket.send(json.dumps(resume))
                received = (await hear(socket, "resumed"))[-1]["received"]
                assert received == 95040 - 312  # where page 2 ends
                for part in (head, *pages[1:]):  # page 2 once more: more than 80 ms
                    await socket.send(part)
                await socket.send('{"type":"finish"}')
                said = await hear(socket, "finished")
        words += [message["word"] for message in said if message["type"] == "word"]
        assert said[-1]["received"] == len(SPEECH)
        expected = alone(decode(make_ogg()))
        # not exact: the decoder began anew; all before is as it was, and the rest is near
        same = sum(a == b for a, b in zip(words, expected, strict=False))
        assert same >= len(expected) / 2 and abs(len(words) - len(expected)) <= 3

    asyncio.run(asyncio.wait_for(main(), 60))


async def say(stream: AsyncStream, samples: np.ndarray) -> None:
    for at in range(0, len(samples), 1600):
        await stream.send(samples[at : at + 1600])


async def read(stream: AsyncStream) -> list[str]:
    return [reply.word async for reply in stream if isinstance(reply, n.Word)]


def as_sent(samples: np.ndarray, rate: int) -> np.ndarray:
    """What a server hears of samples that our client sends as Opus."""
    writer = OpusWriter(rate)
    pages = writer.push(samples) + writer.finish()
    return decode(writer.head + b"".join(page.data for page in pages))


@pytest.mark.parametrize("rate", [16000, 44100])
def test_our_client_sends_opus_of_any_rate(rate):
    samples = read_speech()[:48000]

    async def test(service, address):
        async with connect(address, sample_rate=rate, encoding="opus") as stream:
            await say(stream, samples)
            await stream.finish()
            assert await read(stream) == alone(as_sent(samples, rate)) != []

    run_live(test)


def test_the_sync_client_sends_opus():
    samples = read_speech()[:32000]

    def talk(address: str) -> list[str]:
        with SyncStream(address, encoding="opus") as stream:
            stream.send(samples)
            stream.finish()
            return [reply.word for reply in stream.replies() if isinstance(reply, n.Word)]

    async def test(service, address):
        assert await asyncio.to_thread(talk, address) == alone(as_sent(samples, 16000)) != []

    run_live(test)


def test_a_flush_of_our_client_comes_after_whole_packets():
    samples = read_speech()[:32000]

    async def test(service, address):
        async with connect(address, encoding="opus") as stream:
            await stream.send(samples[:16000])
            await stream.flush()
            await stream.finish()
            flushed = [reply async for reply in stream if isinstance(reply, n.Flushed)]
        assert [event.received for event in flushed] == [48000 - 312]

    run_live(test)


def test_our_client_goes_on_with_opus_on_another_server(tmp_path):
    samples = read_speech()[:48000]

    async def main():
        async with live(FolderStore(tmp_path)) as (first, address):
            async with connect(address, encoding="opus") as stream:
                reading = asyncio.create_task(read(stream))
                await say(stream, samples[:20000])
                await stream.ready()
                while first.engine.progress(stream.protocol.handle).received < 57_000:
                    await asyncio.sleep(0.01)
                await stream.drop()
                await say(stream, samples[20000:30000])
                while first.engine.progress(stream.protocol.handle).received < 86_000:
                    await asyncio.sleep(0.01)
                async with live(FolderStore(tmp_path)) as (_, other):
                    stream.address = stream_address(other)
                    await first.drain()
                    await say(stream, samples[30000:])
                    await stream.finish()
                    words = await reading
                assert stream.reconnects >= 2 and stream.protocol.taken == 3 * len(samples)
        expected = alone(as_sent(samples, 16000))
        # not exact: two decoders began anew; all is there, and nearly all is the same
        assert abs(len(words) - len(expected)) <= 4
        assert len(set(words) & set(expected)) > len(set(expected)) / 2

    asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (['{"type":"start","encoding":"opus"}'], "bad-message"),
        ([START, b"junk"], "bad-audio"),
        ([START, b"OggS" + b"\0" * 400], "bad-audio"),
    ],
)
def test_what_is_wrong_with_opus_is_said(messages, code):
    async def test(service, address):
        async with open_socket(f"ws://{address}/v1/stream") as socket:
            for message in messages:
                await socket.send(message)
            assert (await hear(socket, "error"))[-1]["code"] == code

    run_live(test)
