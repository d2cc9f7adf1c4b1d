"""Opus over a wire: cut anywhere it is what libsndfile and FFmpeg read; it goes on at a packet."""

import io
from functools import cache

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.audio import open_audio, resample
from audiossm.audio.opus import PREROLL_S, OpusStream
from audiossm.audio.packets import num_packet_samples
from audiossm.errors import AudioError
from tiny_model import SPEECH as FOLDER

av = pytest.importorskip("av")
RATE = 48000


@cache
def read_speech() -> np.ndarray:
    import torch

    samples, rate = soundfile.read(FOLDER / "river.flac", dtype="float32")
    return resample(torch.from_numpy(samples[:48000]).unsqueeze(0), rate, RATE)[0].numpy()


@cache
def make_ogg(channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([read_speech()] * channels, 1), RATE, "OPUS", format="OGG")
    return file.getvalue()


@cache
def make_webm(live: bool = True) -> bytes:
    """Write WebM as a browser's recorder does: clusters and a segment without a length."""
    file = io.BytesIO()
    options = {"live": "1", "cluster_time_limit": "300"} if live else {}
    with av.open(file, "w", format="webm", options=options) as container:
        track = container.add_stream("libopus", rate=RATE, layout="mono")
        whole = np.int16(np.clip(read_speech(), -1, 1) * 32767)[None]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate = RATE
        for part in (frame, None):
            for packet in track.encode(part):
                container.mux(packet)
    return file.getvalue()


def decode(data: bytes, size: int | None = None, position: int = 0) -> np.ndarray:
    stream, parts = OpusStream(position), [np.zeros(0, np.float32)]
    for at in range(0, len(data), size or len(data)):
        parts += stream.push(data[at : at + (size or len(data))])
    return np.concatenate(parts)


def read_whole(data: bytes) -> np.ndarray:
    with open_audio(io.BytesIO(data)) as reader:
        return reader.read(10**9).mean(axis=0)


def ogg_pages(data: bytes) -> list[bytes]:
    pages = []
    while data:
        size = 27 + data[26] + sum(data[27 : 27 + data[26]])
        pages.append(data[:size])
        data = data[size:]
    return pages


def webm_parts(data: bytes) -> list[bytes]:
    """The head and the clusters."""
    mark = b"\x1f\x43\xb6\x75"
    head, *clusters = data.split(mark)
    return [head, *(mark + cluster for cluster in clusters)]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [1, 100, 4001, None])
def test_ogg_cut_anywhere_is_what_libsndfile_reads(size, channels):
    data = make_ogg(channels)
    whole = read_whole(data)
    found = decode(data, size)
    assert len(found) == len(whole) == len(read_speech())
    assert np.abs(found - whole).max() < 1e-4
    assert np.corrcoef(found, read_speech())[0, 1] > 0.9


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("size", [1, 777, None])
def test_webm_cut_anywhere_is_what_ffmpeg_reads(size, live):
    data = make_webm(live)
    whole, found = read_whole(data), decode(data, size)
    # what the encoder added at the end is heard, too
    assert 0 <= len(found) - len(whole) < 960
    assert np.abs(found[: len(whole)] - whole).max() < 1e-4


@pytest.mark.parametrize("kind", ["ogg", "webm"])
@pytest.mark.parametrize("position", [30_001, 96_000, 143_000])
def test_a_stream_goes_on_from_packets_before(kind, position):
    """The decoder needs some sound before; after that it is near one that heard all."""
    straight = decode(make_ogg() if kind == "ogg" else make_webm())
    head, *parts = (
        [b"".join(ogg_pages(make_ogg())[:2]), *ogg_pages(make_ogg())[2:]]
        if kind == "ogg"
        else webm_parts(make_webm())
    )
    found = None
    for first in range(len(parts) - 1, -1, -1):  # as late as it can be
        try:
            found = decode(head + b"".join(parts[first:]), position=position)
        except AudioError as exc:
            assert "stands at" in str(exc)
            continue
        if found is not None:
            begin = max(0, first - 1)  # one more part is enough for the pre-roll
            found = decode(head + b"".join(parts[begin:]), position=position)
            break
    assert found is not None
    late = len(found) - (len(straight) - position)  # FFmpeg's WebM begins at 7 ms
    assert late == 0 if kind == "ogg" else abs(late) <= 0.01 * RATE
    near = np.abs(found - straight[position - late :])
    assert near.max() < 0.05 and near.mean() < 2e-3
    assert PREROLL_S == 0.08


def test_packets_that_begin_after_the_position_leave_a_hole_and_are_refused():
    pages = ogg_pages(make_ogg())
    with pytest.raises(AudioError, match="begin at sample .* stands at 1$"):
        decode(b"".join([*pages[:2], pages[-1]]), position=1)


def test_lengths_of_packets():
    # RFC 6716, table 2: SILK of 60 ms, hybrid of 10 ms, CELT of 2.5 ms; one, two and six frames
    assert num_packet_samples(bytes([3 << 3])) == 2880
    assert num_packet_samples(bytes([12 << 3 | 1])) == 960
    assert num_packet_samples(bytes([16 << 3 | 3, 6])) == 720
    for packet in (b"", bytes([3]), bytes([3, 0]), bytes([3 << 3 | 3, 3])):
        with pytest.raises(AudioError):
            num_packet_samples(packet)


def spoil(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"RIFF....", "neither Ogg nor WebM"),
        (spoil(make_ogg(), 600, 1), "damaged"),
        (make_ogg()[:200] + make_ogg()[300:], "damaged"),
        (make_ogg() + make_ogg(), "goes on after its end|another stream"),
        (make_webm().replace(b"A_OPUS", b"A_PCMx"), "no track of Opus"),
    ],
)
def test_what_is_damaged_or_something_else_is_said(data, said):
    with pytest.raises(AudioError, match=said):
        decode(data)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(["ogg", "webm"]), st.integers(0, 5000), st.binary(max_size=8), st.booleans())
def test_any_bytes_are_samples_or_an_audio_error(kind, at, junk, inside):
    data = (make_ogg() if kind == "ogg" else make_webm())[:6000]
    data = data[:at] + junk + data[at + (len(junk) if inside else 0) :]
    try:
        found = decode(data, 999)
    except AudioError as exc:
        assert str(exc)
    else:
        assert np.isfinite(found).all() and len(found) < 10 * RATE


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from([b"OggS", b"\x1a\x45\xdf\xa3"]), st.binary(max_size=80))
def test_junk_after_a_begin_is_an_audio_error_or_waits(begin, junk):
    try:
        decode(begin + junk)
    except AudioError as exc:
        assert str(exc)
