"""Bytes to samples and back; G.711 against its published values and libsndfile."""

import io

import numpy as np
import pytest
import soundfile

from audiossm.errors import ProtocolError
from audiossm.protocol import ENCODINGS, decode_samples, encode_samples


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_was_decoded_is_encoded_as_it_was(encoding):
    data = np.arange(256, dtype=np.uint8).tobytes()
    if encoding == "f32":
        data = np.linspace(-1, 1, 99, dtype=np.float32).tobytes()
    samples = decode_samples(data, encoding)
    assert samples.dtype == np.float32 and np.abs(samples).max() <= 1
    again = encode_samples(samples, encoding)
    if encoding == "mulaw":
        again = again.replace(b"\x7f", b"\xff")  # it has two zeros
        data = data.replace(b"\x7f", b"\xff")
    assert again == data


@pytest.mark.parametrize(("encoding", "name"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_is_what_libsndfile_has(encoding, name):
    data = bytes(range(256))
    raw = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": name}
    theirs, _ = soundfile.read(io.BytesIO(data), dtype="int16", **raw)
    np.testing.assert_array_equal(decode_samples(data, encoding) * 32768, theirs)


def test_g711_takes_the_nearest_value():
    wave = np.linspace(-1.2, 1.2, 5001)
    for encoding in ("mulaw", "alaw"):
        levels = np.sort(decode_samples(bytes(range(256)), encoding))
        found = decode_samples(encode_samples(wave, encoding), encoding)
        best = np.abs(levels[None] - np.clip(wave, -1, 1)[:, None]).min(1)
        inside = np.abs(wave) < 0.98
        np.testing.assert_allclose(np.abs(found - wave)[inside], best[inside], atol=4e-5)


def test_16_bits_are_clipped_and_not_turned_over():
    assert encode_samples(np.array([1.5, -1.5, 1.0]), "s16") == b"\xff\x7f\x00\x80\xff\x7f"


@pytest.mark.parametrize(("encoding", "size"), [("s16", 3), ("f32", 6)])
def test_halves_of_samples_are_refused(encoding, size):
    with pytest.raises(ProtocolError, match="not whole samples"):
        decode_samples(bytes(size), encoding)
    assert len(decode_samples(b"", encoding)) == 0
