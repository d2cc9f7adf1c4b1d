"""The dialects of others, as their clients speak them: text equals ``transcribe``'s."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from audiossm.protocol import decode_samples, encode_samples
from audiossm.streaming import Word
from audiossm_apps.gate import Caps, Gate
from live_service import run_live
from tiny_model import SPEECH as FOLDER
from tiny_model import make_transcriber, read_speech

SPEECH = read_speech()[:48000]


def plain(samples: np.ndarray, rate: int) -> list[str]:
    session = make_transcriber().session(rate)
    return [
        event.word for event in session.push(samples) + session.finish() if isinstance(event, Word)
    ]


@pytest.mark.parametrize("route", ["/", "/vosk"])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_vosk_client_gets_a_reply_for_each_message_and_the_words(route, rate):
    async def test(service, address):
        data, results = encode_samples(SPEECH, "s16"), []
        async with open_socket(f"ws://{address}{route}") as socket:
            await socket.send(json.dumps({"config": {"sample_rate": rate}}))
            for at in range(0, len(data), rate // 5 * 2):
                await socket.send(data[at : at + rate // 5 * 2])
                results.append(json.loads(await socket.recv()))
            await socket.send('{"eof" : 1}')
            results.append(json.loads(await socket.recv()))
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1000
        text = " ".join(result["text"] for result in results if result.get("text"))
        assert text.split() == plain(decode_samples(data, "s16"), rate) != []
        assert any(result.get("partial") for result in results)
        await asyncio.sleep(0.05)
        assert not service.engine.slots and not service.engine.store.kept

    run_live(test)


def test_a_vosk_reset_tells_and_goes_on():
    async def test(service, address):
        async with open_socket(f"ws://{address}/") as socket:
            await socket.send(encode_samples(SPEECH, "s16"))
            json.loads(await socket.recv())
            await socket.send('{"reset" : 1}')
            assert json.loads(await socket.recv())["text"]
            await socket.send('{"eof" : 1}')
            assert json.loads(await socket.recv()) == {"text": ""}

    run_live(test)


@pytest.mark.parametrize("messages", [["junk"], ['{"config": {"sample_rate": 1}}'], ["{}"]])
def test_vosk_junk_ends_the_connection(messages):
    async def test(service, address):
        async with open_socket(f"ws://{address}/") as socket:
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    await socket.send(message)
                await socket.recv()
            assert socket.close_code == 1007 and socket.close_reason
        assert not service.engine.slots

    run_live(test)


def post(address: str, file: Path | bytes | None, **fields: str) -> tuple[int, str]:
    """Send a form as a client of OpenAI does."""
    lines = []
    for name, value in fields.items():
        lines.append(f'--XX\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n')
    body = "".join(lines).encode()
    if file is not None:
        data = file.read_bytes() if isinstance(file, Path) else file
        head = '--XX\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    request = urllib.request.Request(
        f"http://{address}/v1/audio/transcriptions",
        body + b"--XX--\r\n",
        {"Content-Type": "multipart/form-data; boundary=XX"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


@pytest.mark.parametrize("name", ["river.flac", "telephone-8000.flac", "stereo-44100.flac"])
def test_an_uploaded_file_has_the_text_of_transcribe(name):
    expected = make_transcriber().transcribe(FOLDER / name)

    async def test(service, address):
        status, body = await asyncio.to_thread(post, address, FOLDER / name, model="whisper-1")
        assert (status, json.loads(body)["text"]) == (200, expected.text)
        assert json.loads(body)["usage"]["seconds"] == round(expected.duration_s, 3)
        status, body = await asyncio.to_thread(
            post, address, FOLDER / name, model="x", stream="true"
        )
        events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]
        assert events[-1]["text"] == expected.text
        assert "".join(event.get("delta", "") for event in events) == expected.text
        assert not service.engine.slots

    run_live(test)


def test_uploads_that_cannot_be_are_refused_in_words():
    async def test(service, address):
        for file, fields, status, param in (
            (None, {}, 400, "file"),
            (b"this is no audio", {}, 400, "file"),
            (FOLDER / "river.flac", {"language": "fr"}, 400, "language"),
            (bytes(300_000), {}, 413, "file"),
        ):
            found, body = await asyncio.to_thread(post, address, file, **fields)
            assert (found, json.loads(body)["error"]["param"]) == (status, param)
        service.engine.capacity = 0
        found, body = await asyncio.to_thread(post, address, FOLDER / "river.flac")
        assert found == 503 and "taken" in json.loads(body)["error"]["message"]

    run_live(test, gate=Gate(caps=Caps(max_upload=250_000)))
