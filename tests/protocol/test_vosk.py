"""The vosk dialect: a reply for each audio message, results at endpoints, junk refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ProtocolError
from audiossm.protocol import vosk
from audiossm.protocol.heard import HeardWord
from audiossm.protocol.vosk import VoskProtocol

HELLO, WORLD = HeardWord("hello", 0.5, 0.9, 0.75), HeardWord("world", 1.0, 1.5, 0.5)


def test_words_pile_up_in_partials_until_a_second_of_silence():
    protocol = VoskProtocol()
    assert protocol.hear([], "", 0.2) == '{"partial": ""}'
    assert protocol.hear([], "hel", 0.7) == '{"partial": "hel"}'
    assert protocol.hear([HELLO], "wo", 1.2) == '{"partial": "hello wo"}'
    assert protocol.hear([WORLD], "", 2.4) == '{"partial": "hello world"}'
    assert json.loads(protocol.hear([], "", 2.5)) == {
        "result": [
            {"conf": 0.75, "start": 0.5, "end": 0.9, "word": "hello"},
            {"conf": 0.5, "start": 1.0, "end": 1.5, "word": "world"},
        ],
        "text": "hello world",
    }
    assert protocol.hear([], "", 9.0) == '{"partial": ""}'
    assert protocol.result() == '{"text": ""}'


def test_what_a_client_configures():
    protocol = VoskProtocol()
    request = protocol.receive(
        '{"config": {"sample_rate": 16000, "words": 0, "phrase_list": ["yes", "no", "[unk]"]}}'
    )
    assert request == vosk.Config(16000, ("yes", "no"))
    protocol.hear([HELLO], "", 1.0)
    assert protocol.result() == '{"text": "hello"}'
    protocol.receive('{"config": {"words": true, "max_alternatives": 3}}')
    protocol.hear([HELLO], "", 1.0)
    assert json.loads(protocol.result()) == {
        "alternatives": [
            {
                "text": "hello",
                "confidence": 0.75,
                "result": [{"start": 0.5, "end": 0.9, "word": "hello"}],
            }
        ]
    }
    assert protocol.receive('{"config": {"phrase_list": "[\\"yes\\", \\"no\\"]"}}').phrases


def test_old_and_new_forms_of_commands():
    protocol = VoskProtocol()
    assert protocol.receive('{"reset" : 1}') == protocol.receive('{"reset":1}') == vosk.Reset()
    assert len(protocol.receive(b"\0\0\0").samples) == 1
    assert len(protocol.receive(b"\0").samples) == 1  # the other half
    assert protocol.receive('{"eof" : 1}') == vosk.Eof()
    with pytest.raises(ProtocolError):
        protocol.receive(b"")


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())
keys = st.sampled_from(["sample_rate", "words", "phrase_list", "max_alternatives", "x"])
messages = (
    st.binary(max_size=9)
    | st.text(max_size=20)
    | st.builds(
        lambda key, value: json.dumps({key: value}),
        st.sampled_from(["config", "reset", "what"]),
        st.dictionaries(keys, values) | values,
    )
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(messages, max_size=8))
def test_any_messages_are_legal_or_a_protocol_error(junk):
    protocol = VoskProtocol()
    for message in junk:
        try:
            assert isinstance(protocol.receive(message), vosk.Request)
        except ProtocolError as exc:
            assert str(exc)
    json.loads(protocol.hear([HELLO], "x", 1.0))
    json.loads(protocol.result())
