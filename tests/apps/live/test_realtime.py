"""The Realtime dialect on a socket: text equals a session's, ends and junk are told."""

import asyncio
import base64
import contextlib
import json

import numpy as np
import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from audiossm.protocol import decode_samples, encode_samples
from audiossm.streaming import Word
from audiossm_apps.live.gate import Gate
from live_service import run_live
from tiny_model import make_transcriber, read_speech

SPEECH = read_speech()[:48000]
ROUTE = "/v1/realtime?intent=transcription&model=whisper-1"
SPOKEN = "conversation.item.input_audio_transcription"


def plain(samples: np.ndarray, rate: int, flushed: bool) -> list[str]:
    session = make_transcriber().session(rate)
    events = session.push(samples) + (session.flush() if flushed else []) + session.finish()
    return [event.word for event in events if isinstance(event, Word)]


async def send(socket, kind: str, **fields) -> None:
    await socket.send(json.dumps({"type": kind} | fields))


async def send_audio(socket, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        audio = base64.b64encode(data[at : at + size]).decode()
        await send(socket, "input_audio_buffer.append", audio=audio)


async def read_until(socket, kind: str) -> list[dict]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(await socket.recv()))
    return events


@pytest.mark.parametrize(
    ("form", "encoding", "rate"),
    [("audio/pcm", "s16", 24000), ("audio/pcmu", "mulaw", 8000), ("audio/pcma", "alaw", 8000)],
)
def test_a_commit_tells_the_text_of_a_session(form, encoding, rate):
    async def test(service, address):
        data = encode_samples(SPEECH, encoding)
        async with open_socket(f"ws://{address}{ROUTE}", subprotocols=["realtime"]) as socket:
            assert socket.subprotocol == "realtime"
            await read_until(socket, "session.created")
            given = {"format": {"type": form}, "turn_detection": None}
            session = {"type": "transcription", "audio": {"input": given}}
            await send(socket, "session.update", session=session)
            await read_until(socket, "session.updated")
            await send(socket, "input_audio_buffer.commit")
            assert (await read_until(socket, "error"))[-1]["error"]["code"].endswith("empty")
            await send_audio(socket, data, 1601)
            await send(socket, "input_audio_buffer.commit")
            events = await read_until(socket, f"{SPOKEN}.completed")
            text = events[-1]["transcript"]
            assert text.split() == plain(decode_samples(data, encoding), rate, True) != []
            deltas = [e["delta"] for e in events if e["type"] == f"{SPOKEN}.delta"]
            assert "".join(deltas) == text and len(deltas) > 1
            await send(socket, "input_audio_buffer.clear")
            await read_until(socket, "input_audio_buffer.cleared")
        for _ in range(100):
            if not service.engine.slots:
                break
            await asyncio.sleep(0.02)
        assert not service.engine.slots and not service.engine.store.kept

    run_live(test)


def test_pauses_end_items_and_add_nothing():
    async def test(service, address):
        data, events = encode_samples(SPEECH, "s16"), []
        # the tiny model babbles on: its pauses are short
        turns = {"type": "server_vad", "silence_duration_ms": 0}
        session = {"audio": {"input": {"turn_detection": turns}}}
        async with open_socket(f"ws://{address}{ROUTE}") as socket:
            await send(socket, "session.update", session=session)
            await send_audio(socket, data, 480)
            await send(socket, "input_audio_buffer.commit")
            with contextlib.suppress(TimeoutError):
                while True:
                    events.append(json.loads(await asyncio.wait_for(socket.recv(), 3)))
        items = {}
        for event in events:
            if "item_id" in event:
                items.setdefault(event["item_id"], []).append(event["type"].rpartition(".")[2])
        for kinds in items.values():
            assert kinds[-1] == "completed" and kinds.count("completed") == 1
            assert kinds.count("committed") == 1
            if "speech_started" in kinds:
                assert kinds[0] == "speech_started" and kinds.count("speech_stopped") == 1
        texts = [e["transcript"] for e in events if e["type"] == f"{SPOKEN}.completed"]
        assert sum(map(bool, texts)) > 1, texts
        heard = plain(decode_samples(data, "s16"), 24000, True)
        assert " ".join(texts).split() == heard

    run_live(test)


def test_errors_leave_the_session_open_and_keys_come_as_subprotocols():
    async def test(service, address):
        names = ["realtime", "openai-insecure-api-key.secret"]
        async with open_socket(f"ws://{address}/v1/realtime", subprotocols=names) as socket:
            await read_until(socket, "session.created")
            for message in ("junk", b"junk", '{"type":"response.create","event_id":"e"}'):
                await socket.send(message)
                last = (await read_until(socket, "error"))[-1]["error"]
            assert last["event_id"] == "e"
            await send(socket, "input_audio_buffer.clear")
            await read_until(socket, "input_audio_buffer.cleared")
            await service.drain()
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1012
        with pytest.raises(InvalidStatus) as caught:
            await open_socket(f"ws://{address}/v1/realtime", subprotocols=["realtime"])
        assert caught.value.response.status_code == 401

    run_live(test, gate=Gate(keys={"secret": 1}))


def test_another_intent_is_refused():
    async def test(service, address):
        with pytest.raises(InvalidStatus) as caught:
            await open_socket(f"ws://{address}/v1/realtime?intent=conversation")
        assert caught.value.response.status_code == 400

    run_live(test)
