"""Files of codes to samples: from any time, and past what is damaged."""

import io

import numpy as np
import pytest

from audiossm.audio import open_audio
from audiossm.checkpoint import model_names
from audiossm.codec import CodeReader, CodeWriter, open_codes
from audiossm.errors import AudioError, ModelError
from audiossm.streaming import AudioCodec, decode_stream, encode_stream
from tiny_model import SPEECH, read_speech
from toy_codec import make_audio_codec

CODEC = make_audio_codec()
AUDIO = read_speech()[np.newaxis, :40321]
CODES = CODEC.encode(AUDIO, num_groups=3)


def write_file(frames_per_block: int = 10, codes: np.ndarray = CODES.codes) -> bytes:
    stream = io.BytesIO()
    form = CODEC.describe(num_groups=codes.shape[1], frames_per_block=frames_per_block)
    writer = CodeWriter(stream, form)
    writer.write(codes)
    writer.finish(CODES.num_samples)
    return stream.getvalue()


def open_file(data: bytes) -> CodeReader:
    return open_codes(io.BytesIO(data), name="x")


def decode(reader: CodeReader, **kwargs) -> tuple[np.ndarray, str | None]:
    """The samples, and what was said of the damage."""
    pieces = [np.zeros((1, 0), np.float32)]
    try:
        for piece in decode_stream(reader, CODEC, **kwargs):
            assert piece.shape[1]
            pieces.append(piece)
    except AudioError as exc:
        return np.concatenate(pieces, axis=1), str(exc)
    return np.concatenate(pieces, axis=1), None


WHOLE = CODEC.decode(CODES)


@pytest.mark.parametrize("frames_per_block", [1, 10, 255])
def test_a_file_decodes_to_what_was_encoded(frames_per_block):
    seen = []
    samples, problem = decode(open_file(write_file(frames_per_block)), on_block=seen.append)
    assert samples.shape == AUDIO.shape and problem is None and sum(seen) == AUDIO.shape[1]
    np.testing.assert_allclose(samples, WHOLE, atol=1e-5)


@pytest.mark.parametrize(
    ("start", "num_samples"),
    [(0, 1), (0, 320), (1, 40320), (5000, 7001), (12345, None), (40000, 500), (40320, None)],
)
def test_any_part_is_that_part_of_the_whole(start, num_samples, monkeypatch):
    stop = None if num_samples is None else start + num_samples
    samples, problem = decode(open_file(write_file()), start=start, num_samples=num_samples)
    assert problem is None
    np.testing.assert_allclose(samples, WHOLE[:, start:stop], atol=1e-5)
    # beginning too near, a decoder that forgets slowly is a little wrong, but in its place
    monkeypatch.setattr("audiossm.streaming.code_files.WARM_UP", 30)
    near, problem = decode(open_file(write_file()), start=start, num_samples=num_samples)
    assert problem is None and near.shape == samples.shape
    assert np.abs(near - samples).max() < 0.3 * np.abs(WHOLE).max()


@pytest.mark.skipif("first-frames" not in model_names(), reason="the codec isn't there")
def test_the_shipped_codec_decodes_from_any_time_as_from_the_beginning():
    codec = AudioCodec.load("first-frames")
    audio = np.tile(read_speech(), 3)[np.newaxis, : 14 * 16000]
    codes = codec.encode(audio, num_groups=4)
    stream = io.BytesIO()
    writer = CodeWriter(stream, codes.form)
    writer.write(codes.codes)
    writer.finish(codes.num_samples)
    data = bytearray(stream.getvalue())
    data[100] ^= 1  # the first second, which isn't read
    reader = open_file(bytes(data))
    pieces = list(decode_stream(reader, codec, start=13 * 16000 + 77, num_samples=5000))
    whole = codec.decode(codes)[:, 13 * 16000 + 77 :][:, :5000]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=3e-5)


def test_a_part_reads_no_further_than_it_must():
    data = bytearray(write_file())
    data[-30] ^= 1  # in the last block
    assert decode(open_file(bytes(data)), start=3000, num_samples=4000)[1] is None


@pytest.mark.parametrize("start", [40321, 10**12])
def test_behind_the_end_there_is_no_sound(start):
    samples, problem = decode(open_file(write_file()), start=start)
    assert not samples.size
    assert problem == f"x: there is no sound at {start / 16000:.2f} s: it lasts 2.52 s"


def test_a_damaged_block_is_concealed_and_the_rest_is_in_time():
    data = bytearray(write_file())
    size = (len(data) - len(write_file(codes=CODES.codes[..., :0]))) // 13
    data[-13 - 8 * size] ^= 1
    samples, problem = decode(open_file(bytes(data)))
    assert problem.startswith("x: damaged from 1.0") or "damaged from 0.8" in problem
    assert samples.shape == AUDIO.shape
    lost = int(float(problem.split("from ")[1].split(" to")[0]) * 16000)
    np.testing.assert_allclose(samples[:, : lost - 240], WHOLE[:, : lost - 240], atol=1e-5)
    away = np.abs(samples - WHOLE)[0]
    assert away[lost : lost + 3200].max() > 1e-2
    assert away[-6000:].max() < 0.1 * np.abs(WHOLE).max()


def test_a_file_cut_short_gives_what_is_whole():
    data = write_file()
    for size in (len(data) - 1, len(data) - 14, len(data) - 300):
        samples, problem = decode(open_file(data[:size]))
        assert "cut short after" in problem
        whole = round(float(problem.split("after ")[1].split(" s")[0]) * 16000) - 240
        assert samples.shape[1] == whole
        shared = min(whole, AUDIO.shape[1])
        np.testing.assert_allclose(samples[:, :shared], WHOLE[:, :shared], atol=1e-5)
    samples, problem = decode(open_file(write_file(codes=CODES.codes[..., :0])[:-1]))
    assert not samples.size and "cut short after 0.00 s" in problem


def test_codes_of_another_codec_are_refused():
    with pytest.raises(ModelError, match="made by codec 'toy' with codes of hash"):
        next(decode_stream(open_file(write_file()), make_audio_codec(4)))


@pytest.mark.parametrize("block_s", [0.001, 0.37, 20.0])
def test_a_recording_is_encoded_in_blocks_of_any_size(block_s):
    whole = CODEC.encode(SPEECH / "stereo-44100.flac")
    assert whole.form.channels == 2
    seen = []
    with open_audio(SPEECH / "stereo-44100.flac") as reader:
        session = CODEC.encoder_session(sample_rate=44100, channels=2, frames_per_step=50)
        pieces = list(encode_stream(reader, session, block_s=block_s, on_block=seen.append))
        assert sum(seen) == reader.num_samples
    assert np.array_equal(np.concatenate(pieces, axis=2), whole.codes)
    assert session.num_samples == whole.num_samples == 62720


def test_what_was_encoded_before_damage_comes_before_the_error():
    class Broken:
        sample_rate, channels, left = 16000, 1, 3

        def read(self, max_samples: int) -> np.ndarray:
            if not self.left:
                raise AudioError("broken")
            self.left -= 1
            return AUDIO[:, 1000 * (2 - self.left) : 1000 * (3 - self.left)]

    session, pieces = CODEC.encoder_session(), []
    with pytest.raises(AudioError, match="broken"):
        for codes in encode_stream(Broken(), session):
            pieces.append(codes)
    assert session.finished and session.num_samples == 3000
    whole = CODEC.encode(AUDIO[:, :3000])
    assert np.array_equal(np.concatenate(pieces, axis=2), whole.codes)
