"""Every dialect, whole: damaged messages of real conversations, and whatever was heard meanwhile.

What a server does is done here without a socket and without a model: each message is legal and gets
its replies, which can be read and can be sent, or is a ProtocolError with a word about it.
"""

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ProtocolError
from audiossm.protocol import (
    ServerProtocol,
    deepgram,
    kyutai,
    native,
    openai_realtime,
    openai_speech,
    sherpa,
    speak,
    vosk,
)
from audiossm.protocol.heard import Heard, HeardWord

Replies = Iterable[str | bytes]
Answer = Callable[[str | bytes, Heard], Replies]


def say(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind} | fields)


def pack(kind: str, **fields: Any) -> bytes:
    return msgpack.packb({"type": kind} | fields)


def serve_vosk() -> Answer:
    protocol = vosk.VoskProtocol()

    def answer(message: str | bytes, heard: Heard) -> Replies:
        match protocol.receive(message):
            case vosk.Audio():
                return [protocol.hear(heard.words, heard.tail, heard.now_s)]
            case vosk.Reset() | vosk.Eof():
                protocol.words += heard.words
                return [protocol.result()]
        return []

    return answer


def serve_sherpa() -> Answer:
    protocol = sherpa.SherpaProtocol()

    def answer(message: str | bytes, heard: Heard) -> Replies:
        if isinstance(protocol.receive(message), sherpa.Done):
            result, done = protocol.finish(heard.words, heard.now_s)
            assert done == "Done!"
            return [result]
        return protocol.hear(heard)

    return answer


def serve_kyutai() -> Answer:
    protocol = kyutai.KyutaiProtocol()

    def answer(message: str | bytes, heard: Heard) -> Replies:
        match protocol.receive(message):
            case kyutai.Audio():
                return protocol.hear(heard)
            case kyutai.Marker() as marker:
                return protocol.mark(heard.words, marker)
        return []

    return answer


def serve_deepgram() -> Answer:
    query = {
        "encoding": ["linear16"],
        "interim_results": ["true"],
        "vad_events": ["true"],
        "utterance_end_ms": ["1000"],
        "punctuate": ["true"],
    }
    protocol = deepgram.DeepgramProtocol(deepgram.Settings.parse(query), "id", "tiny")

    def answer(message: str | bytes, heard: Heard) -> Replies:
        match protocol.receive(message):
            case deepgram.Audio():
                return protocol.hear(heard)
            case deepgram.Finalize():
                return [protocol.close_span(heard.words, heard.now_s, from_finalize=True)]
            case deepgram.Configure():
                return [protocol.configured(None)]
            case deepgram.Close():
                return [protocol.close_span(heard.words, heard.now_s)]
        return []

    return answer


def serve_realtime() -> Answer:
    protocol = openai_realtime.RealtimeProtocol("sess_1")

    def answer(message: str | bytes, heard: Heard) -> Replies:
        try:
            request = protocol.receive(message)
        except ProtocolError as exc:
            json.loads(protocol.error(str(exc), exc.code))
            raise
        match request:
            case openai_realtime.Update():
                return [protocol.updated()]
            case openai_realtime.Audio():
                return protocol.hear(heard)
            case openai_realtime.Commit():
                return protocol.complete(heard.words, heard.now_s)
        return [protocol.cleared(heard.now_s)]

    return answer


def serve_native() -> Answer:
    protocol = ServerProtocol()

    def answer(message: str | bytes, heard: Heard) -> Replies:
        protocol.receive(message)
        partial = native.encode(native.Partial(seq=0, text=heard.pending))
        assert native.decode_reply(partial).type == "partial"
        return [partial]

    return answer


def serve_speak() -> Answer:
    protocol = speak.SpeakProtocol(max_text=1000)

    def answer(message: str | bytes, heard: Heard) -> Replies:
        match protocol.receive(message):
            case speak.Start() as start:
                reply = speak.Started(
                    model="tiny",
                    voice=start.voice or "",
                    seed=start.seed,
                    encoding=start.encoding,
                    sample_rate=start.sample_rate or 16000,
                )
                replies = [native.encode(reply)]
            case speak.Text(text=text):
                word = speak.Word(word=text, start_s=heard.now_s, end_s=heard.now_s)
                replies = [native.encode(word), native.encode(speak.Skipped(text=text))]
            case speak.Finish():
                protocol.end()
                replies = [native.encode(speak.Finished(samples=1))]
            case speak.Cancel():
                replies = [native.encode(speak.Cancelled(samples=1))]
            case _:
                replies = [native.encode(speak.Flushed(samples=1))]
        for said in replies:
            assert speak.decode_speak_reply(said).type
        return replies

    return answer


def serve_openai_speech() -> Answer:
    def answer(message: str | bytes, heard: Heard) -> Replies:
        body = message.encode() if isinstance(message, str) else message
        asked = openai_speech.SpeechRequest.parse(body)
        assert asked.text.encode() is not None and 0.25 <= asked.speed <= 4
        done = openai_speech.format_audio_done(len(asked.text), 5)
        return [done.partition("data: ")[2]]

    return answer


AUDIO = (np.sin(np.arange(160)) * 3000).astype("<i2").tobytes()
FLOATS = np.sin(np.arange(40)).astype("<f4").tobytes()
APPEND = say("input_audio_buffer.append", audio=base64.b64encode(AUDIO).decode())
TALKS: dict[str, tuple[Callable[[], Answer], list[str | bytes]]] = {
    "vosk": (
        serve_vosk,
        [
            '{"config":{"sample_rate":16000,"words":true,"phrase_list":["yes","[unk]"]}}',
            *(AUDIO, AUDIO[:7], '{"reset" : 1}', AUDIO[7:], '{"eof" : 1}'),
        ],
    ),
    "sherpa": (serve_sherpa, [FLOATS, FLOATS[:5], FLOATS[5:], "Done"]),
    "kyutai": (
        serve_kyutai,
        [pack("Init"), pack("Audio", pcm=[0.5, -0.5] * 960), pack("Marker", id=7)]
        + [pack("OggOpus", data=b"OggS")],
    ),
    "deepgram": (
        serve_deepgram,
        [
            *(AUDIO, say("KeepAlive"), say("Configure", keyterms=["Anna"]), say("Finalize")),
            *(AUDIO[:5], AUDIO[5:], say("CloseStream")),
        ],
    ),
    "realtime": (
        serve_realtime,
        [
            say(
                "session.update",
                session={
                    "type": "transcription",
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcm", "rate": 24000},
                            "transcription": {"model": "whisper-1", "language": "en"},
                            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                        }
                    },
                },
            ),
            *(APPEND, say("input_audio_buffer.commit"), APPEND, say("input_audio_buffer.clear")),
        ],
    ),
    "native": (
        serve_native,
        [
            say("start", version=1, sample_rate=16000, hotwords=["Anna", ["Kitty", 2]], keep_s=3),
            *(AUDIO, say("flush"), say("rewind", seconds=0.01), say("fork"), say("seen", seq=1)),
            *(say("hotwords", hotwords=[]), AUDIO, say("finish"), say("seen", seq=2)),
        ],
    ),
    "speak": (
        serve_speak,
        [
            say("start", version=1, voice="anna", speed=1.5, seed=7, temperature=0.7),
            *(say("text", text="Hello thére, "), say("flush"), say("text", text="I said.")),
            *(say("finish"), say("start", encoding="mulaw", sample_rate=8000), say("cancel")),
        ],
    ),
    "openai speech": (
        serve_openai_speech,
        [
            json.dumps({"model": "tts-1", "input": "Hello", "voice": "alloy", "speed": 1.25}),
            json.dumps(
                {"input": "Hi", "voice": {"id": "anna"}, "response_format": "pcm"}
                | {"stream_format": "sse", "instructions": "gladly", "seed": 3}
            ),
        ],
    ),
}  # fmt: skip

times = st.floats(0, 1e5)
words = st.builds(
    HeardWord, st.text(min_size=1, max_size=6), times, times, st.floats(0, 1), st.text(max_size=6)
)
heard = st.builds(
    lambda told, pending, now_s, silence_s: Heard(
        tuple(told), pending, pending[1:], now_s, silence_s
    ),
    st.lists(words, max_size=3),
    st.text(max_size=8),
    st.floats(0, 5),
    st.floats(0, 10),
)
# what happens to a message on its way
damage = st.one_of(
    st.just(("none", 0, b"")),
    st.tuples(st.just("lose"), st.integers(0, 999), st.just(b"")),
    st.tuples(st.just("twice"), st.integers(0, 999), st.just(b"")),
    st.tuples(st.just("cut"), st.integers(0, 999), st.just(b"")),
    st.tuples(st.just("put"), st.integers(0, 999), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("swap"), st.integers(0, 999), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("kind"), st.integers(0, 999), st.just(b"")),
)


def spoil(message: str | bytes, how: str, at: int, what: bytes) -> list[str | bytes]:
    """Do something to a message; text stays text, as a websocket sees to it."""
    data = message.encode() if isinstance(message, str) else message
    at = at % (len(data) + 1)
    match how:
        case "lose":
            return []
        case "twice":
            return [message, message]
        case "cut":
            data = data[:at]
        case "put":
            data = data[:at] + what + data[at:]
        case "swap":
            data = data[:at] + what + data[at + len(what) :]
    is_text = isinstance(message, str) != (how == "kind")
    return [data.decode(errors="replace") if is_text else data]


def check(reply: str | bytes) -> None:
    """Read a reply as a client does."""
    if isinstance(reply, bytes):
        assert msgpack.unpackb(reply)["type"]
    else:
        assert isinstance(json.loads(reply), dict)
        reply.encode()  # no half of a pair of surrogates


@pytest.mark.parametrize("name", TALKS)
def test_what_a_client_says_as_it_should_is_legal(name):
    make, talk = TALKS[name]
    answer = make()
    word = HeardWord("Hello", 0.1, 0.2, 0.9, "hello")
    for number, message in enumerate(talk):
        for reply in answer(message, Heard((word,), "", "", number / 2, 0.4)):
            check(reply)


@pytest.mark.parametrize("name", TALKS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_comes_gets_a_reply_or_a_protocol_error(name, data):
    make, talk = TALKS[name]
    answer, now_s = make(), 0.0
    for message in talk:
        for sent in spoil(message, *data.draw(damage)):
            found = data.draw(heard)
            now_s += found.now_s
            found = Heard(found.words, found.pending, found.tail, now_s, found.silence_s)
            try:
                replies = [*answer(sent, found)]
            except ProtocolError as exc:
                assert 0 < len(str(exc)) < 500
            else:
                for reply in replies:
                    check(reply)
