"""Bad audio is one clear line, after the samples that are good."""

import io
import os
import struct

import numpy as np
import pytest

from audio_cases import (
    Pipe,
    encode,
    forget_length,
    make_audio,
    make_pipe,
    make_wav,
    read_until_error,
)
from audiossm.audio import open_audio
from audiossm.errors import AudioError

# What can't be opened


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"nowhere\.wav: no such file"):
        open_audio(tmp_path / "nowhere.wav")


def test_a_folder_is_not_audio(tmp_path):
    with pytest.raises(AudioError, match="is a folder; expected an audio file"):
        open_audio(tmp_path)


def test_a_file_without_permission_is_named(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(make_wav(bytes(8)))
    path.chmod(0)
    root = os.geteuid() == 0
    if root:  # root may read everything, so be somebody else for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(AudioError, match=r"secret\.wav: no permission to read it"):
            open_audio(path)
    finally:
        if root:
            os.seteuid(0)


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(AudioError, match="can't be opened"):
        open_audio("a\0b")
    with pytest.raises(AudioError, match="can't be opened"):
        open_audio("a" * 5000)


@pytest.mark.parametrize("raw_rate", [None, 16000])
def test_an_empty_file_is_empty(tmp_path, raw_rate):
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"empty\.wav: is empty \(0 bytes\)"):
        open_audio(tmp_path / "empty.wav", raw_rate=raw_rate)


def test_an_empty_pipe_is_empty():
    with pytest.raises(AudioError, match="audio stream: is empty"):
        open_audio(make_pipe(b""))
    _, error = read_until_error(open_audio(make_pipe(b""), raw_rate=16000))
    assert "no samples" in error


@pytest.mark.parametrize("data", [b"just some text\n" * 99, bytes(3000), b"RIFF", b"x"])
@pytest.mark.parametrize("live", [False, True])
def test_what_is_not_audio_is_refused(data, live):
    with pytest.raises(AudioError, match=r"notes\.txt: not audio that can be read") as caught:
        open_audio(make_pipe(data) if live else io.BytesIO(data), name="notes.txt")
    assert "\n" not in str(caught.value)


def test_text_is_not_bytes():
    with pytest.raises(AudioError, match="binary mode"):
        open_audio(io.StringIO("RIFF"))


def test_a_raw_file_needs_a_rate(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(100))
    with pytest.raises(AudioError, match="give their rate"):
        open_audio(tmp_path / "a.raw")


@pytest.mark.parametrize(("rate", "channels"), [(0, 1), (-8000, 1), (8000, 0)])
def test_a_raw_rate_is_positive(rate, channels):
    with pytest.raises(AudioError, match="expected both above 0"):
        open_audio(io.BytesIO(bytes(8)), raw_rate=rate, raw_channels=channels)


@pytest.mark.parametrize("file_format", ["WAV", "AIFF", "OGG"])
def test_a_header_without_samples_is_refused(file_format):
    coding = "VORBIS" if file_format == "OGG" else "PCM_16"
    data = encode(make_audio(0), 16000, file_format, coding)
    with pytest.raises(AudioError, match="has a header but no samples"):
        open_audio(io.BytesIO(data), name="silent")


def test_a_flac_that_stops_after_its_header_is_refused():
    data = encode(make_audio(4096), 16000, "FLAC")
    _, error = read_until_error(open_audio(io.BytesIO(data[:100])))
    assert "promises 0.26 s, but only 0.00 s can be read" in error
    _, error = read_until_error(open_audio(io.BytesIO(forget_length(data)[:42])))
    assert "has a header but no samples" in error


def test_a_pipe_without_samples_is_refused():
    _, error = read_until_error(open_audio(make_pipe(make_wav(b""))))
    assert error == "audio stream: has a header but no samples"
    listed = make_wav(b"", riff_size=50) + b"LIST" + struct.pack("<I", 4) + b"abcd"
    with pytest.raises(AudioError, match="has a header but no samples"):
        open_audio(io.BytesIO(listed))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_wav(bytes(100))[:30], "cut short"),
        (make_wav(bytes(100), channels=0, align=2), "0 channels"),
        (make_wav(bytes(100), rate=0), "at 0 Hz"),
        (make_wav(bytes(100), bits=40), "40-bit integer"),
        (make_wav(bytes(100), code=3, bits=16), "16-bit float"),
        (make_wav(bytes(100), channels=2, align=5), "in 5 bytes for 2 channels"),
        (b"RIFF0000WAVEdata" + struct.pack("<I", 8) + bytes(8), "no usable 'fmt ' chunk"),
        (make_wav(b"", before=b"JUNK" + struct.pack("<I", 1 << 30)), "before any audio"),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_a_senseless_wav_header_is_refused(data, message, live):
    with pytest.raises(AudioError, match=f"^odd.wav: .*{message}"):
        open_audio(make_pipe(data) if live else io.BytesIO(data), name="odd.wav")


# What breaks on the way: the good samples come first


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("block", [1, 1000, 10**6])
def test_a_wav_that_was_cut_off_gives_its_samples_and_then_fails(live, block):
    data = encode(make_audio(16000, 1))[: 44 + 2 * 12000 + 1]
    stream = make_pipe(data, 4096) if live else io.BytesIO(data)
    audio, error = read_until_error(open_audio(stream, name="part.wav"), block)
    np.testing.assert_allclose(audio, make_audio(16000, 1)[:, :12000], atol=2**-15)
    assert error.startswith("part.wav: cut off: the header promises 1.00 s, but only 0.75 s")


@pytest.mark.parametrize("block", [100, 10**6])
def test_a_flac_that_was_cut_off_gives_its_samples_and_then_fails(block):
    data = encode(make_audio(40000, 1), 16000, "FLAC")
    reader = open_audio(io.BytesIO(data[: len(data) * 6 // 10]), name="part.flac")
    audio, error = read_until_error(reader, block)
    assert 12000 < audio.shape[1] < 24000
    np.testing.assert_allclose(audio, make_audio(40000, 1)[:, : audio.shape[1]], atol=2**-15)
    assert f"but only {audio.shape[1] / 16000:.2f} s can be read" in error


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_an_ogg_that_was_cut_off_fails_at_its_end(coding):
    data = encode(make_audio(40000, 1), 16000, "OGG", coding)
    reader = open_audio(io.BytesIO(data[: len(data) * 6 // 10]), name="part.ogg")
    audio, error = read_until_error(reader)
    assert 4000 < audio.shape[1] < 30000
    assert "the last page is incomplete" in error


def test_an_mp3_that_was_cut_off_fails_at_its_end():
    data = encode(make_audio(40000, 1), 16000, "MP3", "MPEG_LAYER_III")
    reader = open_audio(io.BytesIO(data[: len(data) // 2]), name="part.mp3")
    audio, error = read_until_error(reader)
    assert 10000 < audio.shape[1] < 30000
    assert "part.mp3: cut off" in error


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("block", [1, 640, 10**6])
def test_a_sample_that_is_no_number_is_placed(bad, block):
    audio = make_audio(4000).astype(np.float64)
    audio[1, 3000] = bad
    reader = open_audio(io.BytesIO(encode(audio, 16000, "WAV", "DOUBLE")), name="bad.wav")
    got, error = read_until_error(reader, block)
    np.testing.assert_array_equal(got, make_audio(4000)[:, :3000])
    assert error.startswith("bad.wav: the sample at 0.188 s is NaN or infinite")


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_a_byte_left_over_fails_after_the_samples(live, block):
    body = np.arange(10, dtype="<i2").tobytes() + b"\x01"
    stream = make_pipe(body) if live else io.BytesIO(body)
    audio, error = read_until_error(open_audio(stream, raw_rate=10, name="mic"), block)
    np.testing.assert_array_equal(audio[0] * 32768, np.arange(10))
    assert error.startswith("mic: only 1.00 s can be read: 1 byte is left over at the end")


@pytest.mark.parametrize("block", [1, 640, 10**6])
def test_a_sample_that_would_drown_all_others_is_placed(block):
    audio = make_audio(4000)
    audio[0, 3000] = -2e4
    reader = open_audio(io.BytesIO(encode(audio, 16000, "WAV", "FLOAT")), name="loud.wav")
    got, error = read_until_error(reader, block)
    np.testing.assert_array_equal(got, make_audio(4000)[:, :3000])
    assert error == "loud.wav: the sample at 0.188 s is 2e+04, far outside [-1, 1]"


def test_a_disk_error_is_one_line():
    class Broken(Pipe):
        def readinto(self, buffer) -> int:
            if not self._data:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    stream = io.BufferedReader(Broken(make_wav(bytes(64), size=0)))
    audio, pieces = open_audio(stream, name="disk"), []
    with pytest.raises(AudioError, match="disk: reading fails after 0.00 s: Input/output error"):
        pieces.extend(audio.blocks(320))
    with pytest.raises(AudioError, match="disk: reading fails: Input/output error"):
        open_audio(io.BufferedReader(Broken(b"")), name="disk")
