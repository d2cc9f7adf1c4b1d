"""What is written can be read again, and failures leave nothing behind."""

import io

import numpy as np
import pytest

from audiossm.audio import open_audio, write_audio
from audiossm.audio.container import ContainerStream
from audiossm.errors import OutputError, ShapeError


def make_tone(channels: int = 1, samples: int = 16000, rate: int = 16000) -> np.ndarray:
    time = np.arange(samples) / rate
    tones = [0.4 * np.sin(2 * np.pi * 220 * (i + 1) * time) for i in range(channels)]
    return np.stack(tones).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".FLAC"])
def test_lossless_files_keep_16_bits(tmp_path, suffix):
    tone = make_tone(2)
    write_audio(tmp_path / f"tone{suffix}", tone, 16000)
    with open_audio(tmp_path / f"tone{suffix}") as reader:
        assert (reader.sample_rate, reader.channels, reader.num_samples) == (16000, 2, 16000)
        np.testing.assert_allclose(reader.read(99999), tone, atol=2**-15)


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_lossy_files_keep_the_length_and_the_tone(tmp_path, suffix):
    tone = make_tone()
    write_audio(tmp_path / f"tone{suffix}", tone, 16000)
    with open_audio(tmp_path / f"tone{suffix}") as reader:
        audio = reader.read(99999)
    assert audio.shape == tone.shape
    assert np.abs(np.fft.rfft(audio[0])).argmax() == 220


def test_values_out_of_range_are_clipped(tmp_path):
    write_audio(tmp_path / "loud.wav", np.array([[3.0, -3.0, 0.5]], np.float32), 8000)
    with open_audio(tmp_path / "loud.wav") as reader:
        np.testing.assert_allclose(reader.read(9), [[1.0, -1.0, 0.5]], atol=2**-14)


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(b"old")
    write_audio(path, make_tone(samples=100), 16000)
    with open_audio(path) as reader:
        assert reader.num_samples == 100
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("tone.xyz", 16000, r"tone\.xyz: can't write '\.xyz'; expected one of \.wav, \.flac"),
        ("tone", 16000, "file without suffix"),
        ("missing/tone.wav", 16000, "No such file or directory"),
        ("tone.opus", 44100, "1 channels at 44100 Hz can't be written"),
    ],
)
def test_what_cannot_be_written_is_one_clear_line(tmp_path, name, rate, message):
    with pytest.raises(OutputError, match=message) as caught:
        write_audio(tmp_path / name, make_tone(), rate)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "tone.opus"
    path.write_bytes(b"old")
    with pytest.raises(OutputError):
        write_audio(path, make_tone(), 44100)
    assert path.read_bytes() == b"old"


def test_wrong_values_and_shapes_are_refused(tmp_path):
    with pytest.raises(OutputError, match="NaN"):
        write_audio(tmp_path / "a.wav", np.full((1, 4), np.nan, np.float32), 16000)
    with pytest.raises(OutputError, match="no samples to write"):
        write_audio(tmp_path / "a.flac", np.zeros((1, 0), np.float32), 16000)
    with pytest.raises(ShapeError, match=r"\(4,\)"):
        write_audio(tmp_path / "a.wav", np.zeros(4, np.float32), 16000)


@pytest.mark.parametrize(("coding", "most_ms"), [("OPUS", 100), ("MPEG_LAYER_III", 100)])
def test_a_stream_gives_its_sound_while_it_is_written(coding, most_ms):
    form = {"OPUS": "OGG", "MPEG_LAYER_III": "MP3"}[coding]
    stream = ContainerStream(16000, file_format=form, coding=coding, comment="by a test")
    noise = np.random.default_rng(0).standard_normal((100, 320)).astype(np.float32) / 10
    head, *rest = (stream.write(block) for block in noise)
    assert b"by a test" in head or coding != "OPUS"
    gaps, gap = [], 0
    for data in rest:
        gap += 20
        if data:
            gaps.append(gap)
            gap = 0
    assert max(gaps) <= most_ms
    whole = head + b"".join(rest) + stream.finish()
    with open_audio(io.BytesIO(whole)) as reader:
        assert abs(reader.read(10**6).shape[1] / reader.sample_rate - 2.0) < 0.1
