"""The sherpa dialect: a result for each change, segments at endpoints, junk refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ProtocolError
from audiossm.protocol import sherpa
from audiossm.protocol.heard import Heard, HeardWord
from audiossm.protocol.sherpa import SherpaProtocol

HELLO = HeardWord("Hello", 0.5, 0.9, 1.0)
WORLD = HeardWord("world.", 1.0, 1.5, 0.5)


def test_results_follow_the_text_and_segments_the_pauses():
    protocol = SherpaProtocol()
    assert protocol.hear(Heard((), "", "", 9.0, 9.0)) == []  # silence is no segment
    (text,) = protocol.hear(Heard((), "hel", "hel", 9.1, 0.0))
    assert json.loads(text)["text"] == "hel" and json.loads(text)["tokens"] == []
    (text,) = protocol.hear(Heard((HELLO,), "wor", "", 9.2, 1.1))
    assert json.loads(text)["text"] == "Hello wor"
    assert protocol.hear(Heard((), "wor", "", 9.3, 1.2)) == []  # it isn't written yet
    (text,) = protocol.hear(Heard((WORLD,), "", "", 9.3, 1.2))
    assert json.loads(text) == {
        "text": "Hello world.",
        "tokens": [" Hello", " world."],
        "timestamps": [0.5, 1.0],
        "ys_probs": [0.0, -0.6931],
        "lm_probs": [],
        "context_scores": [],
        "segment": 0,
        "words": [],
        "start_time": 0.0,
        "is_final": True,
        "is_eof": False,
    }
    (text,) = protocol.hear(Heard((HeardWord("a", 9.5, 9.6, 1.0),), "", "", 11.0, 1.2))
    found = json.loads(text)
    assert (found["segment"], found["start_time"], found["timestamps"]) == (1, 9.3, [0.2])
    assert found["is_final"]


def test_the_end():
    protocol = SherpaProtocol()
    assert isinstance(protocol.receive("Done"), sherpa.Done)
    last, done = protocol.finish((HELLO,), 1.0)
    assert json.loads(last)["is_eof"] and json.loads(last)["text"] == "Hello" and done == "Done!"
    with pytest.raises(ProtocolError, match="after Done"):
        protocol.receive(b"")


def test_audio_may_be_cut_anywhere_and_has_to_be_sound():
    protocol, data = SherpaProtocol(), np.float32([0.5, -1.0]).tobytes()
    parts = [protocol.receive(part).samples for part in (data[:3], data[3:])]
    assert np.concatenate(parts).tolist() == [0.5, -1.0]
    with pytest.raises(ProtocolError, match="no number"):
        protocol.receive(np.float32([np.nan]).tobytes())
    with pytest.raises(ProtocolError, match="nothing else"):
        protocol.receive("done")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=9) | st.text(max_size=9) | st.just("Done"), max_size=8))
def test_any_messages_are_legal_or_a_protocol_error(junk):
    protocol = SherpaProtocol()
    for message in junk:
        try:
            assert isinstance(protocol.receive(message), sherpa.Request)
        except ProtocolError as exc:
            assert str(exc)
        for text in protocol.hear(Heard((HELLO,), "x", "", 1.0, 0.6)):
            json.loads(text)
    json.loads(protocol.finish((), 2.0)[0])
