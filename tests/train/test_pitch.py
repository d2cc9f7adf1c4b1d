"""The tracker that tells a source the truth, and the loss it learns by."""

import numpy as np
import pytest
import torch

from audiossm.codec import PitchConfig
from audiossm.codec.pitch import PitchReader
from audiossm.train.pitch import PitchLoss, PitchTracker
from tiny_model import read_speech

HOP = 80


def voice(hertz: torch.Tensor) -> torch.Tensor:
    phase = 2 * torch.pi * torch.cumsum(hertz.double() / 16000, -1)
    return 0.05 * sum((h * phase).cos() / h for h in range(1, 15)).float()


@pytest.mark.parametrize("hertz", [75.0, 110.0, 201.0, 350.0])
def test_a_steady_voice_has_its_pitch(hertz):
    found, voiced = PitchTracker(16000, HOP)(voice(torch.full((2, 8000), hertz)))
    assert found.shape == voiced.shape == (2, 100)
    inner = slice(8, 90)
    assert voiced[:, inner].all()
    assert (found[:, inner] / hertz - 1).abs().max() < 0.01


def test_a_gliding_voice_is_told_at_the_middle_of_each_hop():
    hertz = torch.linspace(120, 240, 16000)
    found, _ = PitchTracker(16000, HOP)(voice(hertz).unsqueeze(0))
    truth = hertz[HOP // 2 :: HOP]
    apart = (found[0, 10:-10] / truth[10:-10] - 1).abs()
    assert apart.max() < 0.03 and apart.median() < 0.01


def test_silence_and_noise_have_no_voice():
    tracker = PitchTracker(16000, HOP)
    assert not tracker(torch.zeros(1, 8000))[1].any()
    assert tracker(0.1 * torch.randn(1, 16000))[1].float().mean() < 0.05


def test_speech_agrees_with_probabilistic_yin():
    librosa = pytest.importorskip("librosa")
    speech = read_speech()[:64000]
    found, voiced = (
        x[0].numpy() for x in PitchTracker(16000, HOP)(torch.from_numpy(speech[None].copy()))
    )
    theirs, _, _ = librosa.pyin(
        speech.astype(np.float64), fmin=60, fmax=480, sr=16000, frame_length=1024, hop_length=HOP,
        resolution=0.2,
    )  # fmt: skip
    both = np.isfinite(theirs[: len(found)]) & voiced
    assert both.sum() > 100
    assert (np.abs(found[both] / theirs[: len(found)][both] - 1) > 0.2).mean() < 0.1


def test_the_loss_falls_until_the_pitch_is_read():
    config = PitchConfig(context=1, d_hidden=32, num_bins=24, bins_per_octave=8)
    reader, loss = PitchReader(config, 8, hops=2), PitchLoss(config)
    values = torch.randint(-4, 5, (4, 6, 8)) / 4
    hertz = 80 + 200 * torch.rand(4, 12)
    voiced = torch.rand(4, 12) < 0.7
    optimizer = torch.optim.Adam(reader.parameters(), lr=1e-2)
    before = loss(reader.step(values, reader.init_state(4))[0], hertz, voiced).item()
    for _ in range(150):
        optimizer.zero_grad()
        logits, _ = reader.step(values, reader.init_state(4))
        loss(logits, hertz, voiced).backward()
        optimizer.step()
    logits, _ = reader.step(values, reader.init_state(4))
    assert loss(logits, hertz, voiced) < 0.7 * before
    assert loss.right(reader.choose(logits), hertz, voiced) > 0.5
