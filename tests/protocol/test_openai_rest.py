"""OpenAI's REST transcription: which requests there are, and what their answers look like."""

import json

import pytest

from audiossm.errors import ProtocolError
from audiossm.protocol.openai_rest import (
    TranscriptionRequest,
    format_answer,
    format_delta,
    format_error,
)
from audiossm.streaming import WrittenWord

WORDS = [
    WrittenWord("Hello", "hello", 0.5, 0.9, 1.0),
    WrittenWord("world.", "world", 1.0, 1.5, 1.0),
]


def answer(**fields: str) -> tuple[str, str]:
    request = TranscriptionRequest.parse({name: [value] for name, value in fields.items()})
    return format_answer(request, WORDS, 2.0)


def test_json_is_the_text_and_what_it_cost():
    kind, body = answer(model="whisper-1", language="en", temperature="0")
    assert kind == "application/json"
    assert json.loads(body) == {
        "text": "Hello world.",
        "usage": {"type": "duration", "seconds": 2.0},
    }


def test_plain_text_and_subtitles():
    assert answer(response_format="text") == ("text/plain", "Hello world.\n")
    assert answer(response_format="srt")[1] == "1\n00:00:00,500 --> 00:00:01,500\nHello world.\n"
    assert answer(response_format="vtt")[1].startswith("WEBVTT\n\n00:00:00.500 --> ")


def test_verbose_json_has_segments_and_words_if_they_are_asked_for():
    body = json.loads(answer(response_format="verbose_json")[1])
    assert (body["duration"], body["language"], body["task"]) == (2.0, "english", "transcribe")
    assert [(s["start"], s["end"], s["text"]) for s in body["segments"]] == [
        (0.5, 1.5, "Hello world.")
    ]
    assert "words" not in body
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    body = json.loads(answer(**fields)[1])
    assert body["words"][1] == {"word": "world.", "start": 1.0, "end": 1.5}


def test_a_stream_is_a_delta_for_each_word_and_the_whole():
    assert format_delta(WORDS[1], first=False) == (
        "event: transcript.text.delta\n"
        'data: {"type": "transcript.text.delta", "delta": " world."}\n\n'
    )
    kind, body = answer(stream="true")
    assert kind == "text/event-stream" and '"text": "Hello world."' in body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"language": "de"}, "language"),
        ({"stream": "maybe"}, "stream"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities"),
    ],
)
def test_what_cannot_be_done_is_refused_by_field(fields, param):
    with pytest.raises(ProtocolError) as caught:
        answer(**fields)
    assert caught.value.code == param


def test_refusals_have_the_form_that_clients_read():
    error = json.loads(format_error("no", "file"))["error"]
    assert error == {
        "message": "no",
        "type": "invalid_request_error",
        "param": "file",
        "code": None,
    }
