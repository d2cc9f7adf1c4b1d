"""Periodic signals have the periods that their labels tell."""

import math

import pytest
import torch

from audiossm.train.periodic import (
    FRAME_SIZE,
    PitchScale,
    draw_beats,
    draw_clicks,
    draw_drums,
    draw_loops,
    draw_tones,
)

CPU = torch.device("cpu")


def test_a_pitch_is_read_from_its_class_to_within_half_of_it():
    scale = PitchScale(80.0, 400.0)
    pitch = torch.linspace(81, 399, 50)
    logits = 20 * torch.nn.functional.one_hot(scale.classify(pitch), 96).float()
    cents = 1200 * (scale.read(logits) / pitch).log2()
    assert cents.abs().max() <= scale.cents / 2 + 0.1
    assert scale.right(logits, pitch).all()
    assert not scale.right(logits, pitch * 2 ** (70 / 1200)).any()
    assert scale.cents == pytest.approx(1200 * math.log2(5) / 96)


def test_tones_repeat_with_their_pitch_and_lack_their_fundamental():
    torch.manual_seed(0)
    tones, pitch = draw_tones(40, 4096, 1 / 41, 1 / 39, CPU, drift=0.0)
    assert ((pitch >= 1 / 41.1) & (pitch <= 1 / 38.9)).all()
    spectrum = torch.fft.rfft(tones).abs().square()
    fundamental = spectrum[:, 95:110].sum(1)  # 4096 / 43 to 4096 / 37
    second = spectrum[:, 195:215].sum(1)
    assert (second > 5 * fundamental).float().mean() > 0.9
    assert 0.7 < tones.square().mean() < 1.3


def test_loops_repeat():
    torch.manual_seed(0)
    periods = torch.tensor([8, 13])
    loops = draw_loops(periods, 60)
    for loop, period in zip(loops, periods.tolist(), strict=True):
        torch.testing.assert_close(loop[period:], loop[:-period], rtol=1e-3, atol=1e-3)
        assert loop.square().mean() == pytest.approx(1.0, abs=1e-4)


def test_drums_repeat():
    torch.manual_seed(0)
    audio = draw_drums(torch.tensor([8, 11]), 40)
    for row, period in zip(audio, (8, 11), strict=True):
        shift = period * FRAME_SIZE
        later = row[2 * shift :]
        torch.testing.assert_close(later, row[shift:-shift], rtol=1e-3, atol=1e-3)
        assert later.abs().max() > 0.05


def test_beats_are_counted_where_they_sound():
    torch.manual_seed(0)
    beats, counts = draw_beats(50, 100, CPU)
    began = torch.diff(counts, dim=1) > 0
    loud = beats[:, 1:, 0] > 0.5
    assert (began == loud).float().mean() > 0.97
    assert 100 / 15 < counts[:, -1].float().mean() < 100 / 4


def test_clicks_are_counted_where_they_sound():
    torch.manual_seed(0)
    audio, counts = draw_clicks(10, 60, CPU)
    power = audio.unflatten(1, (60, FRAME_SIZE)).square().mean(2)
    began = torch.diff(counts, dim=1, prepend=torch.zeros_like(counts[:, :1])) > 0
    assert power[began].median() > 10 * power[~began].median()
