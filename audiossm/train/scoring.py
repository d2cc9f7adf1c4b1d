"""Word errors while training, without the evaluation extra."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from torchaudio.functional import edit_distance

from audiossm.decoding import best_labels
from audiossm.models import Recogniser, RecogniserConfig
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.corpus import Corpus
from audiossm.train.transducer import Transducer

__all__ = ["greedy_wer", "transducer_wer", "utterances"]


@torch.no_grad()
def greedy_wer(network: Recogniser, corpus: Corpus, rows: int = 32) -> float:
    """Return the greedy word error rate (a fraction) at the longest look-ahead."""
    was_training = network.training
    network.eval()
    stack, late = network.config.stack, max(network.config.lookahead_frames)
    told: dict[int, list[int]] = {}
    for items, frames, audio in utterances(corpus, network.config, rows):
        log_probs = network(audio)[:, late * stack :]
        for row, item in enumerate(items):
            labels, _ = best_labels(log_probs[row, : frames[row] * stack])
            told[item] = [
                new for old, new in zip([0, *labels], labels, strict=False) if new not in (0, old)
            ]
    network.train(was_training)
    return word_errors(network.config, corpus, told)


@torch.no_grad()
def transducer_wer(network: Recogniser, head: Transducer, corpus: Corpus, rows: int = 32) -> float:
    """Do what ``greedy_wer`` does with what a transducer's head writes."""
    modes = network.training, head.training
    network.eval(), head.eval()
    late = max(network.config.lookahead_frames)
    told: dict[int, list[int]] = {}
    for items, frames, audio in utterances(corpus, network.config, rows):
        state = network.init_state(len(items))
        encoded, encoder = network.encoder.step(audio, state.encoder)
        hidden, _, _ = network.step_encoded(encoded, state._replace(encoder=encoder))
        written = head.write(hidden[:, late:], torch.tensor(frames))
        told |= dict(zip(items, written, strict=True))
    network.train(modes[0]), head.train(modes[1])
    return word_errors(network.config, corpus, told)


def utterances(
    corpus: Corpus, config: RecogniserConfig, rows: int
) -> Iterator[tuple[list[int], list[int], Tensor]]:
    """Yield items of like length, their backbone frames, and their audio with silence after it."""
    late = max(config.lookahead_frames)
    order = sorted(range(len(corpus)), key=lambda item: int(corpus.sizes[item]))
    for at in range(0, len(order), rows):
        items = order[at : at + rows]
        frames = [-(-int(corpus.sizes[item]) // config.frame_size) for item in items]
        samples = (max(frames) + late) * config.frame_size
        batch = corpus.batch([[item] for item in items], samples, random.Random(0))
        yield items, frames, batch.audio


def word_errors(config: RecogniserConfig, corpus: Corpus, told: dict[int, list[int]]) -> float:
    """Return the word error rate of each item's labels."""
    vocabulary, errors, words = Vocabulary(config.pieces), 0, 0
    for item, labels in told.items():
        reference = normalise_text(corpus.texts[item]).split()
        errors += edit_distance(reference, vocabulary.decode(labels).split())
        words += len(reference)
    return errors / max(words, 1)
