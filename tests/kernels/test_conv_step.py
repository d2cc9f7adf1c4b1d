"""A convolution's step in place: the convolution of the whole, slot by slot; torch and Triton."""

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels import KernelError
from audiossm_kernels.conv import conv_step_

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"


def step(x, tail, weight, bias, slots, *, gated, norm, options) -> Tensor:
    if not INTERPRETED:
        return conv_step_(x, tail, weight, bias, slots, gated=gated, norm=norm, options=options)
    from audiossm_kernels.triton_conv import launch_conv

    return launch_conv(x, tail, weight, bias, slots, gated, norm, options, 1e-5)


CASES = {
    "plain": {},
    "two frames": {"frames": 2, "kernel": 7, "channels": 40},
    "more frames than it remembers": {"frames": 4, "kernel": 3},
    "gated and normed": {"gated": True, "norm": True, "kernel": 9, "channels": 24},
    "gated and normed, two frames": {"gated": True, "norm": True, "frames": 2},
    "a choice of weights": {"options": 3, "kernel": 17, "bias": False},
    "one tap": {"kernel": 1},
    "wide": {"channels": 200, "kernel": 7, "frames": 2},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_steps_in_place_are_the_convolution_of_the_whole(case):
    kernel, channels = case.get("kernel", 4), case.get("channels", 16)
    frames, options = case.get("frames", 1), case.get("options")
    gated, normed = case.get("gated", False), case.get("norm", False)
    num_slots, length = 5, 3 * frames
    x = torch.randn(3, length, channels * (2 if gated else 1), device=DEVICE)
    weight = torch.randn(*([options] if options else []), channels, kernel, device=DEVICE)
    bias = torch.randn(channels, device=DEVICE) if case.get("bias", True) else None
    norm = torch.rand(channels, device=DEVICE) + 0.5 if normed else None
    chosen = torch.tensor([2, 0, 1, 1, 0], device=DEVICE) if options else None
    tail = torch.zeros(num_slots, channels, kernel - 1, device=DEVICE)
    tail[2] = 7.0  # of a slot that isn't in it
    slots = torch.tensor([4, 0, -1], device=DEVICE)
    pieces = [
        step(part.contiguous(), tail, weight, bias, slots, gated=gated, norm=norm, options=chosen)
        for part in x.split(frames, dim=1)
    ]
    y = torch.cat(pieces, dim=1)
    value = F.glu(x, dim=-1) if gated else x
    padded = F.pad(value.transpose(1, 2), (kernel - 1, 0))
    for row, slot in ((0, 4), (1, 0)):
        taps = weight if chosen is None else weight[chosen[slot]]
        expected = F.conv1d(
            padded[row : row + 1], taps.unsqueeze(1), bias, groups=channels
        ).transpose(1, 2)
        if norm is not None:
            expected = F.silu(F.rms_norm(expected, (channels,), norm, 1e-5))
        torch.testing.assert_close(y[row], expected[0], rtol=1e-4, atol=1e-5)
        if kernel > 1:
            torch.testing.assert_close(tail[slot], padded[row, :, 1 - kernel :])
    assert not y[2].any()
    assert bool((tail[2] == 7.0).all()) and not tail[[1, 3]].any()


def test_a_spoiled_slot_spoils_nobody_else():
    x, weight = torch.randn(2, 1, 16, device=DEVICE), torch.randn(16, 4, device=DEVICE)
    tail = torch.zeros(2, 16, 3, device=DEVICE)
    tail[0] = torch.nan
    slots = torch.tensor([1, 0], device=DEVICE)
    args = {"gated": False, "norm": None, "options": None}
    y = step(x, tail, weight, None, slots, **args)
    assert y[1].isnan().all() and y[0].isfinite().all() and tail[1].isfinite().all()


@pytest.mark.skipif(INTERPRETED, reason="the launcher is called directly there")
def test_what_does_not_fit_is_refused():
    x, tail, weight = torch.zeros(2, 1, 16), torch.zeros(3, 16, 3), torch.zeros(16, 4)
    slots = torch.tensor([0, 1])
    with pytest.raises(KernelError, match="don't fit a tail"):
        conv_step_(x, tail, weight[:, :3], None, slots)
    with pytest.raises(KernelError, match="of torch.int32"):
        conv_step_(x, tail, weight, None, slots.int())
    with pytest.raises(KernelError, match="must be contiguous"):
        conv_step_(x, tail, torch.zeros(4, 16).t(), None, slots)
