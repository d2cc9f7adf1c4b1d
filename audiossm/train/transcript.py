"""What a recogniser's transcript of a batch is worth: CTC of letters and phones, consistency."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiossm.models import Recogniser, RecogniserState
from audiossm.train.augment import augment_audio, mask_spectra, warp_spectra
from audiossm.train.corpus import Batch, Corpus
from audiossm.train.grammar import Grammar, log_partition
from audiossm.train.losses import consistency, ctc_of_heads, send
from audiossm.train.ranks import ALONE, Ranks
from audiossm.train.transducer import Transducer, transducer_loss

__all__ = ["transcript_loss"]


def transcript_loss(
    model: nn.Module,
    net: Recogniser,
    batch: Batch,
    noise: Corpus | None,
    hp: dict[str, Any],
    begun: tuple[RecogniserState, Tensor | None],
    grammars: Sequence[Grammar] = (),
    transducer: Transducer | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, dict[str, Tensor], RecogniserState]:
    """Return the loss of one batch, its parts, and the state at the end of each row and view.

    Args:
        model: the trainee, captured or not.
        net: the recogniser in it.
        batch: rows with letters and phones.
        noise: for augmentation, or None.
        hp: ``views`` of each row, weights and augmentation, as in the recipe's config.toml.
        begun: a state, and which row of it each row of each view goes on from, as ``Trainee``
            takes them.
        grammars: of letters and phones, if ``grammar_weight`` isn't 0.
        transducer: the head of ``model``, if it has one.
        ranks: whose rows these are; losses are such that their mean over processes is that of the
            whole batch.
    """
    config, device, views = net.config, batch.audio.device, hp["views"]
    with torch.no_grad():
        audio = augment_audio(batch.audio, noise, hp["augment"], ranks)
        late = max(config.lookahead_frames) * config.frame_size
        spectra = net.encoder.stft(nn.functional.pad(audio, (0, late)))
        warped = (warp_spectra(spectra, hp["warp"], ranks) for _ in range(views))
        masked = torch.cat([mask_spectra(view, hp["masks"], ranks) for view in warped])
    shares = torch.tensor(hp["lookahead_shares"])
    drawn = torch.multinomial(shares, ranks.count * len(audio), replacement=True)
    option = send(ranks.own_rows(drawn).repeat(views), device)
    whole_frames = (batch.lengths + config.frame_size - 1) // config.frame_size
    frames = config.stack * whole_frames.repeat(views)
    on_gpu = device.type == "cuda"
    with (
        ranks.apart(device),
        torch.autocast(device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False),
    ):
        letters, phones, state, *heard = model(masked, option, *begun)
    counts = [sum(map(len, rows)) for rows in batch.labels[:2]]
    worth = ranks.shares([*counts, int(frames.sum())])
    heads = [letters] if phones is None else [letters, phones]
    told = [labels * views for labels in batch.labels[: len(heads)]]
    costs = ctc_of_heads(heads, frames, told)
    parts = {"ctc": worth[0] * costs[0]}
    loss = parts["ctc"]
    if phones is not None:
        parts["phone"] = worth[1] * costs[1]
        loss = loss + hp["phone_weight"] * parts["phone"]
    if transducer is not None:
        with (
            ranks.apart(device),
            torch.autocast(device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False),
        ):
            own = worth[0] * transducer_loss(
                transducer, heard[0], whole_frames.repeat(views), batch.labels[0] * views
            )
        parts["transducer"] = own
        loss = loss + hp["transducer_weight"] * own
    names = ("letters_against", "phones_against")
    for name, log_probs, labels, grammar, share in zip(
        names, (letters, phones), batch.labels, grammars, worth, strict=False
    ):
        num_labels = views * sum(map(len, labels))
        paths = log_partition(log_probs, send(frames, device), grammar).sum()
        parts[name] = share * paths / num_labels
        loss = loss + hp["grammar_weight"] * parts[name]
    if views == 2:
        parts["consistency"] = worth[-1] * consistency(letters, frames)
        loss = loss + hp["consistency_weight"] * parts["consistency"]
    return loss, parts, state
