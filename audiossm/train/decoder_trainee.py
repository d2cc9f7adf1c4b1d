"""A codec's decoder and its discriminators while they are trained against each other."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from audiossm.codec.decoder import Decoder
from audiossm.train.discriminators import Discriminators, Judgement

__all__ = ["DecoderTrainee", "capture"]

Speak = Callable[[Tensor], Tensor]
Tell = Callable[[Tensor], tuple[Judgement, ...]]


class DecoderTrainee(nn.Module):
    """Both sides of the second stage.

    Args:
        decoder: the one that is trained.
        skip_frames: of a row's start, which don't count: the state is still cold.
    """

    def __init__(self, decoder: Decoder, skip_frames: int) -> None:
        super().__init__()
        self.decoder, self.judges = decoder, Discriminators()
        self.skip = skip_frames * decoder.config.frame_size

    def speak(self, values: Tensor) -> Tensor:
        """Decode values (rows, frames, latent_dim): (rows, samples), in time with ``in_time``."""
        samples, _ = self.decoder.step(values, self.decoder.init_state(len(values)))
        return samples[:, self.skip + self.decoder.delay :]

    def in_time(self, audio: Tensor) -> Tensor:
        """Return what ``speak`` should say: audio (rows, samples) without what it can't know."""
        return audio[:, self.skip : audio.shape[1] - self.decoder.delay]

    def tell(self, x: Tensor) -> tuple[Judgement, ...]:
        """Judge recorded rows, then decoded ones: (2 * rows, samples)."""
        judgements: tuple[Judgement, ...] = self.judges(x)
        return judgements


class Speaker(nn.Module):
    """``speak`` as a module with the decoder's weights: what is captured is a module."""

    def __init__(self, trainee: DecoderTrainee) -> None:
        super().__init__()
        self.trainee = trainee

    def forward(self, values: Tensor) -> Tensor:
        """Do what ``speak`` does."""
        return self.trainee.speak(values)


def capture(
    trainee: DecoderTrainee, shapes: Iterable[tuple[int, int]]
) -> dict[tuple[int, ...], tuple[Speak, Tell]]:
    """Capture both sides, forward and backward, as CUDA graphs.

    Args:
        trainee: on a CUDA device, training.
        shapes: (rows, samples) of each kind of batch.

    Returns:
        For each shape ``speak`` and ``tell`` for such batches, under bfloat16 autocast without its
        cache.
    """
    decoder, captured = trainee.decoder, dict[tuple[int, ...], tuple[Speak, Tell]]()
    device = decoder.in_proj.weight.device
    for rows, samples in shapes:
        speaker = Speaker(trainee)
        # a copy has a forward of its own, which the graph replaces, but the same weights
        judges = copy.copy(trainee.judges)
        frames = samples // decoder.config.frame_size
        values = torch.zeros(rows, frames, decoder.latent_dim, device=device)
        heard = trainee.in_time(torch.zeros(2 * rows, samples, device=device)).requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            for module, sample in ((speaker, values), (judges, heard)):
                torch.cuda.make_graphed_callables(module, (sample,), allow_unused_input=True)
        captured[rows, samples] = speaker, judges
    return captured
