"""Files that are being written: what is there comes at once, and the end is when they rest."""

import struct
import threading

import numpy as np
import pytest

from audio_cases import make_wav
from audiossm.audio import open_audio
from audiossm.audio.growing import GrowingFile
from audiossm.errors import AudioError

SAMPLES = np.arange(1, 4001, dtype="<i2")
BODY = SAMPLES.tobytes()


class Writer:
    """Appends to a file whenever the reader waits: a clock that only waiting moves."""

    def __init__(self, path, pieces):
        self.path, self.pieces, self.time = path, list(pieces), 0.0

    def sleep(self, seconds):
        self.time += seconds
        if self.pieces:
            piece = self.pieces.pop(0)
            if callable(piece):
                piece(self.path)
            else:
                with open(self.path, "ab") as file:
                    file.write(piece)


def follow(path, pieces, timeout_s=1.0, most=1 << 16):
    writer = Writer(path, pieces)
    with open(path, "rb") as file:
        growing = GrowingFile(file, "a.wav", timeout_s, writer.sleep, lambda: writer.time)
        found = b"".join(iter(lambda: growing.read1(most), b""))
    return found, writer


def set_lengths(num_bytes, behind=0):
    """Write the lengths of sound, and of all, into a header of 44 bytes."""

    def change(path):
        with open(path, "r+b") as file:
            file.seek(4)
            file.write(struct.pack("<I", 36 + num_bytes + behind))
            file.seek(40)
            file.write(struct.pack("<I", num_bytes))

    return change


@pytest.mark.parametrize("most", [5, 1000, 1 << 16])
def test_bytes_come_as_they_are_written_until_the_file_rests(tmp_path, most):
    path = tmp_path / "a.raw"
    path.write_bytes(BODY[:100])
    found, writer = follow(path, [b"", BODY[100:101], b"", b"", BODY[101:]], most=most)
    assert found == BODY
    # five waits for the writer, and one timeout
    assert 1.0 <= writer.time - 0.5 < 1.2


def test_a_silence_shorter_than_the_timeout_is_waited_for(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(BODY[:100])
    assert follow(path, [*[b""] * 8, BODY[100:]])[0] == BODY
    assert follow(path, [*[b""] * 12, BODY[100:]])[0] == BODY


@pytest.mark.parametrize("size", [0, 200, 0xFFFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("start", [0, 3, 30, 44, 400])
def test_a_header_is_not_believed_while_the_file_grows(tmp_path, size, start):
    data = make_wav(BODY, size=size)
    path = tmp_path / "a.wav"
    path.write_bytes(data[:start])
    found, _ = follow(path, [data[start : start + 50], data[start + 50 :]])
    assert found == data


def test_what_stands_behind_the_sound_of_a_finished_file_is_left_out(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav(BODY[:1000], size=0))
    tag = b"LIST" + struct.pack("<I", 4) + b"abcd"

    def finish(path):
        with open(path, "ab") as file:
            file.write(BODY[1000:] + tag)
        set_lengths(len(BODY), len(tag))(path)

    found, _ = follow(path, [finish])
    assert found[44:] == BODY


def test_a_header_that_is_brought_up_to_date_now_and_then_ends_nothing(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav(BODY[:1000], riff_size=1036))
    found, _ = follow(path, [BODY[1000:3000], set_lengths(3000), BODY[3000:]])
    assert found[44:] == BODY


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(BODY)
    with pytest.raises(AudioError, match=r"a\.wav: became shorter while it was followed"):
        follow(path, [lambda path: path.write_bytes(BODY[:10])])


@pytest.mark.parametrize("raw_rate", [None, 16000])
def test_a_reader_follows_a_thread_that_appends(tmp_path, raw_rate):
    path = tmp_path / "a.wav"
    data = BODY if raw_rate else make_wav(BODY, size=0)
    path.write_bytes(data[:1001])
    seen = threading.Event()

    def append():
        for at in range(1001, len(data), 1000):
            seen.wait(5)
            with open(path, "ab") as file:
                file.write(data[at : at + 1000])

    thread = threading.Thread(target=append)
    thread.start()
    with open_audio(path, raw_rate=raw_rate, follow_s=0.3) as reader:
        assert (reader.sample_rate, reader.num_samples) == (16000, None)
        pieces = []
        for piece in reader.blocks(100_000):
            pieces.append(piece)
            seen.set()
    thread.join()
    assert pieces[0].shape[1] < 520  # what was there came before the rest was written
    heard = np.concatenate(pieces, axis=1)[0]
    np.testing.assert_array_equal(heard, SAMPLES.astype(np.float32) / 32768)


def test_only_files_of_plain_samples_are_followed(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC" + bytes(100))
    with pytest.raises(AudioError, match="only WAV and raw samples can be followed"):
        open_audio(path, follow_s=0.1)
    with pytest.raises(AudioError, match="is a folder"):
        open_audio(tmp_path, follow_s=0.1)
    path.write_bytes(b"")
    with pytest.raises(AudioError, match=r"is empty \(0 bytes\)"):
        open_audio(path, follow_s=0.1)
