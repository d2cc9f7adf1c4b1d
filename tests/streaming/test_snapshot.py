"""Session bytes of another make, or damaged, are refused in one line."""

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audiossm.errors import SnapshotError
from audiossm.streaming import Session, Transcriber
from audiossm.streaming.session import identity
from audiossm.streaming.snapshot import pack, unpack
from tiny_model import make_transcriber, read_speech

MODEL = make_transcriber()
SPEECH = read_speech()
IDENTITY = identity(MODEL)


def make_snapshot() -> bytes:
    session = MODEL.session()
    session.push(SPEECH[:8000])
    return session.snapshot()


DATA = make_snapshot()
ARRAYS, HEADER = unpack(DATA, IDENTITY)


def refuse(data: bytes, model: Transcriber = MODEL) -> str:
    """The one line with which these bytes are refused."""
    with pytest.raises(SnapshotError) as caught:
        Session.restore(model, data)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def with_header(**changes: str) -> bytes:
    return pack(ARRAYS, {key: value for key, value in HEADER.items()} | changes)


def test_what_was_packed_comes_back():
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "transposed": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "none": np.zeros((0, 3), np.int32),
        "one": np.array(2.5),
    }
    found, header = unpack(pack(arrays, {"model": "m", "x": 'ä"\n'}), {"model": "m"})
    assert header == {"version": "5", "model": "m", "x": 'ä"\n'}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_session_has_one_snapshot_only():
    assert Session.restore(MODEL, DATA).snapshot() == DATA
    assert make_snapshot() == DATA


def test_the_bytes_are_safetensors_and_a_digest():
    length = int.from_bytes(DATA[:8], "little")
    metadata = json.loads(DATA[8 : 8 + length])["__metadata__"]
    assert json.loads(metadata["audiossm-session"]) == HEADER
    assert DATA[-32:] == hashlib.sha256(DATA[:-32]).digest()


def test_another_model_is_refused():
    other = make_transcriber(3)
    assert refuse(DATA, other) == (
        f"snapshot of model '{MODEL.hash}', but this session has '{other.hash}': it can't go on"
    )


def test_another_profile_is_logged_and_gone_on_from(caplog):
    session = Session.restore(MODEL, with_header(profile="onnx-float32-cpu"))
    assert session.profile == "onnx-float32-cpu"
    with caplog.at_level("INFO"):
        assert session.push(SPEECH[8000:]) == Session.restore(MODEL, DATA).push(SPEECH[8000:])
    assert session.profile == "torch-float32-cpu"
    assert "profile onnx-float32-cpu goes on as torch-float32-cpu" in caplog.text


def test_another_version_is_refused():
    assert "version '1', but this session has '5'" in refuse(with_header(version="1"))


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_rate": "fast"},
        {"sample_rate": "1"},
        {"sample_rate": "44100"},  # its arrays have other shapes
        {"lookahead_ms": "100"},
        {"lookahead_ms": ""},
    ],
)
def test_a_header_that_makes_no_session_is_refused(changes):
    refuse(with_header(**changes))


@pytest.mark.parametrize("key", ["model", "profile", "sample_rate", "lookahead_ms"])
def test_a_header_without_a_key_is_refused(key):
    fields = {name: value for name, value in HEADER.items() if name != key}
    assert key in refuse(pack(ARRAYS, fields))


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_a_missing_array_is_refused(name):
    rest = {key: array for key, array in ARRAYS.items() if key != name}
    assert name in refuse(pack(rest, HEADER))


def test_an_unknown_array_is_refused():
    assert "['extra']" in refuse(pack(ARRAYS | {"extra": np.zeros(1)}, HEADER))


@pytest.mark.parametrize("name", ["network.upper.0.ssm", "decoder.word", "buffer.rest", "counters"])
def test_an_array_of_another_shape_is_refused(name):
    array = ARRAYS[name]
    assert f"['{name}']" in refuse(pack(ARRAYS | {name: array[..., :-1]}, HEADER))


@pytest.mark.parametrize("name", ["network.upper.0.ssm", "decoder.frame", "counters"])
def test_an_array_of_another_type_is_refused(name):
    array = ARRAYS[name].astype(np.float64)
    assert f"['{name}']" in refuse(pack(ARRAYS | {name: array}, HEADER))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(size=st.integers(0, len(DATA) - 1))
@example(size=0)
@example(size=8)
@example(size=len(DATA) - 1)
@example(size=len(DATA) - 32)
def test_bytes_that_were_cut_short_are_refused(size):
    refuse(DATA[:size])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(place=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused(place, bit):
    damaged = bytearray(DATA)
    damaged[place] ^= 1 << bit
    refuse(bytes(damaged))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(junk=st.binary(max_size=200))
@example(junk=b"")
@example(junk=(2).to_bytes(8, "little") + b"{}")
@example(junk=(2).to_bytes(8, "little") + b"[]")
@example(junk=(19).to_bytes(8, "little") + b'{"__metadata__": 5}')
@example(junk=(38).to_bytes(8, "little") + b'{"__metadata__":{"audiossm-session":1}}')
@example(junk=(9999).to_bytes(8, "little") + b"[" * 9999)
@example(junk=b"RIFF$\x00\x00\x00WAVEfmt ")
def test_junk_is_refused(junk):
    assert "no session snapshot" in refuse(junk)
    refuse(DATA + junk) if junk else None
    refuse(junk + DATA) if junk else None


def test_a_model_file_is_no_snapshot(tmp_path):
    from safetensors.torch import save

    assert "no session snapshot" in refuse(save({"w": torch.zeros(3)}, {"format": "pt"}))


def test_a_session_that_could_not_be_restored_leaves_the_model_usable():
    expected = MODEL.session().push(SPEECH)
    refuse(DATA[:-1])
    assert MODEL.session().push(SPEECH) == expected
