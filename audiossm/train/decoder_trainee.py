"""A codec's second stage and its discriminators while they are trained against each other."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from audiossm.codec import Codec
from audiossm.train.discriminators import Discriminators, Judgement

__all__ = ["DecoderTrainee", "capture"]

Speak = Callable[[Tensor, Tensor, Tensor], Tensor]
Tell = Callable[[Tensor], tuple[Judgement, ...]]


class DecoderTrainee(nn.Module):
    """Both sides of the second stage.

    The encoder stays as it is, and so does the first group of codes.

    Args:
        codec: whose decoder is trained.
        skip_frames: of a row's start, which don't count: the state is still cold.
        train_codes: whether what makes the other groups of the encoder's frames is trained too;
            codes made before then mean other sounds.
    """

    def __init__(self, codec: Codec, skip_frames: int, *, train_codes: bool) -> None:
        super().__init__()
        self.codec, self.judges, self.train_codes = codec, Discriminators(), train_codes
        codec.requires_grad_(False)
        codec.decoder.requires_grad_(True)
        if train_codes:
            codec.to_latent.requires_grad_(True)
            if codec.detail is not None:
                codec.detail.requires_grad_(True)
        self.skip = skip_frames * codec.config.frame_size

    @torch.no_grad()
    def hear(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``speak`` takes of (rows, samples): frames, spectra, numbers of groups."""
        codec, rows = self.codec, len(audio)
        spectra = codec.encoder.stft(audio)
        frames, _ = codec.encoder.step_spectra(spectra, codec.encoder.init_state(rows))
        return frames.float(), spectra, codec.quantiser.draw_num_groups(rows)

    def speak(self, frames: Tensor, spectra: Tensor, num_groups: Tensor) -> Tensor:
        """Quantise and decode: (rows, samples), in time with ``in_time``.

        Args:
            frames: (rows, frames, d_model), the encoder's.
            spectra: (rows, spectra, 2 * bins), what it made them of.
            num_groups: (rows,) int64, how many groups each row is decoded from.
        """
        codec, rows, first = self.codec, len(frames), self.codec.config.quantiser.group_dim
        latent, _ = codec.latent_step(frames, spectra, codec.init_encoding(rows).detail)
        latent = torch.cat([latent[..., :first].detach(), latent[..., first:]], dim=-1)
        values = codec.quantiser.keep_groups(codec.quantiser(latent), num_groups)
        samples, _ = codec.decoder.step(values, codec.decoder.init_state(rows))
        return samples[:, self.skip + codec.delay :]

    def in_time(self, audio: Tensor) -> Tensor:
        """Return what ``speak`` should say: audio (rows, samples) without what it can't know."""
        return audio[:, self.skip : audio.shape[1] - self.codec.delay]

    def tell(self, x: Tensor) -> tuple[Judgement, ...]:
        """Judge recorded rows, then decoded ones: (2 * rows, samples).

        Both are scaled by the recording's level: quiet speech is judged as strictly as loud.
        """
        recorded, _ = x.float().chunk(2)
        level = recorded.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
        judgements: tuple[Judgement, ...] = self.judges(x / level.repeat(2, 1))
        return judgements


class Speaker(nn.Module):
    """``speak`` as a module with the codec's weights: what is captured is a module."""

    def __init__(self, trainee: DecoderTrainee) -> None:
        super().__init__()
        self.codec = trainee.codec
        self.speak = trainee.speak

    def forward(self, frames: Tensor, spectra: Tensor, num_groups: Tensor) -> Tensor:
        """Do what ``speak`` does."""
        return self.speak(frames, spectra, num_groups)


class Teller(nn.Module):
    """``tell`` as a module with the judges' weights."""

    def __init__(self, trainee: DecoderTrainee) -> None:
        super().__init__()
        self.judges = trainee.judges
        self.tell = trainee.tell

    def forward(self, x: Tensor) -> tuple[Judgement, ...]:
        """Do what ``tell`` does."""
        return self.tell(x)


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
    captured = dict[tuple[int, ...], tuple[Speak, Tell]]()
    device = trainee.codec.to_latent.weight.device
    for rows, samples in shapes:
        speaker, teller = Speaker(trainee), Teller(trainee)
        audio = torch.zeros(rows, samples, device=device)
        heard = trainee.in_time(audio).repeat(2, 1).requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            for module, sample in ((speaker, trainee.hear(audio)), (teller, (heard,))):
                torch.cuda.make_graphed_callables(module, sample, allow_unused_input=True)
        captured[rows, samples] = speaker, teller
    return captured
