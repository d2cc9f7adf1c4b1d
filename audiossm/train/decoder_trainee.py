"""A codec's second stage and its discriminators while they are trained against each other."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiossm.codec import Codec
from audiossm.codec.pitch import Pitch
from audiossm.train.discriminators import Discriminators, Judgement
from audiossm.train.pitch import PitchLoss, PitchTracker
from audiossm.train.ranks import ALONE, Ranks

__all__ = ["DecoderTrainee", "Said"]

COLD = 3  # first frames of a row that the encoder hears without what came before


class Said(NamedTuple):
    """What the decoder makes of a batch."""

    samples: Tensor  # (rows, samples), in time with ``in_time``
    spectra: Tensor  # (rows, spectra, 2 * bins): those of the head that these samples cover
    pitch: Tensor  # (): cross-entropy of the pitches that the source read; 0 without one
    in_tune: Tensor  # (): share of the voiced hops whose pitch is right


class DecoderTrainee(nn.Module):
    """Both sides of the second stage.

    The encoder stays as it is, and so does the first group of codes.

    Args:
        codec: whose decoder is trained.
        skip_frames: of a row's start, which don't count: the state is still cold.
        train_codes: whether what makes the other groups of the encoder's frames is trained too;
            codes made before then mean other sounds.
        ranks: the processes whose rows together are a batch.
    """

    def __init__(
        self, codec: Codec, skip_frames: int, *, train_codes: bool, ranks: Ranks = ALONE
    ) -> None:
        super().__init__()
        self.ranks = ranks
        self.codec, self.judges = codec, Discriminators()
        codec.requires_grad_(False)
        codec.decoder.requires_grad_(True)
        for module in codec.code_makers if train_codes else []:
            module.requires_grad_(True)
        self.skip = skip_frames * codec.config.frame_size
        decoder = codec.config.decoder
        if decoder.source is not None:
            self.tracker = PitchTracker(codec.config.sample_rate, decoder.hop)
            self.pitch_loss = PitchLoss(decoder.source.pitch, ranks)

    @torch.no_grad()
    def hear(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``speak`` takes of (rows, samples): frames and spectra."""
        encoder = self.codec.encoder
        spectra = encoder.stft(audio)
        frames, _ = encoder.step_spectra(spectra, encoder.init_state(len(audio)))
        return frames.float(), spectra

    def speak(
        self,
        frames: Tensor,
        spectra: Tensor,
        num_groups: Tensor,
        audio: Tensor | None = None,
        forced: Tensor | None = None,
    ) -> Said:
        """Quantise and decode.

        Args:
            frames: (rows, frames, d_model), the encoder's.
            spectra: (rows, spectra, 2 * bins), what it made them of.
            num_groups: (rows,) int64, how many groups each row is decoded from.
            audio: (rows, samples), what it is, if the pitch is to be learnt from it.
            forced: (): share of the rows whose source is told the pitch then.
        """
        codec, rows, first = self.codec, len(frames), self.codec.config.quantiser.group_dim
        latent, _ = codec.latent_step(frames, spectra, codec.init_encoding(rows).detail)
        latent = torch.cat([latent[..., :first].detach(), latent[..., first:]], dim=-1)
        values = codec.quantiser.keep_groups(codec.quantiser(latent), num_groups)
        pitch, read = self.find_pitch(values, audio, forced)
        shapes, state = codec.decoder.spectra_step(values, codec.decoder.init_state(rows), pitch)
        samples, _ = codec.decoder.istft.step(shapes, state.istft)
        hop, late = codec.decoder.istft.hop, self.skip + codec.delay
        whole = shapes[:, late // hop : shapes.shape[1] - codec.delay // hop]
        return Said(samples[:, late:], whole, *read)

    def find_pitch(
        self, values: Tensor, audio: Tensor | None, forced: Tensor | None
    ) -> tuple[Pitch | None, tuple[Tensor, Tensor]]:
        """Return at what pitch the source is to sound, and how well it is read."""
        source, nothing = self.codec.decoder.source, values.new_zeros(())
        if source is None or audio is None or forced is None:
            return None, (nothing, nothing)
        hertz, voiced = self.tracker(audio)
        logits, _ = source.reader.step(values, source.reader.init_state(len(values)))
        pitch, truth = source.reader.choose(logits), source.reader.place(hertz, voiced)
        drawn = self.ranks.rand(len(values), 1, device=values.device)
        told = (drawn < forced).expand_as(voiced)
        given = Pitch(*(torch.where(told, a, b) for a, b in zip(truth, pitch, strict=True)))
        loss = self.pitch_loss(logits, hertz, voiced)
        return given, (loss, self.pitch_loss.right(pitch, hertz, voiced))

    def in_time(self, audio: Tensor) -> Tensor:
        """Return what ``speak`` should say: audio (rows, samples) without what it can't know."""
        return audio[:, self.skip : audio.shape[1] - self.codec.delay]

    def hear_apart(self, said: Tensor, recorded: Tensor) -> Tensor:
        """Return how far apart the encoder hears both (rows, samples), over their variance, ()."""
        encoder, frame = self.codec.encoder, self.codec.config.frame_size
        both = torch.cat([said, recorded])[:, : said.shape[1] // frame * frame]
        frames, _ = encoder.step(both, encoder.init_state(len(both)))
        a, b = frames[:, COLD:].float().chunk(2)
        spread = self.ranks.gather_rows(b.detach()).var(dim=(0, 1)).mean()
        return (a - b).square().mean() / spread.clamp(min=1e-6)

    def tell(self, x: Tensor) -> tuple[Judgement, ...]:
        """Judge recorded rows, then decoded ones: (2 * rows, samples).

        Both are scaled by the recording's level: quiet speech is judged as strictly as loud.
        """
        recorded, _ = x.float().chunk(2)
        level = recorded.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
        judgements: tuple[Judgement, ...] = self.judges(x / level.repeat(2, 1))
        return judgements
