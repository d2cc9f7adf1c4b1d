"""WAV as it comes: what is written is what other programs read."""

import io

import numpy as np
import pytest
import soundfile

from audiossm.audio import WavWriter, open_audio


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def write(stream: io.BytesIO, audio: np.ndarray, num_samples: int | None, step: int = 7) -> bytes:
    writer = WavWriter(stream, 16000, len(audio), num_samples)
    for at in range(0, audio.shape[1] + step, step):
        writer.write(audio[:, at : at + step])
    writer.finish()
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("promised", [None, 50, 40, 1 << 40])
def test_a_file_is_what_soundfile_reads(channels, promised):
    integers = np.random.default_rng(0).integers(-(2**15), 2**15, (channels, 50))
    data = write(io.BytesIO(), (integers / 2**15).astype(np.float32), promised)
    found, rate = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
    assert rate == 16000 and np.array_equal(found.T, integers)
    assert data == write(io.BytesIO(), (integers / 2**15).astype(np.float32), 50, step=50)


def test_a_pipe_of_unknown_length_is_read_to_its_end():
    audio = np.linspace(-1, 0.9, 33, dtype=np.float32)[np.newaxis]
    data = write(Pipe(), audio, None)
    with open_audio(Pipe(data)) as reader:
        assert reader.num_samples is None
        np.testing.assert_allclose(reader.read(99), audio, atol=2**-16)
    assert write(Pipe(), audio, 33) == write(io.BytesIO(), audio, None)


def test_what_is_too_loud_is_clipped_and_nothing_is_written_without_samples():
    audio = np.array([[-3.0, 3.0]], np.float32)
    data = write(io.BytesIO(), audio, None)
    assert data[44:] == b"\x00\x80\xff\x7f"
    assert write(io.BytesIO(), audio[:, :0], None) == b""
