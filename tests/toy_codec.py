"""A random codec, small enough for tests, whose codes and sound depend on what it hears."""

from functools import cache

import torch

from audiossm.codec import Codec, CodecConfig
from audiossm.streaming import AudioCodec

__all__ = ["make_audio_codec", "make_codec"]


def make_codec(seed: int = 3) -> Codec:
    """A codec of 4 groups with the weights of ``seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = Codec(CodecConfig.tiny()).requires_grad_(False)
    codec.to_latent.weight.mul_(2.0)
    codec.decoder.head.weight.mul_(3.0)
    return codec


@cache
def make_audio_codec(seed: int = 3) -> AudioCodec:
    """The same one as people use it."""
    return AudioCodec(make_codec(seed), name="toy", model_hash=f"{seed:032x}")
