"""The gated convolution streams, and sees as many frames as it says."""

import torch

from audiossm.nn import GatedConv
from contract import assert_streaming_equals_offline


def test_any_chunking_gives_the_offline_result():
    with torch.no_grad():
        assert_streaming_equals_offline(GatedConv(6, 5), torch.randn(2, 19, 6), time=1, trials=8)


def test_an_output_sees_the_kernel_and_no_frame_more():
    conv = GatedConv(4, 3)
    x = torch.randn(1, 8, 4)
    other = x.clone()
    other[:, 3] += 1.0
    changed = (conv(x) != conv(other)).any(-1)[0]
    assert changed.tolist() == [3 <= frame < 6 for frame in range(8)]


def test_without_its_last_weight_it_is_not_there():
    conv = GatedConv(4, 3)
    torch.nn.init.zeros_(conv.out.weight)
    x = torch.randn(2, 7, 4)
    assert torch.equal(conv(x), x)
