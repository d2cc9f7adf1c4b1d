"""Deepgram's dialect: finals tile the audio, interims repeat what isn't final, junk is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ProtocolError
from audiossm.protocol.deepgram import (
    Audio,
    Close,
    Configure,
    DeepgramProtocol,
    Finalize,
    KeepAlive,
    Settings,
)
from audiossm.protocol.heard import Heard, HeardWord

HELLO = HeardWord("Hello", 0.5, 0.9, 0.75, "hello")
WORLD = HeardWord("world.", 1.0, 1.5, 0.5, "world")


def begin(**query: str) -> DeepgramProtocol:
    fields = {"encoding": ["linear16"]} | {name: [value] for name, value in query.items()}
    return DeepgramProtocol(Settings.parse(fields), "id-1", "tiny")


def results(text: str) -> tuple[float, float, bool, bool, str]:
    r = json.loads(text)
    assert r["type"] == "Results" and r["metadata"]["request_id"] == "id-1"
    transcript = r["channel"]["alternatives"][0]["transcript"]
    return r["start"], r["duration"], r["is_final"], r["speech_final"], transcript


def hear(
    protocol: DeepgramProtocol, *words: HeardWord, pending: str = "", now_s: float, silence_s=0.0
) -> list[str]:
    return protocol.hear(Heard(words, pending, pending, now_s, silence_s))


def test_interims_repeat_and_finals_tile():
    protocol = begin(interim_results="true", endpointing="500", punctuate="true")
    (text,) = hear(protocol, pending="hel", now_s=0.8)
    assert results(text) == (0, 0.8, False, False, "hel")
    (text,) = hear(protocol, HELLO, pending="wor", now_s=1.2)
    assert results(text) == (0, 1.2, False, False, "Hello wor")
    assert hear(protocol, pending="wor", now_s=1.3) == []  # nothing new
    (text,) = hear(protocol, WORLD, now_s=1.9, silence_s=0.1)
    assert results(text) == (0, 1.9, False, False, "Hello world.")
    (text,) = hear(protocol, now_s=2.4, silence_s=0.6)
    assert results(text) == (0, 2.4, True, True, "Hello world.")
    assert json.loads(text)["channel"]["alternatives"][0]["words"][0] == {
        "word": "hello",
        "start": 0.5,
        "end": 0.9,
        "confidence": 0.75,
        "punctuated_word": "Hello",
    }
    text = protocol.close_span([], 3.0, from_finalize=True)
    assert results(text) == (2.4, 0.6, True, False, "")
    assert json.loads(text)["from_finalize"] is True


def test_without_interims_only_finals_are_told_in_plain_words():
    protocol = begin(endpointing="false")
    assert hear(protocol, HeardWord("hello", 0.5, 0.9, 0.75), now_s=9.0, silence_s=8.0) == []
    text = protocol.close_span([HeardWord("world", 1.0, 1.5, 0.5)], 9.5)
    assert results(text)[4] == "hello world"
    assert "punctuated_word" not in text


def test_speech_and_its_end_are_told_if_they_are_asked_for():
    protocol = begin(vad_events="true", utterance_end_ms="1000", endpointing="10")
    started, final = hear(protocol, HELLO, now_s=1.0, silence_s=0.1)
    assert json.loads(started) == {"type": "SpeechStarted", "channel": [0], "timestamp": 0.5}
    assert results(final)[2:4] == (True, True)
    (text,) = hear(protocol, now_s=2.0, silence_s=1.1)
    assert json.loads(text) == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 0.9}
    assert hear(protocol, now_s=3.0, silence_s=2.1) == []


def test_what_is_heard_and_taken_back_ends_nothing():
    protocol = begin(utterance_end_ms="1000", endpointing="10")
    assert hear(protocol, pending="he", now_s=1.0) == []
    assert hear(protocol, now_s=3.0, silence_s=2.7) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"encoding": "flac"}, "encoding 'flac' is none of"),
        ({"sample_rate": "1"}, "outside 8000..48000"),
        ({"sample_rate": "x"}, "outside 8000..48000"),
        ({"channels": "2"}, "one channel"),
        ({"diarize": "true"}, "diarize isn't served"),
        ({"redact": "pci"}, "redact isn't served"),
        ({"language": "de"}, "understands English"),
        ({"endpointing": "soon"}, "no number of milliseconds"),
    ],
)
def test_what_is_not_served_is_refused(query, said):
    with pytest.raises(ProtocolError, match=said):
        begin(**query)


def test_messages():
    protocol = begin(keyterm="Anna")
    assert protocol.keyterms == (("Anna", 1.0),)
    assert protocol.receive('{"type":"KeepAlive"}') == KeepAlive()
    assert protocol.receive('{"type":"Finalize"}') == Finalize()
    assert protocol.receive('{"type":"Configure"}') == Configure(None)
    terms = (("Karenina", 1.0),)
    assert protocol.receive('{"type":"Configure","keyterms":["Karenina"]}') == Configure(terms)
    assert json.loads(protocol.configured(None))["keyterms"] == ["Karenina"]
    assert json.loads(protocol.configured("no"))["type"] == "ConfigureFailure"
    for odd, whole in ((3, 1), (1, 1)):  # a sample may be cut in two
        audio = protocol.receive(bytes(odd))
        assert isinstance(audio, Audio) and len(audio.samples) == whole
    assert protocol.receive('{"type":"CloseStream"}') == Close()
    with pytest.raises(ProtocolError, match="after CloseStream"):
        protocol.receive(b"")


values = st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers() | st.text())
messages = (
    st.binary(max_size=9)
    | st.text(max_size=20)
    | st.builds(
        lambda kind, terms: json.dumps({"type": kind, "keyterms": terms}),
        st.sampled_from(["KeepAlive", "Configure", "What"]) | values,
        values,
    )
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(messages, max_size=8),
    st.dictionaries(
        st.sampled_from(["encoding", "endpointing", "language", "sample_rate", "keyterm"]),
        st.lists(st.text(max_size=9), max_size=2),
    ),
)
def test_any_query_and_messages_are_legal_or_a_protocol_error(junk, query):
    try:
        protocol = DeepgramProtocol(Settings.parse(query | {"encoding": ["alaw"]}), "x", "y")
    except ProtocolError:
        protocol = begin()
    for message in junk:
        try:
            protocol.receive(message)
        except ProtocolError as exc:
            assert str(exc)
    json.loads(protocol.close_span([HELLO], 1.0))
