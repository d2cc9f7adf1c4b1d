"""OpenAI's Realtime dialect: items with one name, deltas that add up, junk answered by errors."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ProtocolError
from audiossm.protocol import openai_realtime as r
from audiossm.protocol.heard import Heard, HeardWord
from audiossm.protocol.openai_realtime import RealtimeProtocol

HELLO = HeardWord("Hello", 0.5, 0.9, 0.75)
WORLD = HeardWord("world.", 1.0, 1.5, 0.5)
SPOKEN = "conversation.item.input_audio_transcription"


def update(**audio_input: Any) -> str:
    return json.dumps({"type": "session.update", "session": {"audio": {"input": audio_input}}})


def append(data: bytes) -> str:
    return json.dumps(
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}
    )


def read(texts: list[str]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in texts]


def test_an_utterance_is_one_item_from_its_first_sound_to_its_text():
    protocol = RealtimeProtocol("sess_1")
    protocol.receive(append(bytes(4)))
    assert protocol.hear(Heard((), "", "", 0.4, 0.0)) == []
    said = read(protocol.hear(Heard((), "hel", "hel", 0.8, 0.0)))
    said += read(protocol.hear(Heard((HELLO,), "wor", "wor", 1.2, 0.0)))
    assert protocol.hear(Heard((), "world", "", 2.5, 0.7)) == []  # it isn't written yet
    said += read(protocol.hear(Heard((WORLD,), "", "", 2.6, 0.8)))
    assert [event["type"] for event in said] == [
        "input_audio_buffer.speech_started",
        f"{SPOKEN}.delta",
        f"{SPOKEN}.delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        f"{SPOKEN}.completed",
    ]
    assert {event.get("item_id", "item_1_1") for event in said} == {"item_1_1"}
    assert (said[0]["audio_start_ms"], said[3]["audio_end_ms"]) == (800, 1500)
    assert said[1]["delta"] + said[2]["delta"] == said[-1]["transcript"] == "Hello world."
    assert said[-1]["usage"]["total_tokens"] == 18 + 2
    assert len({event["event_id"] for event in said}) == len(said)
    protocol.receive(append(bytes(4)))
    said = read(protocol.hear(Heard((HELLO,), "", "", 5.0, 0.6)))
    assert said[-1]["item_id"] == "item_1_2" and said[3]["previous_item_id"] == "item_1_1"


def test_without_turn_detection_only_commits_end_an_item():
    protocol = RealtimeProtocol("sess_1")
    protocol.receive(update(turn_detection=None))
    with pytest.raises(ProtocolError) as caught:
        protocol.receive('{"type":"input_audio_buffer.commit"}')
    assert caught.value.code == "input_audio_buffer_commit_empty"
    protocol.receive(append(bytes(4)))
    (delta,) = protocol.hear(Heard((HELLO,), "", "", 9.0, 8.0))
    assert json.loads(delta)["delta"] == "Hello"
    assert isinstance(protocol.receive('{"type":"input_audio_buffer.commit"}'), r.Commit)
    said = read(protocol.complete((), 9.0))
    assert [event["type"].rpartition(".")[2] for event in said] == [
        *("committed", "added", "done", "completed")
    ]
    with pytest.raises(ProtocolError, match="no audio to commit"):
        protocol.receive('{"type":"input_audio_buffer.commit"}')
    protocol.receive(append(bytes(4)))
    assert read(protocol.complete((), 9.5))[-1]["transcript"] == ""


def test_what_is_cleared_is_forgotten():
    protocol = RealtimeProtocol("sess_1")
    protocol.receive(append(bytes(3)))
    protocol.hear(Heard((HELLO,), "", "", 1.0, 0.0))
    assert isinstance(protocol.receive('{"type":"input_audio_buffer.clear"}'), r.Clear)
    assert json.loads(protocol.cleared(1.0))["type"] == "input_audio_buffer.cleared"
    assert len(protocol.receive(append(bytes(2))).samples) == 1  # the odd byte went, too
    assert read(protocol.complete((WORLD,), 2.0))[-1]["transcript"] == "world."


def test_settings_are_kept_one_by_one_and_shown():
    protocol = RealtimeProtocol("sess_1")
    assert json.loads(protocol.greet())["type"] == "session.created"
    protocol.receive(
        update(
            format={"type": "audio/pcmu"},
            transcription={"model": "x", "keywords": ["Catan"], "delay": "low", "language": "en"},
        )
    )
    protocol.receive(update(turn_detection={"type": "semantic_vad", "eagerness": "low"}))
    found = protocol.settings
    assert (found.sample_rate, found.keywords, found.lookahead_ms) == (8000, ("Catan",), 160)
    assert found.pause_s == 1.6
    shown = json.loads(protocol.updated())
    assert shown["type"] == "session.updated"
    assert shown["session"]["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert shown["session"]["audio"]["input"]["transcription"]["keywords"] == ["Catan"]
    assert len(protocol.receive(append(bytes(3))).samples) == 3
    with pytest.raises(ProtocolError, match="since the first audio"):
        protocol.receive(update(format={"type": "audio/pcm"}))
    protocol.receive(update(format={"type": "audio/pcmu"}))


def test_the_form_before():
    protocol = RealtimeProtocol("sess_1", beta=True)
    assert json.loads(protocol.greet())["type"] == "transcription_session.created"
    session = {
        "input_audio_format": "g711_alaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": None,
        "include": ["item.input_audio_transcription.logprobs"],
    }
    protocol.receive(json.dumps({"type": "transcription_session.update", "session": session}))
    shown = json.loads(protocol.updated())
    assert shown["type"] == "transcription_session.updated"
    assert session.items() <= shown["session"].items()
    said = read(protocol.complete((HELLO,), 1.0))
    assert "conversation.item.created" in [event["type"] for event in said]
    assert said[-1]["logprobs"] == [
        {"token": "Hello", "bytes": [72, 101, 108, 108, 111], "logprob": -0.2877}
    ]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"abc", "messages are JSON"),
        ("junk", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "'None' isn't served"),
        ('{"type":"response.create"}', "this session transcribes"),
        ('{"type":"session.update"}', "session is an object"),
        ('{"type":"session.update","session":{"type":"realtime"}}', "type transcription"),
        ('{"type":"input_audio_buffer.append","audio":"?"}', "not base64"),
        ('{"type":"input_audio_buffer.append"}', "audio is a text"),
        (update(format={"type": "audio/opus"}), "is none of audio/pcm"),
        (update(format={"type": "audio/pcm", "rate": 96000}), "no rate of 96000"),
        (update(transcription={"language": "de"}), "understands English"),
        (update(transcription={"delay": "none"}), "delay is none of"),
        (update(turn_detection={"type": "server_vad", "silence_duration_ms": -1}), "outside"),
        (update(turn_detection={"type": "guess"}), "turn_detection is null"),
    ],
)
def test_what_cannot_be_is_an_error_and_changes_nothing(message, said):
    protocol = RealtimeProtocol("sess_1")
    before = protocol.settings
    with pytest.raises(ProtocolError, match=said):
        protocol.receive(message)
    assert protocol.settings == before


def test_an_error_names_the_message_at_fault():
    protocol = RealtimeProtocol("sess_1")
    with pytest.raises(ProtocolError) as caught:
        protocol.receive('{"type":"input_audio_buffer.commit","event_id":"mine"}')
    event = json.loads(protocol.error(str(caught.value), caught.value.code))
    assert event["error"]["event_id"] == "mine"
    assert event["error"]["code"] == "input_audio_buffer_commit_empty"


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["audio/pcm", "audio/pcmu", "server_vad", "semantic_vad", "low", "en"])
)  # fmt: skip
names = st.sampled_from(
    [
        *("audio", "input", "format", "type", "rate", "transcription", "turn_detection", "include"),
        *("keywords", "delay", "eagerness", "silence_duration_ms", "input_audio_format", "session"),
    ]
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
settings_objects = st.dictionaries(names, values, max_size=4)
messages = (
    st.binary(max_size=9)
    | st.text(max_size=20)
    | st.binary(max_size=9).map(append)
    | st.builds(
        lambda kind, session, audio: json.dumps({"type": kind, "session": session, "audio": audio}),
        st.sampled_from(
            [
                *("session.update", "transcription_session.update", "response.create"),
                *("input_audio_buffer.append", "input_audio_buffer.commit"),
                "input_audio_buffer.clear",
            ]
        )
        | values,
        settings_objects | st.builds(lambda s: {"audio": {"input": s}}, settings_objects),
        values,
    )
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(messages, max_size=8), st.booleans())
def test_any_messages_are_legal_or_a_protocol_error(junk, beta):
    protocol = RealtimeProtocol("sess_1", beta=beta)
    for message in junk:
        try:
            assert isinstance(protocol.receive(message), r.Request)
        except ProtocolError as exc:
            json.loads(protocol.error(str(exc), exc.code))
        json.loads(protocol.updated())
        assert protocol.settings.lookahead_ms in (0, 160, 320)
        assert protocol.settings.pause_s is None or 0 <= protocol.settings.pause_s <= 60
        read(protocol.hear(Heard((HELLO,), "", "", 1.0, 0.6)))
        read(protocol.complete((WORLD,), 2.0))
