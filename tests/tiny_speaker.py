"""A random generator, small enough for tests, that says nonsense at the length of speech."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from audiossm.lexicon import Lexicon
from audiossm.models import Generator, GeneratorConfig, Voice
from audiossm.nn import map_state
from audiossm.pronouncer import Pronouncer
from audiossm.streaming import Speaker
from tiny_sounder import make_sounder
from toy_codec import make_audio_codec

__all__ = ["TEXT", "make_generator", "make_speaker", "make_voice"]

TEXT = "Hello there, it's 9 o'clock. Was that a river? The old house stood at the river"


def make_generator(seed: int = 5) -> Generator:
    """A network with the weights of ``seed``: units last some frames, and codes vary."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Generator(GeneratorConfig.tiny()).requires_grad_(False)
    network.head.weight.mul_(4.0)
    network.head.bias[-1] = -1.5
    return network


@cache
def make_speaker(folder: Path | None = None) -> Speaker:
    """The same one as people use it; its own words are those of a small lexicon."""
    speaker = Speaker(
        make_generator(), make_audio_codec(), name="tiny", model_hash=f"{5:032x}", folder=folder
    )
    speaker.pronouncer = Pronouncer(
        Lexicon({"hello": "h ə l ˈoʊ", "the": "ð ə", "a": "ə", "that": "ð æ t"}), make_sounder()
    )
    return speaker


def make_voice(seed: int = 1) -> Voice:
    """A voice of ``make_speaker`` that was tuned, as far as anybody can tell: it has a state."""
    speaker, noise = make_speaker(), torch.Generator().manual_seed(seed)
    state = map_state(
        lambda part: 0.3 * torch.randn(part.shape, generator=noise), speaker.network.init_state(1)
    )
    vector = np.random.default_rng(seed).normal(size=speaker.config.d_voice).astype(np.float32)
    return Voice(
        name="anna", vector=vector, pace=0.1, state=state, origin="o", licence="l", gain_db=3.5
    )
