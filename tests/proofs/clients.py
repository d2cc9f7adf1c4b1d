"""Proof that other services' own clients get the text of ``transcribe``, in every dialect.

    pip install 'audiossm[serve]' 'openai[realtime]' deepgram-sdk vosk
    python tests/proofs/clients.py                 the shipped model, all recordings
    python tests/proofs/clients.py --model DIR     another one

A server runs in a process of its own. The packages ``openai``, ``deepgram-sdk`` and ``vosk`` are
used as they come; sherpa-onnx and Kyutai have no package for that, so their clients' messages are
written down here. Each committed recording, and one of all of them with pauses of --pause seconds
between, is sent in pieces in the client's own encoding and rate; what came is compared with
``transcribe`` of the very samples that the encoding leaves. Where a generator is shipped, or named
by --speaker, ``openai`` also asks for speech, whole, streamed and as events: the samples must be
those that ``Speaker.say`` makes. The exit code is 1 if anything differs.
"""

import argparse
import asyncio
import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from audiossm.audio import resample
from audiossm.audio.opus import OpusStream
from audiossm.models import shipped_generator
from audiossm.protocol import Encoding, decode_samples, encode_samples
from audiossm.streaming import Speaker, Transcriber

SPEECH = Path(__file__).parent.parent / "speech"
PIECE_S = 0.1
Samples = np.ndarray


@dataclass(frozen=True)
class Dialect:
    """A client: how it sends audio, and a function of (host and port, bytes, rate) to a text."""

    name: str
    encoding: Encoding
    rate: int | None  # Hz; None is the recording's own
    ask: Callable[[str, bytes, int], str]
    plain: bool = False  # words without capitals and marks
    opus: bool = False  # it sends Ogg with Opus, and the text is that of what a decoder makes of it


def pieces(data: bytes, bytes_per_s: int) -> list[bytes]:
    """Cut audio."""
    size = round(bytes_per_s * PIECE_S / 4) * 4
    return [data[at : at + size] for at in range(0, len(data), size)]


def wav(data: bytes, rate: int, subtype: str = "PCM_16") -> bytes:
    """Write audio of 16 bits, or of floats, as a file."""
    encoding: Encoding = "s16" if subtype == "PCM_16" else "f32"
    file = io.BytesIO()
    soundfile.write(file, decode_samples(data, encoding), rate, subtype, format="WAV")
    return file.getvalue()


def ask_openai_rest(address: str, data: bytes, rate: int) -> str:
    """Post a file."""
    from openai import OpenAI

    with OpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
        file = ("speech.wav", wav(data, rate))
        answer = client.audio.transcriptions.create(model="whisper-1", file=file)
    return answer.text


def ask_openai_realtime(
    address: str, data: bytes, rate: int, form: str = "audio/pcm", turns: Any = None
) -> str:
    """Append all and commit."""
    from openai import OpenAI

    texts: list[str] = []
    with OpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
        with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            form_of: Any = {"type": form} | ({"rate": rate} if form == "audio/pcm" else {})
            heard = {"format": form_of, "turn_detection": turns}
            connection.session.update(session={"type": "transcription", "audio": {"input": heard}})
            for piece in pieces(data, rate * (2 if form == "audio/pcm" else 1)):
                connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
            connection.input_audio_buffer.commit(event_id="last")
            deltas: dict[str, str] = {}
            ended = None
            for event in connection:
                if event.type == "error":
                    raise RuntimeError(event.error.message)
                kind = event.type.removeprefix("conversation.item.input_audio_transcription.")
                if kind == "delta":
                    deltas[event.item_id] = deltas.get(event.item_id, "") + event.delta
                elif kind == "completed":
                    if deltas.pop(event.item_id, "") != event.transcript:
                        raise RuntimeError("deltas don't add up to the transcript")
                    texts.append(event.transcript)
                    if ended is None and turns is not None:
                        # items of turns come before; clear is answered after the last one
                        connection.input_audio_buffer.clear()
                        ended = event.item_id
                    elif turns is None:
                        break
                elif event.type == "input_audio_buffer.cleared":
                    break
    return " ".join(text for text in texts if text)


def ask_openai_pcmu(address: str, data: bytes, rate: int) -> str:
    """Append all in mu-law and commit."""
    return ask_openai_realtime(address, data, rate, "audio/pcmu")


def ask_openai_turns(address: str, data: bytes, rate: int) -> str:
    """Append all; the server ends utterances."""
    return ask_openai_realtime(address, data, rate, turns={"type": "server_vad"})


def _deepgram(address: str) -> Any:
    from deepgram import DeepgramClient
    from deepgram.environment import DeepgramClientEnvironment

    environment = DeepgramClientEnvironment(
        base=f"http://{address}",
        production=f"ws://{address}",
        agent=f"ws://{address}",
        agent_rest=f"http://{address}",
    )
    return DeepgramClient(api_key="none", environment=environment)


def ask_deepgram_live(
    address: str, data: bytes, rate: int, encoding: str | None = "linear16"
) -> str:
    """Stream, and close."""
    texts = []
    form: Any = {"encoding": encoding, "sample_rate": rate} if encoding else {}
    with _deepgram(address).listen.v1.connect(
        model="nova-3", punctuate=True, interim_results=True, **form
    ) as connection:
        for piece in pieces(data, rate * 2):
            connection.send_media(piece)
        connection.send_close_stream()
        for message in connection:
            if message.type == "Metadata":
                break
            if message.type == "Results" and message.is_final:
                texts.append(message.channel.alternatives[0].transcript)
    return " ".join(text for text in texts if text)


def ask_deepgram_opus(address: str, data: bytes, rate: int) -> str:
    """Stream Ogg, which says itself what it is."""
    return ask_deepgram_live(address, data, rate, None)


def ask_deepgram_posted(address: str, data: bytes, rate: int) -> str:
    """Post a file."""
    answer = _deepgram(address).listen.v1.media.transcribe_file(
        request=wav(data, rate), model="nova-3", punctuate=True
    )
    text: str = answer.results.channels[0].alternatives[0].transcript
    return text


def ask_vosk(address: str, data: bytes, rate: int) -> str:
    """Stream with the client of ``vosk-transcriber --server``."""
    from vosk.transcriber.transcriber import Transcriber as Client

    client = Client.__new__(
        Client
    )  # its constructor loads a model, which it needs without a server
    client.args = argparse.Namespace(server=f"ws://{address}")

    class Process:
        class stdout:
            file = io.BytesIO(data)

            @classmethod
            async def read(cls, size: int) -> bytes:
                return cls.file.read(size)

    results, _ = asyncio.run(client.recognize_stream_server(Process))
    return " ".join(result["text"] for result in results if result["text"])


def ask_sherpa(address: str, data: bytes, rate: int) -> str:
    """Stream as ``online-websocket-client-decode-file.py`` does."""
    from websockets.asyncio.client import connect

    async def talk() -> str:
        texts: dict[int, str] = {}
        async with connect(f"ws://{address}/sherpa") as socket:

            async def read() -> None:
                async for message in socket:
                    if message == "Done!":
                        return
                    result = json.loads(message)
                    texts[result["segment"]] = result["text"]

            reading = asyncio.create_task(read())
            for piece in pieces(data, rate * 4):
                await socket.send(piece)
            await socket.send("Done")
            await reading
        return " ".join(text for text in texts.values() if text)

    return asyncio.run(talk())


def ask_kyutai(address: str, data: bytes, rate: int) -> str:
    """Stream as ``stt_from_file_rust_server.py`` does: a marker, then silence until it is back."""
    import msgpack
    from websockets.asyncio.client import connect

    def pack(**fields: Any) -> bytes:
        packed: bytes = msgpack.packb(fields, use_bin_type=True, use_single_float=True)
        return packed

    async def talk() -> str:
        words: list[str] = []
        headers = {"kyutai-api-key": "public_token"}
        url = f"ws://{address}/api/asr-streaming"
        async with connect(url, additional_headers=headers) as socket:

            async def read() -> None:
                async for message in socket:
                    fields = msgpack.unpackb(message, raw=False)
                    if fields["type"] == "Word":
                        words.append(fields["text"])
                    elif fields["type"] == "Marker":
                        return

            reading = asyncio.create_task(read())
            samples = decode_samples(data, "f32")
            for at in range(0, len(samples), 1920):
                pcm = samples[at : at + 1920].tolist()
                await socket.send(pack(type="Audio", pcm=pcm))
            await socket.send(pack(type="Marker", id=0))
            while not reading.done():
                await socket.send(pack(type="Audio", pcm=[0.0] * 1920))
                # rarely: all was sent at once, and silence beyond the marker is listened to as well
                await asyncio.wait({reading}, timeout=1.0)
            await reading
        return " ".join(words)

    return asyncio.run(talk())


def ask_native(address: str, data: bytes, rate: int) -> str:
    """Stream with our own client."""
    from audiossm.protocol.native import Written
    from audiossm_apps.client import connect

    async def talk() -> str:
        words = []
        async with connect(address, sample_rate=rate, encoding="f32") as stream:
            for piece in pieces(data, rate * 4):
                await stream.send(decode_samples(piece, "f32"))
            await stream.finish()
            async for reply in stream:
                if isinstance(reply, Written):
                    words.append(reply.text)
        return " ".join(words)

    return asyncio.run(talk())


DIALECTS = [
    Dialect("native", "f32", None, ask_native),
    Dialect("openai, REST", "s16", None, ask_openai_rest),
    Dialect("openai, realtime, pcm", "s16", 24000, ask_openai_realtime),
    Dialect("openai, realtime, pcmu", "mulaw", 8000, ask_openai_pcmu),
    Dialect("openai, realtime, server_vad", "s16", 24000, ask_openai_turns),
    Dialect("deepgram-sdk, live", "s16", 16000, ask_deepgram_live),
    Dialect("deepgram-sdk, live, opus", "s16", 48000, ask_deepgram_opus, opus=True),
    Dialect("deepgram-sdk, posted", "s16", None, ask_deepgram_posted),
    Dialect("vosk", "s16", 16000, ask_vosk, plain=True),
    Dialect("sherpa", "f32", 16000, ask_sherpa),
    Dialect("kyutai", "f32", 24000, ask_kyutai),
]


def read_recordings(pause_s: float) -> dict[str, tuple[Samples, int]]:
    """Return the committed recordings and the long one, each with its rate."""
    found: dict[str, tuple[Samples, int]] = {}
    parts = []
    for path in sorted(SPEECH.glob("*.flac")):
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        found[path.stem] = np.ascontiguousarray(audio.mean(axis=1)), rate
        if rate == 16000:
            parts += [found[path.stem][0], np.zeros(round(pause_s * rate), np.float32)]
    found["all"] = np.concatenate(parts), 16000
    return found


def change_rate(samples: Samples, rate: int, wanted: int) -> Samples:
    """Resample."""
    if rate == wanted:
        return samples
    row = torch.from_numpy(samples).unsqueeze(0)
    return np.asarray(resample(row, rate, wanted)[0].numpy(), np.float32)


def compare(
    dialect: Dialect, transcriber: Transcriber, address: str, pause_s: float
) -> tuple[int, int, float]:
    """Return how many recordings there were, how many texts were equal, and the seconds it took."""
    num_equal, spent_s = 0, 0.0
    recordings = read_recordings(pause_s)
    for name, (samples, rate) in recordings.items():
        wanted = dialect.rate or rate
        data = encode_samples(change_rate(samples, rate, wanted), dialect.encoding)
        heard = decode_samples(data, dialect.encoding)
        if dialect.opus:
            file = io.BytesIO()
            soundfile.write(file, heard, wanted, "OPUS", format="OGG")
            data = file.getvalue()
            heard = np.concatenate([*OpusStream().push(data)])
        floats = encode_samples(heard, "f32")
        expected = transcriber.transcribe(io.BytesIO(wav(floats, wanted, "FLOAT")))
        text = " ".join(w.word if dialect.plain else w.text for w in expected.words)
        started = time.perf_counter()
        got = dialect.ask(address, data, wanted)
        spent_s += time.perf_counter() - started
        if text and got == text:
            num_equal += 1
        else:
            print(f"{dialect.name}, {name}:\n  expected {text}\n  got      {got}", flush=True)
    return len(recordings), num_equal, spent_s


TEXT = "The old house stood at the river. Was anybody there?"


def compare_speech(speaker: Speaker, address: str) -> int:
    """Have the package ``openai`` ask for speech; return how many of its ways differ."""
    from openai import OpenAI

    voice = speaker.default_voice or next(iter(speaker.voices), None)
    expected = encode_samples(speaker.say(TEXT, voice=voice).samples, "s16")
    asked: Any = {"model": "tts-1", "voice": voice or "alloy", "input": TEXT}
    asked["response_format"] = "wav"
    found = {}
    with OpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
        found["whole"] = client.audio.speech.create(**asked).content
        started = time.perf_counter()
        streaming = client.audio.speech.with_streaming_response
        with streaming.create(**asked) as answer:
            pieces = []
            for piece in answer.iter_bytes():
                if not pieces:
                    first_s = time.perf_counter() - started
                pieces.append(piece)
        spent_s = time.perf_counter() - started
        found["streamed"] = b"".join(pieces)
        with streaming.create(**asked, stream_format="sse") as answer:
            lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
        events = [json.loads(line) for line in lines]
        found["events"] = b"".join(base64.b64decode(e["audio"]) for e in events if "audio" in e)
        if events[-1]["type"] != "speech.audio.done" or len(pieces) < 3:
            found["streamed"] = b""
    wrong = [name for name, body in found.items() if not body.endswith(expected)]
    for name in wrong:
        print(f"openai speech, {name}: other samples than those of say")
    print(
        f"{'openai speech':30} {len(found) - len(wrong)} of {len(found)} equal, first sound after "
        f"{first_s:.2f} s of {spent_s:.2f} s, {len(expected) / 2 / speaker.sample_rate:.2f} s long",
        flush=True,
    )
    return len(wrong)


def main(argv: list[str] | None = None) -> int:
    """Print a line for each dialect and the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", metavar="DIR", help="(default: the shipped one)")
    parser.add_argument("--pause", type=float, default=2.0, metavar="S", help="(default: 2)")
    parser.add_argument("--speaker", metavar="DIR", help="(default: the shipped one, if any)")
    parser.add_argument("--only", metavar="WORD", default="", help="dialects with it in their name")
    args = parser.parse_args(argv)
    transcriber = Transcriber.load(args.model, readable=True)
    command = [sys.executable, "-m", "audiossm_apps.cli", "serve", "--port", "0"]
    command += ["--capacity", "4", *(["--model", args.model] if args.model else [])]
    speaker_name = args.speaker or shipped_generator()
    command += ["--speech-capacity", "2", *(["--speaker", args.speaker] if args.speaker else [])]
    failed = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline().decode()
            if "serving on" not in line:
                raise RuntimeError("the server didn't start")
            address = line.split()[-1]
            for dialect in DIALECTS:
                if args.only not in dialect.name:
                    continue
                total, equal, spent_s = compare(dialect, transcriber, address, args.pause)
                print(f"{dialect.name:30} {equal} of {total} equal, {spent_s:.1f} s", flush=True)
                failed |= equal < total
            if speaker_name is not None and args.only in "openai speech":
                failed |= compare_speech(Speaker.load(speaker_name), address) > 0
        finally:
            server.terminate()
    print("something differs" if failed else "every text is that of transcribe")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
