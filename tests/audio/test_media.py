"""Containers that PyAV reads: the first track of sound, in time, whole or up to the damage."""

import io
import sys
from fractions import Fraction

import numpy as np
import pytest

from audio_cases import make_pipe, read_all, read_until_error
from audiossm.audio import open_audio
from audiossm.errors import AudioError

av = pytest.importorskip("av")

RATE = 48000
SECONDS = 3
KINDS = [
    ("talk.m4a", "ipod", "aac"),
    ("talk.mp4", "mp4", "aac"),
    ("talk.aac", "adts", "aac"),
    ("talk.webm", "webm", "libopus"),
    ("talk.mkv", "matroska", "flac"),
    ("talk.ts", "mpegts", "aac"),
]


def make_tone(seconds: float = SECONDS) -> np.ndarray:
    """A tone that grows louder, so that a shift in time shows."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = 0.1 * time * np.sin(2 * np.pi * 440 * time)
    return np.stack([tone, -tone]).astype(np.float32)


def make_media(kind: str, codec: str, audio: np.ndarray, *, start: int = 0, hole: int = 0) -> bytes:
    """Encode (2, samples); ``start`` samples of the clock go before it, ``hole`` within."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        picture = None
        if kind == "mp4":
            picture = container.add_stream("mpeg4", rate=25)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        track = container.add_stream(codec, rate=RATE, layout="stereo")
        sample_format = "s16" if codec in ("flac", "libopus") else "fltp"
        if picture is not None:
            for number in range(25 * SECONDS):
                image = av.VideoFrame(32, 32, "yuv420p")
                image.pts, image.time_base = number, Fraction(1, 25)
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        resampler = av.AudioResampler(sample_format, "stereo", RATE, 960)
        for at in range(0, audio.shape[1], 4800):
            frame = av.AudioFrame.from_ndarray(audio[:, at : at + 4800].copy(), "fltp", "stereo")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = start + at + (hole if at >= audio.shape[1] // 2 else 0)
            if codec == "aac":
                container.mux(track.encode(frame))
                continue
            for piece in resampler.resample(frame):
                container.mux(track.encode(piece))
        if codec != "aac":
            for piece in resampler.resample(None):
                container.mux(track.encode(piece))
        container.mux(track.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(("name", "kind", "codec"), KINDS)
def test_containers_are_read_in_pieces(tmp_path, name, kind, codec):
    path = tmp_path / name
    tone = make_tone()
    path.write_bytes(make_media(kind, codec, tone))
    with open_audio(path) as reader:
        assert (reader.sample_rate, reader.channels) == (RATE, 2)
        pieces = list(reader.blocks(7777))
        assert all(piece.dtype == np.float32 for piece in pieces)
        assert {piece.shape[1] for piece in pieces[:-1]} == {7777}
        heard = np.concatenate(pieces, axis=1)
        # what the encoder added stays where the container doesn't tell of it
        assert heard.shape[1] == pytest.approx(tone.shape[1], abs=3200)
        shift = 1024 if kind in ("adts", "mpegts") else 0
        both = min(heard.shape[1] - shift, tone.shape[1])
        lined_up = heard[:, shift : shift + both]
        assert np.corrcoef(lined_up[0], tone[0, :both])[0, 1] > 0.98
        assert np.corrcoef(lined_up[1], tone[1, :both])[0, 1] > 0.98
        # going back and on gives the same samples
        reader.seek(50001)
        np.testing.assert_array_equal(reader.read(999), heard[:, 50001:51000])


def test_a_pipe_is_read_as_well():
    data = make_media("webm", "libopus", make_tone())
    heard = read_all(open_audio(make_pipe(data, 4096)))
    assert heard.shape == (2, pytest.approx(SECONDS * RATE, abs=1000))


def test_a_hole_in_the_time_stamps_is_a_silence():
    tone = make_tone()
    data = make_media("matroska", "flac", tone, hole=RATE)
    with open_audio(io.BytesIO(data), name="a.mkv") as reader:
        heard = np.concatenate(list(reader.blocks(RATE)), axis=1)
    assert heard.shape[1] == pytest.approx(tone.shape[1] + RATE, abs=100)
    middle = tone.shape[1] // 2
    assert not heard[:, middle + 5000 : middle + RATE - 5000].any()
    assert np.abs(heard[:, middle + RATE + 5000 :]).max() > 0.2


def test_sound_that_begins_after_the_picture_begins_after_a_silence():
    data = make_media("mp4", "aac", make_tone(), start=RATE // 2)
    with open_audio(io.BytesIO(data), name="a.mp4") as reader:
        heard = np.concatenate(list(reader.blocks(RATE)), axis=1)
    assert heard.shape[1] == pytest.approx((SECONDS + 0.5) * RATE, abs=3200)
    assert not heard[:, : RATE // 2 - 2100].any()


def test_a_film_without_sound_says_so(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        container.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(picture.encode(None))
    with pytest.raises(AudioError, match=r"silent\.mp4: there is no sound in it"):
        open_audio(io.BytesIO(file.getvalue()), name="silent.mp4")


@pytest.mark.parametrize(("name", "kind", "codec"), KINDS)
def test_a_file_that_is_cut_off_gives_what_it_has_and_a_line(name, kind, codec, capfd):
    data = make_media(kind, codec, make_tone())
    cut = io.BytesIO(data[: len(data) * 2 // 3])
    if kind in ("ipod", "mp4"):  # the table of contents stands at the end
        with pytest.raises(AudioError, match=f"{name}: not audio that can be read") as caught:
            open_audio(cut, name=name)
        assert "\n" not in str(caught.value)
    else:
        heard, error = read_until_error(open_audio(cut, name=name))
        # adts and mpegts have no length to miss, but a last frame that is broken
        assert error.startswith((f"{name}: cut off: the header promises 3.0", f"{name}: only 2.0"))
        assert RATE < heard.shape[1] < 2.5 * RATE
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle_is_a_line_at_most(capfd):
    data = bytearray(make_media("ipod", "aac", make_tone()))
    middle = len(data) // 2
    data[middle : middle + 500] = bytes(range(250)) * 2
    heard, error = read_until_error(open_audio(io.BytesIO(bytes(data)), name="a.m4a"))
    assert RATE < heard.shape[1] < 2 * RATE
    assert error.startswith(f"a.m4a: only {heard.shape[1] / RATE:.2f} s can be read: decoding")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["list.m3u8", "list.m4a"])
def test_a_playlist_opens_nothing(tmp_path, name):
    target = tmp_path / "talk.m4a"
    target.write_bytes(make_media("ipod", "aac", make_tone()))
    (tmp_path / name).write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:3,\n{target}\n")
    with pytest.raises(AudioError, match=f"{name}: not audio that can be read"):
        open_audio(tmp_path / name)


def test_without_pyav_the_extra_is_named(monkeypatch):
    data = make_media("ipod", "aac", make_tone(0.5))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError) as caught:
        open_audio(io.BytesIO(data), name="talk.m4a")
    assert str(caught.value) == (
        "talk.m4a: this kind of file is read by PyAV, which is not installed: "
        "pip install 'audiossm[media]'"
    )
