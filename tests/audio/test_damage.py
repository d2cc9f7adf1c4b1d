"""Ogg and MP3 files that a decoder would cut short in silence: read whole, or told."""

import io
import struct

import numpy as np
import pytest
import soundfile

from audio_cases import encode, make_audio, make_pipe, read_all, read_until_error
from audiossm.audio import open_audio
from audiossm.audio.mp3 import scan_mp3
from audiossm.audio.ogg import find_ogg_damage
from audiossm.errors import AudioError

RATE = 16000


def sweep(samples: int = 48000) -> np.ndarray:
    """A tone that rises: what MP3 keeps well, and each moment is unlike the others."""
    time = np.arange(samples) / RATE
    return (0.5 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)[None]


def encode_mp3(audio: np.ndarray, mode: str = "VARIABLE") -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(
        file,
        "w",
        RATE,
        1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode=mode,
        compression_level=0.4,
    ) as writer:
        writer.write(audio.T)
    return file.getvalue()


def forget_header(mp3: bytes) -> bytes:
    """Drop the first frame, which holds the number of frames, as streaming encoders have none."""
    scan = scan_mp3(io.BytesIO(mp3))
    assert scan is not None and scan.declared is not None
    return mp3[scan.spans[0][0] :]


def find_pages(ogg: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(ogg):
        starts.append(at)
        segments = ogg[at + 27 : at + 27 + ogg[at + 26]]
        at += 27 + len(segments) + sum(segments)
    return starts


# MP3


@pytest.mark.parametrize("mode", ["VARIABLE", "AVERAGE", "CONSTANT"])
@pytest.mark.parametrize("live", [False, True])
def test_an_mp3_without_a_header_is_read_to_its_end(mode, live):
    quiet_end = np.concatenate([sweep(), np.zeros((1, 48000), np.float32), sweep()], axis=1)
    data = forget_header(encode_mp3(quiet_end, mode))
    audio = read_all(open_audio(make_pipe(data, 5000) if live else io.BytesIO(data)))
    delay = 576  # the encoder's, which only the header tells
    whole = read_all(open_audio(io.BytesIO(encode_mp3(quiet_end, mode))))
    assert whole.shape[1] == 144000
    np.testing.assert_allclose(audio[:, delay : delay + 144000], whole, atol=1e-3)


def test_joined_mp3_files_are_read_whole():
    data = encode_mp3(sweep())
    tags = b"TAG" + bytes(125) + b"ID3\4\0\0\0\0\0\x12" + b"\xff\xfb\x90\0 tag" + b"!" * 10
    audio = read_all(open_audio(io.BytesIO(data + tags + data)))
    assert audio.shape[1] / RATE == pytest.approx(6.0, abs=0.3)
    # the second copy sounds as the first does
    assert np.abs(audio[0, -40000:-20000]).mean() == pytest.approx(0.318, abs=0.01)


def test_an_mp3_with_a_hole_gives_what_is_left_and_then_fails():
    data = bytearray(encode_mp3(make_audio(48000, 1)))
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    audio, error = read_until_error(open_audio(io.BytesIO(bytes(data)), name="scratched.mp3"))
    assert 2.0 < audio.shape[1] / RATE < 3.0
    assert error.startswith(f"scratched.mp3: only {audio.shape[1] / RATE:.2f} s can be read: ")
    assert "are no audio: the file is damaged there" in error


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_a_cut_mp3_without_a_header_fails_at_its_end(mode):
    data = forget_header(encode_mp3(sweep(), mode))
    audio, error = read_until_error(open_audio(io.BytesIO(data[: len(data) // 2 + 100])))
    assert audio.shape[1] > 16000
    assert "the last frame is incomplete" in error


def test_a_cut_mp3_says_how_long_it_should_be():
    data = encode_mp3(sweep())
    _, error = read_until_error(open_audio(io.BytesIO(data[: len(data) // 2]), name="part.mp3"))
    assert error.startswith("part.mp3: cut off: the header promises 3.1")


def test_tags_and_padding_around_an_mp3_are_no_damage():
    data = encode_mp3(sweep())
    whole = read_all(open_audio(io.BytesIO(data)))
    before = b"ID3\4\0\0\0\0\2\0" + bytes(256)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 9000, 1, 0) + bytes(8 + 9000)
    after = ape + bytes(500) + b"TAG" + bytes(125)
    for changed in (before + data, data + after, before + data + after):
        np.testing.assert_array_equal(read_all(open_audio(io.BytesIO(changed))), whole)


def test_much_that_is_no_audio_behind_an_mp3_is_told():
    data = forget_header(encode_mp3(sweep()))
    _, error = read_until_error(open_audio(io.BytesIO(data + bytes(20000))))
    assert "the last 20000 bytes are no audio" in error


@pytest.mark.parametrize("size", [16, 24, 100])
def test_an_mp3_that_stops_within_its_header_is_refused_in_a_line(size):
    with pytest.raises(AudioError, match=r"not audio that can be read \(File is malformed\)"):
        open_audio(io.BytesIO(encode_mp3(sweep())[:size]))


# Ogg


@pytest.fixture(params=["OPUS", "VORBIS"])
def ogg(request) -> bytes:
    return encode(make_audio(64000, 1), RATE, "OGG", request.param)


def test_a_whole_ogg_has_no_damage(ogg):
    assert find_ogg_damage(io.BytesIO(ogg)) is None
    assert find_ogg_damage(io.BytesIO(ogg + b"TAG" + bytes(125))) is None
    assert read_all(open_audio(io.BytesIO(ogg))).shape[1] == 64000


def test_a_time_stamp_that_jumps_is_no_damage():
    # as some recorders write it: the decoder gives a little less than the last stamp promises
    data = bytearray(encode(make_audio(64000, 1), RATE, "OGG", "OPUS"))
    *_, early, last = find_pages(data)
    for page in (early, last):
        (stamp,) = struct.unpack_from("<q", data, page + 6)
        struct.pack_into("<q", data, page + 6, stamp + 488)
        fix_checksum(data, page)
    audio = read_all(open_audio(io.BytesIO(bytes(data))))
    assert 63000 < audio.shape[1] <= 64000 + 488 // 3 + 1


def fix_checksum(ogg: bytearray, page: int) -> None:
    """Write a page's CRC-32 again, bit by bit as RFC 3533 has it."""
    segments = ogg[page + 27 : page + 27 + ogg[page + 26]]
    ogg[page + 22 : page + 26] = bytes(4)
    remainder = 0
    for byte in ogg[page : page + 27 + len(segments) + sum(segments)]:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = remainder << 1 ^ (0x104C11DB7 if remainder >> 31 else 0)
    struct.pack_into("<I", ogg, page + 22, remainder)


def test_an_ogg_cut_between_two_pages_is_told(ogg):
    audio, error = read_until_error(open_audio(io.BytesIO(ogg[: find_pages(ogg)[-1]])))
    assert audio.shape[1] > 16000
    assert "the last page is missing" in error


def test_an_ogg_that_lost_a_page_is_told(ogg):
    *_, early, last = find_pages(ogg)
    audio, error = read_until_error(open_audio(io.BytesIO(ogg[:early] + ogg[last:])))
    assert audio.shape[1] > 0
    assert "pages are missing in the middle" in error


def test_an_ogg_with_a_changed_byte_is_told(ogg):
    data = bytearray(ogg)
    data[(find_pages(ogg)[-2] + find_pages(ogg)[-1]) // 2] ^= 1
    _, error = read_until_error(open_audio(io.BytesIO(bytes(data))))
    assert "checksum is wrong" in error


def test_an_ogg_with_a_hole_is_told(ogg):
    data = bytearray(ogg)
    page = find_pages(ogg)[-2]
    data[page : page + 100] = bytes(100)
    assert find_ogg_damage(io.BytesIO(bytes(data))) == (
        "a page is missing or damaged: is the copy or download faulty?"
    )


def test_joined_ogg_files_are_told(ogg):
    audio, error = read_until_error(open_audio(io.BytesIO(ogg + ogg), name="two.ogg"))
    assert audio.shape[1] == 64000
    assert error.startswith("two.ogg: only 4.00 s can be read: another stream follows")
