"""Clients of all dialects at once, in little room: each reads its own words and nobody else's."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable

import msgpack
import numpy as np
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from audiossm.protocol import decode_samples, encode_samples
from audiossm.protocol import native as n
from audiossm.streaming import Word
from audiossm_apps.client import connect
from live_service import run_live
from tiny_model import make_transcriber, read_speech

SPEECH = read_speech()[:48000]
PIECE_S = 0.1
Samples = np.ndarray
Talk = Callable[[str, Samples, int], Awaitable[list[str]]]


def alone(samples: Samples, rate: int) -> list[str]:
    session = make_transcriber().session(rate)
    return [e.word for e in session.push(samples) + session.finish() if isinstance(e, Word)]


def cut(data: bytes, rate: int) -> list[bytes]:
    size = round(rate * PIECE_S) * 2
    return [data[at : at + size] for at in range(0, len(data), size)]


async def native(address: str, samples: Samples, rate: int) -> list[str]:
    found = []
    async with connect(address, sample_rate=rate, max_waiting_s=1.0) as stream:

        async def send() -> None:
            for number, start in enumerate(range(0, len(samples), 1500)):
                await stream.send(samples[start : start + 1500])
                if number % 20 == 13:
                    await stream.drop()
            await stream.finish()

        sending = asyncio.create_task(send())
        async for reply in stream:
            if isinstance(reply, n.Word):
                found.append(reply.word)
        await sending
    return found


async def vosk(address: str, samples: Samples, rate: int) -> list[str]:
    texts = []
    async with open_socket(f"ws://{address}/vosk") as socket:
        await socket.send(json.dumps({"config": {"sample_rate": rate}}))
        for piece in cut(encode_samples(samples, "s16"), rate):
            await socket.send(piece)
            texts.append(json.loads(await socket.recv()).get("text", ""))
        await socket.send('{"eof" : 1}')
        texts.append(json.loads(await socket.recv())["text"])
    return " ".join(texts).split()


async def deepgram(address: str, samples: Samples, rate: int) -> list[str]:
    url = f"ws://{address}/v1/listen?encoding=linear16&sample_rate={rate}&interim_results=true"
    texts = []
    async with open_socket(url) as socket:
        for piece in cut(encode_samples(samples, "s16"), rate):
            await socket.send(piece)
        await socket.send('{"type":"CloseStream"}')
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = json.loads(await socket.recv())
                if message.get("is_final"):
                    texts.append(message["channel"]["alternatives"][0]["transcript"])
    return " ".join(texts).split()


async def sherpa(address: str, samples: Samples, rate: int) -> list[str]:
    texts: dict[int, str] = {}
    async with open_socket(f"ws://{address}/sherpa") as socket:
        for piece in cut(encode_samples(samples, "f32"), 2 * rate):
            await socket.send(piece)
        await socket.send("Done")
        while (message := await socket.recv()) != "Done!":
            result = json.loads(message)
            texts[result["segment"]] = result["text"]
    return " ".join(texts.values()).split()


async def kyutai(address: str, samples: Samples, rate: int) -> list[str]:
    # the marker's flush tells the end
    found = []
    async with open_socket(f"ws://{address}/api/asr-streaming") as socket:
        for start in range(0, len(samples), 1920):
            pcm = samples[start : start + 1920].tolist()
            await socket.send(msgpack.packb({"type": "Audio", "pcm": pcm}))
        await socket.send(msgpack.packb({"type": "Marker", "id": 1}))
        while (message := msgpack.unpackb(await socket.recv()))["type"] != "Marker":
            if message["type"] == "Word":
                found.append(message["text"])
    return found


async def realtime(address: str, samples: Samples, rate: int) -> list[str]:
    texts: list[str] = []
    async with open_socket(f"ws://{address}/v1/realtime?intent=transcription") as socket:
        heard = {"format": {"type": "audio/pcm", "rate": rate}, "turn_detection": None}
        session = {"type": "transcription", "audio": {"input": heard}}
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        for piece in cut(encode_samples(samples, "s16"), rate):
            audio = base64.b64encode(piece).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await socket.send('{"type":"input_audio_buffer.commit"}')
        while not texts:
            message = json.loads(await socket.recv())
            assert message["type"] != "error", message
            if message["type"].endswith("transcription.completed"):
                texts.append(message["transcript"])
    return texts[0].split()


def test_nobody_reads_the_words_of_others():
    talks: list[tuple[Talk, int]] = [
        *((native, 16000), (vosk, 8000), (deepgram, 16000), (sherpa, 16000)),
        *((kyutai, 24000), (realtime, 24000)),
    ]
    plan, expected = [], []
    for number in range(12):
        talk, rate = talks[number % len(talks)]
        samples = np.roll(SPEECH, 3001 * number) * (-1) ** number
        if talk not in (native, sherpa, kyutai):
            samples = decode_samples(encode_samples(samples, "s16"), "s16")
        if talk is native:
            samples = decode_samples(encode_samples(samples, "s16"), "s16")
        plan.append((talk, samples, rate))
        expected.append(alone(samples, rate))
    assert len({tuple(words) for words in expected}) == len(plan)  # what could be mixed up

    async def test(service, address):
        found = await asyncio.gather(
            *(talk(address, samples, rate) for talk, samples, rate in plan)
        )
        for (talk, _, rate), got, wanted in zip(plan, found, expected, strict=True):
            if talk in (kyutai, realtime):  # their ends are flushes, which may tell a word less
                assert got and got == wanted[: len(got)] and len(wanted) - len(got) <= 1
            else:
                assert got == wanted, (talk.__name__, rate)
        assert service.engine.meters.failed == 0

    run_live(test, capacity=12)
