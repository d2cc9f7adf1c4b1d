"""The protocol for speech: what is legal when, and what a request for a text may say."""

import json

import pytest

from audiossm.errors import ProtocolError
from audiossm.protocol import openai_speech, speak
from audiossm.protocol.native import encode


def say(kind, **fields):
    return json.dumps({"type": kind} | fields)


def test_what_is_started_ends_before_the_next_one():
    protocol = speak.SpeakProtocol()
    for message in (say("text", text="a"), say("flush"), say("finish")):
        with pytest.raises(ProtocolError, match="before 'start'"):
            protocol.receive(message)
    assert protocol.receive(say("cancel")) == speak.Cancel()
    start = protocol.receive(say("start", voice="anna", speed=2, seed=3, temperature=0))
    assert start == speak.Start(voice="anna", speed=2.0, seed=3, temperature=0.0)
    with pytest.raises(ProtocolError, match="goes on"):
        protocol.receive(say("start"))
    assert protocol.receive(say("text", text="Hé")) == speak.Text(text="Hé")
    protocol.receive(say("finish"))
    for message in (say("text", text="a"), say("finish")):
        with pytest.raises(ProtocolError, match="after 'finish'"):
            protocol.receive(message)
    with pytest.raises(ProtocolError, match="goes on"):
        protocol.receive(say("start"))
    protocol.end()
    protocol.receive(say("start"))
    protocol.receive(say("cancel"))
    protocol.receive(say("start"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 2}, "this server speaks 1"),
        ({"speed": 0.1}, "speed 0.1 is outside"),
        ({"speed": 5}, "speed 5 is outside"),
        ({"temperature": 11}, "temperature 11 is above 10"),
        ({"sample_rate": 7999}, "sample rate 7999 is outside"),
        ({"encoding": "mp3"}, "'mp3' is none of s16"),
        ({"voice": 3}, "'voice' in 'start' can't be '3'"),
        ({"seed": -1}, "'seed' in 'start' can't be"),
        ({"loudness": 1}, "unknown 'loudness'"),
    ],
)
def test_a_start_that_can_not_be_is_refused_in_words(fields, words):
    protocol = speak.SpeakProtocol()
    with pytest.raises(ProtocolError, match=words):
        protocol.receive(say("start", **fields))
    protocol.receive(say("start"))  # the state is as before


def test_texts_have_limits_and_are_unicode():
    protocol = speak.SpeakProtocol(max_text=5)
    protocol.receive(say("start"))
    protocol.receive(say("text", text="123"))
    with pytest.raises(ProtocolError, match="5 characters at most") as caught:
        protocol.receive(say("text", text="456"))
    assert caught.value.code == "limit"
    protocol.receive(say("text", text="45"))
    with pytest.raises(ProtocolError, match="surrogates"):
        protocol.receive('{"type":"text","text":"\\ud800"}')
    with pytest.raises(ProtocolError, match="binary"):
        protocol.receive(b"1")


def test_replies_are_read_as_they_were_written_and_newer_ones_too():
    for reply in (
        speak.Started(model="m", voice="", seed=1, encoding="f32", sample_rate=24000),
        speak.Word(word="it's", start_s=0.5, end_s=0.75),
        speak.Skipped(text="☃"),
        speak.Failure(code="full", message="m", retry_s=5.0),
    ):
        assert speak.decode_speak_reply(encode(reply)) == reply
    known = speak.decode_speak_reply('{"type":"finished","samples":3,"mood":"good"}')
    assert known == speak.Finished(samples=3)


def parse(voices=(), **fields):
    body = json.dumps(fields).encode()
    return openai_speech.SpeechRequest.parse(body, frozenset(voices), 100)


def test_a_request_is_read_as_openai_documents_it():
    asked = parse(
        **{"input": "Hi", "model": "tts-1", "voice": "alloy", "response_format": "wav"},
        **{"speed": 0.5, "stream_format": "sse", "instructions": "be glad", "seed": 4},
    )
    assert (asked.text, asked.voice, asked.form, asked.speed) == ("Hi", None, "wav", 0.5)
    assert asked.as_events and asked.seed == 4
    assert asked.notes == (
        "instructions are ignored",
        "voice alloy is not here: it is the model's own",
    )
    assert parse(input="").form == "mp3"
    assert parse(input="", voice={"id": "anna"}).voice == "anna"
    assert parse(["alloy"], input="", voice="alloy").voice == "alloy"  # a voice of that name


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "input"),
        ({"input": 3}, "input"),
        ({"input": "x" * 101}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"voice": 3}, "voice"),
        ({"speed": "fast"}, "speed"),
        ({"speed": 0}, "speed"),
        ({"speed": True}, "speed"),
        ({"speed": float("nan")}, "speed"),
        ({"temperature": -1}, "temperature"),
        ({"response_format": "aac"}, "response_format"),
        ({"response_format": []}, "response_format"),
        ({"stream_format": "ws"}, "stream_format"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_a_request_that_can_not_be_names_its_field(fields, name):
    base = {} if name == "input" else {"input": "Hi"}
    with pytest.raises(ProtocolError) as caught:
        parse(**base | fields)
    assert caught.value.code == name and len(str(caught.value)) < 200


def test_a_text_that_is_too_long_is_told_where_it_can_go():
    longest = json.dumps({"input": "x" * openai_speech.MAX_INPUT}).encode()
    assert len(openai_speech.SpeechRequest.parse(longest).text) == 100_000
    with pytest.raises(ProtocolError, match="100001 characters; 100000 are the limit: .*/v1/speak"):
        openai_speech.SpeechRequest.parse(longest.replace(b"xx", b"xxx", 1))


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"[" * 100_000, b'"input"'])
def test_a_body_that_is_no_request_is_refused(body):
    with pytest.raises(ProtocolError):
        openai_speech.SpeechRequest.parse(body)
