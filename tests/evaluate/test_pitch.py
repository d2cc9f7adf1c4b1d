"""Errors of pitch are counted as they are defined, on pitches that are known."""

import math
import sys

import numpy as np
import pytest
import torch

from audiossm.errors import DependencyError, ShapeError
from audiossm.evaluate.pitch import (
    PitchErrors,
    PitchTrack,
    count_pitch_errors,
    require_librosa,
    track_pitch,
)

RATE = 16000
NAN = float("nan")


def hum(pitch: float, seconds: float = 1.0) -> torch.Tensor:
    """(samples,): a voice of ten harmonics."""
    time = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    tones = [torch.sin(2 * math.pi * pitch * n * time) / n for n in range(1, 11)]
    return (0.1 * torch.stack(tones).sum(0)).float()


def track(*pitch: float) -> PitchTrack:
    """A track whose guess is 100 Hz where there is no voice."""
    values = np.array(pitch)
    return PitchTrack(values, np.nan_to_num(values, nan=100.0))


def test_errors_are_counted_by_hand():
    original = track(100, 100, 100, NAN, NAN, 200, 200)
    decoded = track(100, 200, NAN, NAN, 150, 239, 241)
    errors = count_pitch_errors(original, decoded)
    assert (errors.frames, errors.voicing_errors, errors.voiced) == (7, 2, 4)
    assert errors.voicing_error == pytest.approx(2 / 7)
    # 200 for 100 and 241 for 200; 239 is less than 20 % off
    assert errors.gross_error == pytest.approx(2 / 4)
    cents = [0, 1200, 1200 * math.log2(239 / 200), 1200 * math.log2(241 / 200)]
    assert errors.rmse_cents == pytest.approx(math.sqrt(np.square(cents).mean()))
    # the guess in the frame that lost its voice is right
    assert (errors.original_voiced, errors.guess_error) == (5, pytest.approx(2 / 5))


def test_counts_add_up():
    a, b = track(100, NAN, 300, 120), track(110, 100, 100, 120)
    first, second = (
        count_pitch_errors(*(PitchTrack(t.pitch[part], t.guess[part]) for t in (a, b)))
        for part in (slice(0, 2), slice(2, 4))
    )
    assert first + second == count_pitch_errors(a, b)


def test_where_nothing_is_voiced_there_is_no_error_of_pitch():
    errors = count_pitch_errors(track(NAN, 100), track(NAN, NAN))
    assert (errors.rmse_cents, errors.gross_error, errors.voicing_error) == (None, None, 0.5)
    assert errors.guess_error == 0
    assert PitchErrors().voicing_error is None and PitchErrors().guess_error is None


def test_tracks_of_other_lengths_are_refused():
    with pytest.raises(ShapeError, match=r"\(1,\), \(2,\)"):
        count_pitch_errors(track(100), track(100, 100))


@pytest.mark.parametrize("pitch", [83.0, 127.0, 311.0])
def test_a_known_pitch_is_found_each_20_ms(pitch):
    pytest.importorskip("librosa")
    found = track_pitch(hum(pitch), RATE)
    assert found.pitch.shape == found.guess.shape == (51,)
    inner = slice(3, -3)
    for values in found:
        assert np.abs(1200 * np.log2(values[inner] / pitch)).max() < 15


def test_a_voice_that_is_shifted_is_wrong_by_as_much(monkeypatch):
    pytest.importorskip("librosa")
    original = track_pitch(hum(120), RATE)
    two = count_pitch_errors(original, track_pitch(hum(120 * 2 ** (2 / 12)), RATE))
    assert two.rmse_cents == pytest.approx(200, abs=15) and two.gross_error < 0.1
    five = count_pitch_errors(original, track_pitch(hum(120 * 2 ** (5 / 12)), RATE))
    assert five.gross_error > 0.9 and five.guess_error > 0.9


def test_noise_and_silence_have_no_voice():
    pytest.importorskip("librosa")
    for x in (0.1 * torch.randn(RATE), torch.zeros(RATE)):
        assert np.isnan(track_pitch(x, RATE).pitch).mean() > 0.9
    errors = count_pitch_errors(track_pitch(hum(120), RATE), track_pitch(torch.zeros(RATE), RATE))
    assert errors.voicing_error > 0.9


def test_without_librosa_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(DependencyError, match=r"librosa.*pip install 'audiossm\[eval\]'"):
        require_librosa()
