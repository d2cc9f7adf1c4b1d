"""What is found wrong with a recording and its text, and what goes into a shard."""

import io
from pathlib import Path

import numpy as np
import pytest

from audiossm.audio import open_audio, write_audio
from audiossm.audio.encoded import encode_opus
from audiossm.audio.ogg import find_ogg_damage
from audiossm.manifest import Utterance
from audiossm.prepare import Clip, Limits, Recording, inspect, trim

TEXT = "A sentence of thirty letters, no?"  # spoken in 2 s


def make_speech(before: float, speech: float, after: float, rate: int = 16000) -> np.ndarray:
    """Make (samples,) float32: seconds of faint noise, of a buzzing tone, of faint noise."""
    sizes = [round(seconds * rate) for seconds in (before, speech, after)]
    t = np.arange(sizes[1]) / rate
    buzz = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(sum(sizes)) * 1e-4
    noise[sizes[0] : sizes[0] + sizes[1]] += 0.2 * buzz * (1 + 0.3 * np.sin(2 * np.pi * 4 * t))
    return noise.astype(np.float32)


def look(path: Path, audio: np.ndarray, text: str = TEXT, rate: int = 16000, **piece) -> Clip:
    write_audio(path, audio[None], rate)
    utterance = Utterance(key="a", text=text, path=path)
    return inspect(Recording(utterance, **piece), Limits(longest_s=5))


def test_silence_at_the_ends_is_cut_to_four_tenths_of_a_second():
    for before, after in ((1.0, 1.5), (0.2, 0.7), (0.0, 0.0)):
        x = make_speech(before, 2, after)
        cut, speech_s = trim(x)
        margins = min(before, 0.4) + min(after, 0.4)
        assert speech_s == pytest.approx(2, abs=0.03)
        assert len(cut) / 16000 == pytest.approx(2 + margins, abs=0.03)
        start = round(max(0, before - 0.4) * 16000)
        assert np.abs(cut[: len(cut) // 2]).max() == np.abs(x[start : start + len(cut) // 2]).max()


def test_steady_noise_counts_as_speech_and_silence_as_none():
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    cut, speech_s = trim(0.1 * noise)
    assert len(cut) == 16000 and speech_s == 1.0
    for quiet in (1e-5 * noise, noise[:100], noise[:0]):
        cut, speech_s = trim(quiet)
        assert len(cut) == 0 and speech_s == 0.0


def test_a_clip_is_encoded_alike_each_time_and_its_pages_are_whole():
    x = make_speech(0, 20, 0)
    first, second = encode_opus(x, 16000), encode_opus(x, 16000)
    assert first == second
    assert find_ogg_damage(io.BytesIO(first)) is None
    assert first.count(b"OggS") > 3
    assert 10_000 < len(first) * 8 / 20 < 22_000  # bit/s
    broken = bytearray(first)
    broken[len(first) // 2] ^= 1
    assert find_ogg_damage(io.BytesIO(bytes(broken))) is not None


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_good_clip_is_16_khz_mono_with_what_its_file_was(tmp_path, rate):
    clip = look(tmp_path / "a.wav", make_speech(1, 2, 1, rate), rate=rate)
    assert (clip.fault, clip.source_rate, clip.channels) == ("", rate, 1)
    assert clip.source_s == pytest.approx(4) and clip.seconds == pytest.approx(2.8, abs=0.05)
    assert clip.rate == pytest.approx(len(TEXT) / 2, rel=0.03)
    with open_audio(io.BytesIO(clip.data)) as reader:
        assert (reader.sample_rate, reader.channels) == (16000, 1)
        assert reader.num_samples == round(clip.seconds * 16000)


def test_each_fault_is_told_with_what_was_found(tmp_path):
    good = make_speech(0.2, 2, 0.2)
    cases = {
        "silent": (good * 1e-4, TEXT),
        "clipped": (np.clip(good * 20, -1, 1), TEXT),
        "too short": (make_speech(0, 0.3, 0), "Aha."),
        "too long": (make_speech(0, 6, 0), TEXT * 3),
        "text doesn't fit: speed": (good, TEXT * 3),
        "no words in the text": (good, "?!"),
        "digits in the text": (good, "It cost 30 and no more than it."),
        "foreign letters in the text": (good, "The last of all letters is ω."),
    }
    for fault, (audio, text) in cases.items():
        clip = look(tmp_path / "a.wav", audio, text)
        assert clip.fault == fault and clip.detail and not clip.data, fault


def test_a_clipped_peak_alone_is_no_fault(tmp_path):
    audio = make_speech(0.2, 2, 0.2)
    audio[16000:16002] = 1.0
    assert look(tmp_path / "a.wav", audio).clipped == 0


def test_what_can_not_be_read_is_a_fault(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, make_speech(0.2, 2, 0.2)[None], 16000)
    whole = path.read_bytes()
    for data in (whole[:40000], b"", b"RIFF, or so it seems", whole[:44]):
        path.write_bytes(data)
        clip = inspect(Recording(Utterance(key="a", text=TEXT, path=path)), Limits())
        assert clip.fault == "can't be read (to its end)" and clip.detail
    path.unlink()
    gone = inspect(Recording(Utterance(key="a", text=TEXT, path=path)), Limits())
    assert gone.fault == "can't be read (to its end)"


def test_a_piece_of_a_file_is_that_piece(tmp_path):
    audio = np.concatenate([make_speech(0, 1, 1), make_speech(0, 2, 1)])
    clip = look(tmp_path / "a.wav", audio, start_s=2.0, end_s=4.5)
    assert clip.fault == "" and clip.source_s == pytest.approx(2.5)
    assert clip.speech_s == pytest.approx(2, abs=0.03)
    beyond = look(tmp_path / "a.wav", audio, start_s=2.0, end_s=6.5)
    assert beyond.fault == "can't be read (to its end)" and "before its piece does" in beyond.detail
    # as much as borders are rounded by
    rounded = look(tmp_path / "a.wav", audio, start_s=2.0, end_s=len(audio) / 16000 + 0.4)
    assert rounded.fault == "" and rounded.source_s == pytest.approx(len(audio) / 16000 - 2.0)
