"""A random recogniser, small enough for tests, whose labels change with what it hears."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from audiossm.models import Recogniser, RecogniserConfig
from audiossm.rounding import restore_rows, round_rows
from audiossm.streaming import Transcriber

SPEECH = Path(__file__).parent / "speech"


@cache
def make_transcriber(seed: int = 2, with_loop: bool = False) -> Transcriber:
    """A transcriber with the weights of ``seed``; its tokens are nonsense, but many.

    With a loop, live streams are listened to by it, as those of shipped models; else by torch.
    """
    config = RecogniserConfig.tiny()
    if with_loop:
        config = replace(config, encoder=replace(config.encoder, spectra="magnitude"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Recogniser(config)
    with torch.no_grad():
        network.head.weight.mul_(10.0)
        # blanks, so that words have pauses; word breaks, so that there are words
        pieces = network.head.bias.view(-1, len(network.config.pieces))
        pieces[:, :2] += torch.tensor([2.5, 2.0])
        for weight in network.parameters() if with_loop else ():
            if weight.dim() == 2:
                weight.copy_(restore_rows(*round_rows(weight)))
    return Transcriber(network, name="tiny", model_hash=f"{seed:032x}")


@cache
def read_speech(name: str = "river") -> NDArray[np.float32]:
    """The samples of one of the committed recordings, 16 kHz."""
    samples, _ = soundfile.read(SPEECH / f"{name}.flac", dtype="float32")
    samples.flags.writeable = False
    return samples
