"""The dialects of others, as their clients speak them: text equals ``transcribe``'s."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path

import msgpack
import numpy as np
import pytest
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from audiossm.protocol import decode_samples, encode_samples
from audiossm.streaming import Word
from audiossm_apps.live.gate import Caps, Gate
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
        for _ in range(250):
            if not service.engine.slots and not service.engine.store.kept:
                break
            await asyncio.sleep(0.02)
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


@pytest.mark.parametrize(("encoding", "name"), [("s16", "linear16"), ("mulaw", "mulaw")])
def test_a_deepgram_client_gets_finals_that_tile_the_audio(encoding, name):
    async def test(service, address):
        data = encode_samples(SPEECH, encoding)
        url = f"ws://{address}/v1/listen?encoding={name}&sample_rate=8000&interim_results=true"
        async with open_socket(url, subprotocols=["token"]) as socket:
            assert socket.subprotocol == "token"
            assert socket.response.headers["dg-request-id"]
            for at in range(0, len(data), 1600):
                await socket.send(data[at : at + 1600])
            await socket.send('{"type":"KeepAlive"}')
            await socket.send('{"type":"Finalize"}')
            await socket.send('{"type":"CloseStream"}')
            said = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    said.append(json.loads(await socket.recv()))
            assert socket.close_code == 1000
        finals = [m for m in said if m["type"] == "Results" and m["is_final"]]
        text = " ".join(m["channel"]["alternatives"][0]["transcript"] for m in finals)
        samples = decode_samples(data, encoding)
        session = make_transcriber().session(8000)
        events = session.push(samples) + session.flush() + session.finish()
        assert text.split() == [e.word for e in events if isinstance(e, Word)] != []
        end = 0.0
        for message in finals:
            assert message["start"] == pytest.approx(end, abs=1e-3)
            end = message["start"] + message["duration"]
        assert end == pytest.approx(len(samples) / 8000, abs=1e-3)
        assert sum(m["from_finalize"] for m in finals) == 1
        assert any(m["type"] == "Results" and not m["is_final"] for m in said)
        assert said[-1]["type"] == "Metadata" and said[-1]["duration"] == 6.0
        assert not service.engine.slots

    run_live(test)


def test_a_recording_that_is_posted_as_to_deepgram():
    expected = make_transcriber().transcribe(FOLDER / "river.flac")

    def post_raw(address: str, data: bytes, query: str = "") -> tuple[int, str]:
        request = urllib.request.Request(f"http://{address}/v1/listen{query}", data)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    async def test(service, address):
        data = (FOLDER / "river.flac").read_bytes()
        status, body = await asyncio.to_thread(post_raw, address, data)
        found = json.loads(body)
        (channel,) = found["results"]["channels"]
        assert channel["alternatives"][0]["transcript"] == expected.text
        assert found["metadata"]["duration"] == pytest.approx(expected.duration_s, abs=1e-3)
        assert (await asyncio.to_thread(post_raw, address, b"junk"))[0] == 400
        assert (await asyncio.to_thread(post_raw, address, data, "?diarize=true"))[0] == 400
        assert not service.engine.slots

    run_live(test)


@pytest.mark.parametrize("query", ["?encoding=flac", "?encoding=linear16&redact=pci"])
def test_a_deepgram_stream_that_cannot_be_is_refused_at_once(query):
    async def test(service, address):
        with pytest.raises(InvalidStatus) as caught:
            await open_socket(f"ws://{address}/v1/listen{query}")
        assert caught.value.response.status_code == 400

    run_live(test)


def test_deepgram_junk_ends_the_connection_with_a_word():
    async def test(service, address):
        async with open_socket(f"ws://{address}/v1/listen?encoding=linear16") as socket:
            await socket.send("junk")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1008 and "DATA-0000" in socket.close_reason

    run_live(test)


def test_a_sherpa_client_gets_the_text_and_done():
    async def test(service, address):
        data, results = SPEECH.astype("<f4").tobytes(), {}
        async with open_socket(f"ws://{address}/sherpa") as socket:
            for at in range(0, len(data), 6402):
                await socket.send(data[at : at + 6402])
            await socket.send("Done")
            while (message := await socket.recv()) != "Done!":
                last = json.loads(message)
                results[last["segment"]] = last["text"]
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1000
        assert last["is_eof"] and last["is_final"]
        assert " ".join(results.values()).split() == plain(SPEECH, 16000) != []
        assert not service.engine.slots and not service.engine.store.kept

    run_live(test)


def test_a_kyutai_client_gets_words_steps_and_its_marker():
    async def test(service, address):
        def pack(**fields):
            return msgpack.packb(fields, use_single_float=True)

        headers, said = {"kyutai-api-key": "public_token"}, []
        url = f"ws://{address}/api/asr-streaming"
        async with open_socket(url, additional_headers=headers) as socket:
            for at in range(0, len(SPEECH), 1920):
                await socket.send(pack(type="Audio", pcm=SPEECH[at : at + 1920].tolist()))
            await socket.send(pack(type="Marker", id=5))
            while not said or said[-1]["type"] != "Marker":
                said.append(msgpack.unpackb(await socket.recv()))
        session = make_transcriber().session(24000)
        expected = [e for e in session.push(SPEECH) + session.flush() if isinstance(e, Word)]
        words = [m for m in said if m["type"] == "Word"]
        assert [m["text"] for m in words] == [word.word for word in expected] != []
        assert [m["start_time"] for m in words] == [round(word.start_s, 4) for word in expected]
        steps = [m["step_idx"] for m in said if m["type"] == "Step"]
        assert said[0] == {"type": "Ready"} and steps == list(range(len(SPEECH) // 1920))
        with pytest.raises(InvalidStatus) as caught:
            await open_socket(url)
        assert caught.value.response.status_code == 401
        async with open_socket(f"{url}?auth_id=public_token"):
            pass

    run_live(test, gate=Gate(keys={"public_token": 9}))


@pytest.mark.parametrize(
    ("route", "message"),
    [("/sherpa", "junk"), ("/sherpa", b"\xff" * 4), ("/api/asr-streaming", b"junk")],
)
def test_junk_of_other_dialects_ends_the_connection(route, message):
    async def test(service, address):
        async with open_socket(f"ws://{address}{route}") as socket:
            await socket.send(message)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.recv()
            assert socket.close_code == 1007 and socket.close_reason
        assert not service.engine.slots

    run_live(test)
