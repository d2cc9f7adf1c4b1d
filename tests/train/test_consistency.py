"""A head's spectra are consistent if they are those of the samples they make."""

import torch

from audiossm.codec.istft import InverseSTFT
from audiossm.codec.stft import CausalSTFT
from audiossm.train.consistency import ConsistencyLoss
from tiny_model import read_speech


def made_of(spectra: torch.Tensor) -> torch.Tensor:
    """Samples that the spectra but for the first and last three cover."""
    inverse = InverseSTFT(320, 80)
    return inverse(spectra)[:, 240:]


def test_spectra_of_a_signal_are_consistent_at_any_level():
    speech = torch.from_numpy(read_speech()[16000:24000].copy())[None]
    loss = ConsistencyLoss(320, 80)
    for level in (1.0, 0.01):
        spectra = CausalSTFT(320, 80)(level * speech)
        assert loss(spectra[:, 3:-3], made_of(spectra)) < 1e-6


def test_spectra_that_cancel_each_other_are_not():
    spectra = torch.randn(2, 60, 322).requires_grad_()
    loss = ConsistencyLoss(320, 80)
    before = loss(spectra[:, 3:-3], made_of(spectra))
    assert 0.3 < before < 1.0
    (slope,) = torch.autograd.grad(before, spectra)
    closer = spectra - 0.1 * slope / slope.abs().max()
    assert loss(closer[:, 3:-3], made_of(closer)) < before


def test_silence_has_a_finite_gradient():
    spectra = torch.zeros(1, 20, 322).requires_grad_()
    ConsistencyLoss(320, 80)(spectra[:, 3:-3], made_of(spectra)).backward()
    assert spectra.grad.isfinite().all()
