"""Kyutai's dialect: a step for each frame, words and their ends, junk refused."""

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import ProtocolError
from audiossm.protocol import kyutai as k
from audiossm.protocol.heard import Heard, HeardWord
from audiossm.protocol.kyutai import KyutaiProtocol

HELLO = HeardWord("Hello", 0.5, 0.9, 1.0)


def read(messages: list[bytes]) -> list[dict[str, Any]]:
    return [msgpack.unpackb(message) for message in messages]


def test_steps_count_frames_and_tell_the_pause():
    protocol = KyutaiProtocol()
    assert read([protocol.greet()]) == [{"type": "Ready"}]
    assert protocol.hear(Heard((), "", "", 1919 / 24000, 0.0)) == []
    said = read(protocol.hear(Heard((HELLO,), "", "", 3841 / 24000, 0.75)))
    steps = [{"type": "Step", "prs": [1.0, 0.75, 0.375, 0.25], "buffered_pcm": 0}] * 2
    assert said == [
        *(step | {"step_idx": number} for number, step in enumerate(steps)),
        {"type": "Word", "text": "Hello", "start_time": 0.5},
        {"type": "EndWord", "stop_time": 0.9},
    ]
    said = read(protocol.mark([HELLO], k.Marker(7)))
    assert [message["type"] for message in said] == ["Word", "EndWord", "Marker"]
    assert said[-1]["id"] == 7


def test_what_a_client_says():
    protocol = KyutaiProtocol()
    assert protocol.receive(msgpack.packb({"type": "Init"})) == k.Init()
    assert protocol.receive(msgpack.packb({"type": "Marker", "id": -3})) == k.Marker(-3)
    for single in (True, False):
        data = msgpack.packb({"type": "Audio", "pcm": [0.5, -1, 0.25]}, use_single_float=single)
        assert protocol.receive(data).samples.tolist() == [0.5, -1.0, 0.25]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("text", "binary"),
        (b"", "not MessagePack"),
        (b"\xc1", "not MessagePack"),
        (b"\x91" * 2000, "not MessagePack"),
        (msgpack.packb([1]), "none of Init"),
        (msgpack.packb({"type": "Audio"}), "none of Init"),
        (msgpack.packb({"type": "Audio", "pcm": ["x"]}), "list of numbers"),
        (msgpack.packb({"type": "Audio", "pcm": [float("nan")]}), "no number"),
        (msgpack.packb({"type": "Audio", "pcm": [1e300]}), "no number"),
        (msgpack.packb({"type": "OggOpus", "data": "x"}), "OggOpus with data"),
        (msgpack.packb({"type": "Marker", "id": True}), "none of Init"),
    ],
)
def test_what_is_not_served_is_refused(message, said):
    with pytest.raises(ProtocolError, match=said):
        KyutaiProtocol().receive(message)


leaves = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
    | st.binary(max_size=5) | st.text(max_size=5)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9))
)  # fmt: skip
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
maps = st.dictionaries(st.sampled_from(["type", "pcm", "id", "data"]) | leaves, values, max_size=3)
known = st.builds(
    lambda kind, pcm, number: {"type": kind, "pcm": pcm, "id": number},
    st.sampled_from(["Init", "Audio", "Marker", "OggOpus"]),
    values | st.lists(st.floats(), max_size=4),
    leaves,
)
messages = (
    st.text(max_size=9) | st.binary(max_size=20) | values.map(msgpack.packb)
    | maps.map(msgpack.packb) | known.map(msgpack.packb)
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True)
@given(messages)
def test_any_message_is_legal_or_a_protocol_error(message):
    protocol = KyutaiProtocol()
    try:
        request = protocol.receive(message)
    except ProtocolError as exc:
        assert msgpack.unpackb(protocol.error(str(exc)))["message"]
    else:
        assert isinstance(request, k.Request)
        if isinstance(request, k.Marker):
            assert read(protocol.mark([], request))[0]["id"] == request.id
