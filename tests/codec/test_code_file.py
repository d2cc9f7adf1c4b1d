"""Files of codes: what is written is read, what is damaged is told, junk is refused in a line."""

import dataclasses
import io
import random
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.codec import (
    CodeFormat,
    CodeReader,
    Codes,
    CodeWriter,
    open_codes,
    read_codes,
    write_codes,
)
from audiossm.errors import AudioError, AudioSSMError, OutputError, ShapeError

FORM = CodeFormat(
    model="toy",
    codes_hash="00112233445566778899aabbccddeeff",
    sample_rate=16000,
    frame_size=320,
    num_codes=1000,
    channels=2,
    num_groups=3,
    frames_per_block=5,
)


class Pipe(io.RawIOBase):
    """Bytes that come a few at a time and can't be sought."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        piece, self.data = self.data[: min(7, len(buffer))], self.data[min(7, len(buffer)) :]
        buffer[: len(piece)] = piece
        return len(piece)


def make_codes(num_frames: int, form: CodeFormat = FORM, seed: int = 0) -> np.ndarray:
    shape = form.channels, form.num_groups, num_frames
    return np.random.default_rng(seed).integers(0, form.num_codes, shape)


def write(
    codes: np.ndarray,
    form: CodeFormat = FORM,
    num_samples: int | None = None,
    comment: str | None = None,
) -> bytes:
    stream = io.BytesIO()
    writer = CodeWriter(stream, form, comment=comment)
    writer.write(codes)
    writer.finish(codes.shape[2] * form.frame_size if num_samples is None else num_samples)
    return stream.getvalue()


def read(data: bytes, pipe: bool = False) -> tuple[np.ndarray, list[bool], CodeReader]:
    """All codes, whether each frame is lost, and the reader."""
    reader = open_codes(io.BufferedReader(Pipe(data)) if pipe else io.BytesIO(data), name="x")
    blocks = list(reader)
    lost = [block.lost for block in blocks for _ in range(block.codes.shape[2])]
    empty = np.zeros((reader.form.channels, reader.form.num_groups, 0), np.int64)
    assert reader.read() is None
    return np.concatenate([empty, *(block.codes for block in blocks)], axis=2), lost, reader


HEADER = len(write(make_codes(0))) - 13
FULL = 1 + 38 + 4  # 5 frames of 6 codes of 10 bits


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 16, 1000, 1024, 1025, 65536]),
    st.integers(1, 255),
    st.integers(0, 300),
    st.booleans(),
)
def test_what_is_written_is_read(channels, groups, num_codes, per_block, num_frames, pipe):
    form = CodeFormat(
        model="näme",
        codes_hash=FORM.codes_hash,
        sample_rate=8000,
        frame_size=160,
        num_codes=num_codes,
        channels=channels,
        num_groups=groups,
        frames_per_block=per_block,
    )
    codes = make_codes(num_frames, form)
    found, lost, reader = read(write(codes, form, num_samples=12345), pipe)
    assert np.array_equal(found, codes) and found.dtype == np.int64 and not any(lost)
    assert (reader.form, reader.num_samples, reader.problem) == (form, 12345, None)


@given(st.lists(st.integers(0, 12), max_size=6))
def test_the_bytes_do_not_depend_on_the_pieces(sizes):
    codes = make_codes(sum(sizes))
    stream = io.BytesIO()
    writer = CodeWriter(stream, FORM)
    for start, end in pairwise(np.cumsum([0, *sizes])):
        writer.write(codes[..., start:end])
    writer.finish(sum(sizes) * 320)
    assert stream.getvalue() == write(codes)


def test_blocks_go_out_as_soon_as_they_are_whole_and_nothing_before():
    stream = io.BytesIO()
    writer = CodeWriter(stream, FORM)
    writer.write(make_codes(4))
    assert not stream.getvalue()
    writer.write(make_codes(1))
    assert len(stream.getvalue()) == HEADER + FULL


def test_a_file_has_the_size_that_its_module_says():
    form = dataclasses.replace(FORM, channels=1, num_groups=8, frames_per_block=50)
    assert form.bits_per_second == 4000
    ten_seconds = len(write(make_codes(500, form), form))
    assert ten_seconds == 5000 + 10 * 5 + HEADER + 13


def test_a_seekable_file_tells_its_length_at_once_and_a_pipe_at_its_end():
    data = write(make_codes(12), num_samples=3800)
    assert open_codes(io.BytesIO(data)).num_samples == 3800
    reader = open_codes(io.BufferedReader(Pipe(data)))
    assert reader.num_samples is None
    list(reader)
    assert reader.num_samples == 3800


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("num_frames", [0, 3, 5, 12, 15])
def test_any_frame_can_be_sought(num_frames, pipe):
    codes = make_codes(num_frames)
    data = write(codes)
    for frame in range(num_frames + 7):
        reader = open_codes(io.BufferedReader(Pipe(data)) if pipe else io.BytesIO(data))
        reader.seek(frame)
        first = reader.num_frames
        assert first <= frame and (first == num_frames // 5 * 5 or frame - first < 5)
        pieces = [block.codes for block in reader]
        found = np.concatenate(pieces, axis=2) if pieces else codes[..., :0]
        assert np.array_equal(found, codes[..., first:]) and reader.problem is None
        with pytest.raises(AudioError, match="read once, from the front"):
            reader.seek(0)


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("num_frames", [12, 15])
def test_a_file_cut_anywhere_gives_its_whole_blocks_and_says_where_it_ends(num_frames, pipe):
    codes = make_codes(num_frames)
    data = write(codes)
    for size in range(len(data)):
        if size < HEADER:
            with pytest.raises(AudioError, match=r"^x: (is empty|not a file of codes|the header)"):
                read(data[:size], pipe)
            continue
        found, lost, reader = read(data[:size], pipe)
        blocks = (size - HEADER) // FULL
        whole = num_frames if size >= len(data) - 13 else min(5 * blocks, num_frames)
        assert np.array_equal(found, codes[..., :whole]) and not any(lost), size
        assert reader.problem == (
            f"x: cut short after {whole * 0.02:.2f} s: is the copy or download incomplete?"
        )
        assert reader.num_samples is None


@pytest.mark.parametrize("pipe", [False, True])
def test_a_damaged_byte_costs_its_block_alone(pipe):
    codes = make_codes(17)
    data = write(codes, num_samples=5300)
    for at in range(HEADER, len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << at % 8
        found, lost, reader = read(bytes(bad), pipe)
        if at >= len(data) - 13:
            assert np.array_equal(found, codes) and not any(lost)
            assert reader.num_samples is None and "after 0.34 s" in reader.problem
            continue
        first = (at - HEADER) // FULL * 5
        last = min(first + 5, 17)
        assert lost == [first <= frame < last for frame in range(17)]
        kept = [frame for frame in range(17) if not lost[frame]]
        assert np.array_equal(found[..., kept], codes[..., kept])
        assert reader.num_samples == 5300
        assert reader.problem == f"x: damaged from {first * 0.02:.2f} to {last * 0.02:.2f} s"


def test_much_damage_is_still_one_line():
    bad = bytearray(write(make_codes(60)))
    for block in (0, 1, 3, 5, 7, 9):
        bad[HEADER + block * FULL + 9] ^= 1
    *_, reader = read(bytes(bad[:-20]))
    assert reader.problem == (
        "x: damaged from 0.00 to 0.20 s, 0.30 to 0.40 s, 0.50 to 0.60 s and in 2 more places; "
        "cut short after 1.10 s: is the copy or download incomplete?"
    )


def test_blocks_in_a_wrong_place_or_of_another_file_are_damaged():
    data, other = write(make_codes(15)), write(make_codes(15, seed=1), num_samples=1)
    a, b = HEADER, HEADER + FULL
    swapped = data[:a] + data[b : b + FULL] + data[a:b] + data[b + FULL :]
    assert read(swapped)[1] == [True] * 10 + [False] * 5
    form = dataclasses.replace(FORM, model="tax")
    foreign = data[:b] + write(make_codes(15), form)[b : b + FULL] + data[b + FULL :]
    assert read(foreign)[1] == [False] * 5 + [True] * 5 + [False] * 5
    assert read(data + other)[2].problem == "x: more bytes follow the end: are two files joined?"


def test_a_header_alone_asks_for_little_memory():
    form = dataclasses.replace(
        FORM, channels=64, num_groups=64, num_codes=65536, frames_per_block=255
    )
    codes = make_codes(255, form)
    data = write(codes, form)
    assert len(data) < 2.1e6
    assert np.array_equal(read(data)[0], codes)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.randoms())
def test_junk_raises_nothing_but_the_project_s_errors(
    junk, behind_header, pipe, rng: random.Random
):
    data = write(make_codes(12))
    if behind_header:
        junk = data[: rng.randint(0, len(data))] + junk + data[rng.randint(0, len(data)) :]
    try:
        found, lost, reader = read(junk, pipe)
    except AudioSSMError as exc:
        assert str(exc).startswith("x: ") and "\n" not in str(exc)
    else:
        assert found.shape[2] == len(lost) and (reader.problem is not None or junk == data)


@pytest.mark.parametrize(
    ("field", "value"), [("sample_rate", 0), ("num_codes", 0), ("model", "a\nb"), ("frame_size", 0)]
)
def test_a_sealed_header_that_makes_no_sense_is_refused(field, value):
    form = dataclasses.replace(FORM)
    object.__setattr__(form, field, value)  # as another program might write it
    stream = io.BytesIO()
    CodeWriter(stream, form).finish(0)
    with pytest.raises(AudioError, match="x: the header makes no sense"):
        read(stream.getvalue())


def test_sealed_codes_that_there_are_not_are_lost():
    form = dataclasses.replace(FORM, num_codes=1024)
    data = bytearray(write(np.full((2, 3, 5), 1023), form))
    reader = open_codes(io.BytesIO(data))
    object.__setattr__(reader.form, "num_codes", 1000)
    assert [block.lost for block in reader] == [True]


def test_another_version_is_refused():
    data = bytearray(write(make_codes(1)))
    data[7] = 9
    told = "x: codes in format version 9, but this audiossm reads versions 1 and 2"
    with pytest.raises(AudioError, match=told):
        read(bytes(data))


# what was written before there were comments: frames of 2 groups, 2 a block, 900 samples
OLD = bytes.fromhex(
    "8973736d610d0a012000"
    "00112233445566778899aabbccddeeff803e00004001e8030000010202746f793b"
    "fd60790200404008057c352fdb01f9c000ebbb2883008403000000000000085ae4fb"
)


def test_files_of_before_there_were_comments_are_read_and_still_written():
    form = dataclasses.replace(FORM, channels=1, num_groups=2, frames_per_block=2)
    codes = np.array([[[1, 2, 999], [4, 5, 0]]])
    found, lost, reader = read(OLD)
    assert np.array_equal(found, codes) and not any(lost)
    assert (reader.form, reader.comment, reader.num_samples) == (form, None, 900)
    assert reader.problem is None
    assert write(codes, form, num_samples=900) == OLD


@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("comment", ["x", "generated by näme, voice 🙂", "x" * 1024])
def test_a_comment_is_read_again_and_costs_its_bytes(comment, pipe):
    codes = make_codes(12)
    data = write(codes, num_samples=3800, comment=comment)
    found, lost, reader = read(data, pipe)
    assert np.array_equal(found, codes) and not any(lost)
    assert (reader.form, reader.comment, reader.num_samples) == (FORM, comment, 3800)
    assert reader.problem is None
    assert data[7] == 2 and len(data) == len(write(codes)) + 1 + len(comment.encode())


def test_a_comment_can_not_be_changed_or_cut_off_unseen():
    data = write(make_codes(12), comment="generated")
    header = HEADER + 1 + len("generated")
    for at in range(7, header):
        bad = bytearray(data)
        bad[at] ^= 1 << at % 8
        with pytest.raises(AudioError, match=r"^x: (codes in format version|the header is damag)"):
            read(bytes(bad))
        with pytest.raises(AudioError, match="x: the header is damaged or cut short"):
            read(data[: max(at, 8)])
    plain = write(make_codes(12))  # all blocks are sealed with their header
    assert all(read(plain[:HEADER] + data[header:])[1])


@pytest.mark.parametrize("comment", ["", "a\nb", "a\0b", "\udc80", "x" * 1025, "ä" * 513])
def test_comments_that_a_file_cannot_hold_are_refused(comment):
    with pytest.raises(ShapeError, match="a comment of codes has 1 to 1024 bytes"):
        CodeWriter(io.BytesIO(), FORM, comment=comment)


@pytest.mark.parametrize("tail", [b"toy", b"toy\0", b"toy\0a\nb", b"toy\0a\0b", b"toy\0\xff"])
def test_a_sealed_comment_that_makes_no_sense_is_refused(tail):
    body = write(make_codes(0))[10 : HEADER - 4 - len("toy")] + tail
    data = b"\x89ssma\r\n\x02" + struct.pack("<H", len(body)) + body
    with pytest.raises(AudioError, match="x: the header makes no sense"):
        read(data + struct.pack("<I", zlib.crc32(data)))


def test_a_zero_is_no_comment_in_files_of_version_1():
    body = write(make_codes(0))[10 : HEADER - 4] + b"\0comment"
    data = b"\x89ssma\r\n\x01" + struct.pack("<H", len(body)) + body
    with pytest.raises(AudioError, match="x: the header makes no sense"):
        read(data + struct.pack("<I", zlib.crc32(data)))


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        open_codes(tmp_path / "gone.ssma")


def test_a_whole_file_is_a_value(tmp_path):
    path = tmp_path / "a.ssma"
    codes = Codes(form=FORM, codes=make_codes(12), num_samples=3700)
    write_codes(path, codes)
    assert path.read_bytes() == write(codes.codes, num_samples=3700)
    found = read_codes(path)
    assert (found.form, found.num_samples) == (FORM, 3700)
    assert np.array_equal(found.codes, codes.codes) and found.comment is None
    write_codes(path, dataclasses.replace(codes, comment="generated"))
    assert path.read_bytes() == write(codes.codes, num_samples=3700, comment="generated")
    assert read_codes(path).comment == "generated"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AudioError, match="a.ssma: cut short after 0.24 s"):
        read_codes(path)
    with pytest.raises(OutputError, match="can't be written: Is a directory"):
        write_codes(tmp_path, codes)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((2, 4, 1), int), r"\(2, 4, 1\), but this file takes \(2 channels, 3 groups"),
        (np.full((2, 3, 1), 1000), "lie between 1000 and 1000, but this file's between 0 and 999"),
        (np.full((2, 3, 1), -1), "lie between -1 and -1"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, message):
    with pytest.raises(ShapeError, match=message):
        write(codes)


def test_numbers_that_a_file_cannot_hold_are_refused():
    with pytest.raises(ShapeError, match="frames_per_block of codes is 256, must be 1 to 255"):
        dataclasses.replace(FORM, frames_per_block=256)
    with pytest.raises(ShapeError, match="a codec's name has up to 1024 bytes"):
        dataclasses.replace(FORM, model="x" * 1025)
