"""What a recogniser's transcript of a batch is worth: CTC of letters and phones, consistency."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiossm.models import Recogniser, RecogniserState
from audiossm.train.augment import augment_audio, mask_spectra, warp_spectra
from audiossm.train.corpus import Batch, Corpus
from audiossm.train.grammar import Grammar, log_partition
from audiossm.train.losses import consistency, ctc, send
from audiossm.train.transducer import Transducer, transducer_loss

__all__ = ["transcript_loss"]


def transcript_loss(
    model: nn.Module,
    net: Recogniser,
    batch: Batch,
    noise: Corpus | None,
    hp: dict[str, Any],
    state: RecogniserState,
    grammars: Sequence[Grammar] = (),
    transducer: Transducer | None = None,
) -> tuple[Tensor, dict[str, Tensor], RecogniserState]:
    """Return the loss of one batch, its parts, and the state at the end of each row and view.

    Args:
        model: the trainee, captured or not.
        net: the recogniser in it.
        batch: rows with letters and phones.
        noise: for augmentation, or None.
        hp: ``views`` of each row, weights and augmentation, as in the recipe's config.toml.
        state: what each row of each view begins with.
        grammars: of letters and phones, if ``grammar_weight`` isn't 0.
        transducer: the head of ``model``, if it has one.
    """
    config, device, views = net.config, batch.audio.device, hp["views"]
    with torch.no_grad():
        audio = augment_audio(batch.audio, noise, hp["augment"])
        late = max(config.lookahead_frames) * config.frame_size
        spectra = net.encoder.stft(nn.functional.pad(audio, (0, late)))
        masked = torch.cat(
            [mask_spectra(warp_spectra(spectra, hp["warp"]), hp["masks"]) for _ in range(views)]
        )
    shares = torch.tensor(hp["lookahead_shares"])
    option = send(torch.multinomial(shares, len(audio), replacement=True).repeat(views), device)
    whole_frames = (batch.lengths + config.frame_size - 1) // config.frame_size
    frames = config.stack * whole_frames.repeat(views)
    on_gpu = device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
        letters, phones, state, *heard = model(masked, option, state)
    parts = {"ctc": ctc(letters, frames, batch.labels[0] * views)}
    loss = parts["ctc"]
    if phones is not None:
        parts["phone"] = ctc(phones, frames, batch.labels[1] * views)
        loss = loss + hp["phone_weight"] * parts["phone"]
    if transducer is not None:
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
            own = transducer_loss(
                transducer, heard[0], whole_frames.repeat(views), batch.labels[0] * views
            )
        parts["transducer"] = own
        loss = loss + hp["transducer_weight"] * own
    names = ("letters_against", "phones_against")
    for name, log_probs, labels, grammar in zip(
        names, (letters, phones), batch.labels, grammars, strict=False
    ):
        num_labels = views * sum(map(len, labels))
        parts[name] = log_partition(log_probs, send(frames, device), grammar).sum() / num_labels
        loss = loss + hp["grammar_weight"] * parts[name]
    if views == 2:
        parts["consistency"] = consistency(letters, frames)
        loss = loss + hp["consistency_weight"] * parts["consistency"]
    return loss, parts, state
