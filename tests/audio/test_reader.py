"""Audio comes in as it is, in pieces of any size."""

import io
import json
import os
import struct
import sys
import tarfile
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch

from audio_cases import encode, forget_length, make_audio, make_pipe, make_wav, read_all
from audiossm.audio import mix, open_audio
from audiossm.errors import AudioError, ShapeError
from contract import assert_streaming_equals_offline


class _Place(NamedTuple):
    sample: torch.Tensor


class _ReaderLayer:
    """A reader as a streaming layer: the input only says how many samples to read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def init_state(self, batch: int) -> _Place:
        return _Place(torch.zeros(batch, dtype=torch.int64))

    def step(self, x: torch.Tensor, state: _Place) -> tuple[torch.Tensor, _Place]:
        with open_audio(self.path) as reader:
            reader.seek(int(state.sample[0]))
            y = torch.from_numpy(reader.read(x.shape[1]).copy())
        return y[:1], _Place(state.sample + x.shape[1])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(read_all(open_audio(self.path), x.shape[1])[:1])


@pytest.mark.parametrize(
    ("file_format", "coding"),
    [("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")],
)
def test_any_chunking_gives_the_offline_result(tmp_path, file_format, coding):
    path = tmp_path / "clip.bin"
    path.write_bytes(encode(make_audio(331), 16000, file_format, coding))
    with open_audio(path) as reader:
        samples = reader.num_samples
    atol = 1e-3 if file_format == "MP3" else 1e-5  # a seek starts the MP3 filter bank anew
    assert_streaming_equals_offline(
        _ReaderLayer(path), torch.zeros(1, samples), trials=3, atol=atol
    )


@pytest.mark.parametrize(
    ("file_format", "coding"),
    [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
)
def test_any_block_size_gives_the_same_samples(file_format, coding):
    data = encode(make_audio(9001), 16000, file_format, coding)
    whole = read_all(open_audio(io.BytesIO(data)), 10**6)
    for block in (1, 320, 4095, 4097):
        part = whole.shape[1] if block > 1 else 700
        with open_audio(io.BytesIO(data)) as reader:
            pieces = []
            while sum(piece.shape[1] for piece in pieces) < part:
                pieces.append(reader.read(block))
        assert {piece.shape[1] for piece in pieces[:-1]} <= {block}
        joined = np.concatenate(pieces, axis=1)
        assert np.array_equal(joined, whole[:, : joined.shape[1]])


@pytest.mark.parametrize("coding", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("file_format", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("live", [False, True])
def test_every_wav_coding_equals_libsndfile(coding, file_format, live):
    data = encode(make_audio(1001), 44100, file_format, coding)
    expected = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    reader = open_audio(make_pipe(data) if live else io.BytesIO(data))
    assert (reader.sample_rate, reader.channels, reader.num_samples) == (44100, 2, 1001)
    assert np.array_equal(read_all(reader), expected)


@pytest.mark.parametrize("coding", ["ULAW", "ALAW", "IMA_ADPCM"])
@pytest.mark.parametrize("live", [False, True])
def test_other_wav_codings_go_through_libsndfile(coding, live):
    data = encode(make_audio(1001, 1), 8000, "WAV", coding)
    expected = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    reader = open_audio(make_pipe(data) if live else io.BytesIO(data))
    assert np.array_equal(read_all(reader), expected)


@pytest.mark.parametrize(("file_format", "coding"), [("FLAC", "PCM_16"), ("OGG", "OPUS")])
def test_other_formats_come_through_a_pipe_too(file_format, coding):
    data = encode(make_audio(), 16000, file_format, coding)
    piped = read_all(open_audio(make_pipe(data, 1000)))
    assert np.array_equal(piped, read_all(open_audio(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("rate", "channels", "samples"), [(16000, 1, 1), (192000, 1, 500), (48000, 8, 500)]
)
def test_unusual_but_good_audio_simply_works(tmp_path, rate, channels, samples):
    audio = make_audio(samples, channels)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, audio.T, rate, subtype="PCM_24")
        with open_audio(str(tmp_path / name)) as reader:
            assert (reader.sample_rate, reader.channels) == (rate, channels)
            np.testing.assert_allclose(reader.read(9999), audio, atol=2**-22)
            assert reader.read(1).shape == (channels, 0)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_pipe_of_unknown_length_goes_to_its_end(size):
    body = np.arange(-50, 50, dtype="<i2").tobytes()
    junk = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    data = make_wav(body, size=size, before=junk)
    reader = open_audio(make_pipe(data))
    assert reader.num_samples is None
    np.testing.assert_array_equal(read_all(reader)[0] * 32768, np.arange(-50, 50))
    if size in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        with open_audio(io.BytesIO(data)) as reader:
            assert reader.num_samples == 100


@pytest.mark.parametrize("live", [False, True])
def test_a_flac_that_does_not_know_its_length_is_read_to_its_end(live):
    data = forget_length(encode(make_audio(9001), 16000, "FLAC"))
    reader = open_audio(make_pipe(data, 1000) if live else io.BytesIO(data))
    assert reader.num_samples is None
    np.testing.assert_allclose(read_all(reader, 777), make_audio(9001), atol=2**-15)


def test_chunks_after_the_samples_are_not_samples():
    data = make_wav(bytes(200)) + b"LIST" + struct.pack("<I", 4) + b"abcd"
    for stream in (io.BytesIO(data), make_pipe(data)):
        assert read_all(open_audio(stream)).shape == (1, 100)


def test_a_live_pipe_gives_samples_as_soon_as_they_come(monkeypatch):
    into, out = os.pipe()
    samples = np.arange(1, 33, dtype="<i2")
    with open(into, "rb") as end, open(out, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(end))
        writer.write(make_wav(samples.tobytes(), size=0xFFFFFFFF))
        with open_audio("-") as reader:
            assert reader.name == "standard input"
            np.testing.assert_array_equal(reader.read(320)[0] * 32768, samples)
            writer.write(samples[:3].tobytes() + b"\x04")
            np.testing.assert_array_equal(reader.read(320)[0] * 32768, samples[:3])
            writer.write(b"\x00" + samples[4:6].tobytes())
            np.testing.assert_array_equal(reader.read(320)[0] * 32768, samples[3:6])
            writer.close()
            assert reader.read(320).shape == (1, 0)


def test_a_named_pipe_is_read_live(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    data = make_wav(bytes(64), size=0)
    thread = threading.Thread(target=path.write_bytes, args=(data,))
    thread.start()
    reader = open_audio(path)
    assert reader.num_samples is None
    assert read_all(reader).shape == (1, 32)
    thread.join()


@pytest.mark.parametrize("live", [False, True])
def test_raw_samples_have_the_given_rate(live):
    body = np.arange(-6, 6, dtype="<i2").tobytes()
    reader = open_audio(
        make_pipe(body) if live else io.BytesIO(body), raw_rate=8000, raw_channels=2
    )
    assert (reader.sample_rate, reader.channels) == (8000, 2)
    expected = np.arange(-6, 6).reshape(6, 2).T
    np.testing.assert_array_equal(read_all(reader, 4) * 32768, expected)


def test_a_member_of_a_tar_file_is_read_in_place(tmp_path):
    data = encode(make_audio(), 16000, "FLAC")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        entry = tarfile.TarInfo("clip.flac")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    with tarfile.open(tmp_path / "set.tar") as tar:
        member = tar.extractfile("clip.flac")
        reader = open_audio(member, name="set.tar:clip.flac")
        assert reader.name == "set.tar:clip.flac"
        np.testing.assert_allclose(read_all(reader), make_audio(), atol=2**-15)
        assert not member.closed


def test_the_committed_speech_is_what_its_manifest_says():
    speech = Path(__file__).parents[1] / "speech"
    lines = [json.loads(line) for line in (speech / "manifest.jsonl").read_text().splitlines()]
    assert {line["path"] for line in lines} == {path.name for path in speech.glob("*.flac")}
    for line in lines:
        with open_audio(speech / line["path"]) as reader:
            audio = reader.read(10**6)
        assert audio.shape[1] / reader.sample_rate == pytest.approx(line["seconds"], abs=1e-3)
        assert np.abs(audio).max() == pytest.approx(0.7, abs=1e-3)


def test_a_file_can_be_read_from_any_sample():
    data = encode(make_audio(), 16000, "WAV", "FLOAT")
    with open_audio(io.BytesIO(data)) as reader:
        reader.read(100)
        reader.seek(3990)
        np.testing.assert_array_equal(reader.read(100), make_audio()[:, 3990:])
        reader.seek(0)
        np.testing.assert_array_equal(reader.read(5), make_audio()[:, :5])
        for sample in (-1, 4001):
            with pytest.raises(AudioError, match=f"no sample {sample}"):
                reader.seek(sample)
    with open_audio(make_pipe(data)) as reader, pytest.raises(AudioError, match="pipe"):
        reader.seek(0)


def test_a_block_has_at_least_one_sample():
    with (
        open_audio(io.BytesIO(make_wav(bytes(8)))) as reader,
        pytest.raises(AudioError, match="can't read 0 samples"),
    ):
        reader.read(0)


def test_a_caller_s_file_stays_open_and_ours_is_closed(tmp_path):
    (tmp_path / "a.wav").write_bytes(make_wav(bytes(8)))
    with open(tmp_path / "a.wav", "rb") as file:
        open_audio(file).close()
        assert not file.closed
    reader = open_audio(tmp_path / "a.wav")
    reader.close()
    with pytest.raises(ValueError, match="closed file"):
        reader.read(1)


def test_channels_are_averaged():
    audio = np.array([[0.5, -1.0], [0.25, 1.0], [0.0, 0.6]], np.float32)
    np.testing.assert_allclose(mix(audio), [0.25, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(mix(audio[:1]), audio[0])
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        mix(audio[0])


@pytest.mark.parametrize(
    ("file_format", "coding"),
    [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)],
)
def test_skipping_leads_to_the_very_samples_that_reading_does(file_format, coding):
    data = encode(make_audio(30000), 16000, file_format, coding)
    with open_audio(io.BytesIO(data)) as reader:
        reader.read(20000)
        expected = reader.read(999)
    with open_audio(io.BytesIO(data)) as reader:
        reader.read(500)
        reader.skip(19500)
        np.testing.assert_array_equal(reader.read(999), expected)
        with pytest.raises(AudioError):
            reader.skip(40000)
