"""The codec while it is trained: with a phone head on its first group."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from audiossm.checkpoint import ModelFolder
from audiossm.codec import Codec, CodecConfig, LoadedCodec
from audiossm.config import tell_differences
from audiossm.errors import ConfigError
from audiossm.models import LoadedRecogniser
from audiossm.nn import Block, Mamba3Config, RMSNorm

__all__ = ["CodecTrainee", "capture"]

WIDTH = 128


class FirstGroupHead(nn.Module):
    """Guess phones from one group alone: what that takes, the group learns to carry.

    One causal Mamba-3 layer, thrown away after training.
    """

    def __init__(self, group_dim: int, num_phones: int) -> None:
        super().__init__()
        mixer = Mamba3Config(d_model=WIDTH, d_state=32, head_dim=32)
        self.in_proj = nn.Linear(group_dim, WIDTH)
        self.block = Block(mixer, 2 * WIDTH)
        self.norm = RMSNorm(WIDTH)
        self.out = nn.Linear(WIDTH, num_phones + 1)

    def forward(self, group: Tensor) -> Tensor:
        """Map (batch, frames, group_dim) to log-probabilities (batch, frames, num_phones + 1)."""
        logits: Tensor = self.out(self.norm(self.block(self.in_proj(group).float())))
        return logits.float().log_softmax(-1)


class CodecTrainee(nn.Module):
    """The codec and what only training needs.

    Args:
        config: the codec's sizes.
        num_phones: phone symbols, the blank not counted.
    """

    def __init__(self, config: CodecConfig, num_phones: int) -> None:
        super().__init__()
        self.codec = Codec(config)
        self.phone_head = FirstGroupHead(config.quantiser.group_dim, num_phones)

    def forward(self, spectra: Tensor, num_groups: Tensor) -> tuple[Tensor, Tensor]:
        """Encode spectra and decode them from the first groups.

        Args:
            spectra: (rows, spectra, 2 * bins) of the codec's encoder, masked or not.
            num_groups: (rows,) int64, how many groups each row is decoded from.

        Returns:
            (rows, samples) float32, ``codec.delay`` late; and the first group's values
            (rows, frames, group_dim), for the phone head. Rounding lets gradients through.
        """
        codec, rows = self.codec, len(spectra)
        hidden, _ = codec.encoder.step_spectra(spectra, codec.encoder.init_state(rows))
        latent, _ = codec.latent_step(hidden, spectra, codec.init_encoding(rows).detail)
        values = codec.quantiser(latent)
        kept = codec.quantiser.keep_groups(values, num_groups)
        samples, _ = codec.decoder.step(kept, codec.decoder.init_state(rows))
        return samples, values[..., : codec.config.quantiser.group_dim]

    def begin_from(self, name: str) -> None:
        """Take the weights of another codec, or the encoder's of a recogniser.

        Raises:
            ConfigError: it has other sizes.
            ModelError: there is no such model.
        """
        ours: Any = self.codec
        if ModelFolder.open(name).kind == "codec":
            theirs: Any = LoadedCodec.load(name).network
        else:
            ours, theirs = self.codec.encoder, LoadedRecogniser.load(name).network.encoder
        if told := tell_differences(theirs.config, ours.config):
            raise ConfigError(f"model {name!r} has other sizes: {told}")
        ours.load_state_dict(theirs.state_dict())


def capture(
    trainee: CodecTrainee, shapes: Iterable[tuple[int, int]]
) -> dict[tuple[int, ...], nn.Module]:
    """Capture the network, forward and backward, as CUDA graphs: one launch instead of hundreds.

    Args:
        trainee: on a CUDA device, training.
        shapes: (rows, samples) of each kind of batch.

    Returns:
        For each shape a module that shares the trainee's weights and takes such batches, under
        bfloat16 autocast without its cache.
    """
    codec, models = trainee.codec, dict[tuple[int, ...], nn.Module]()
    for shape in shapes:
        # a copy has a forward of its own, which the graph replaces, but the same weights
        model = copy.copy(trainee)
        audio = torch.zeros(shape, device=codec.to_latent.weight.device)
        sample = (codec.encoder.stft(audio), codec.quantiser.draw_num_groups(len(audio)))
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            torch.cuda.make_graphed_callables(model, sample, allow_unused_input=True)
        models[shape] = model
    return models
