"""Word errors while training, without the evaluation extra."""

import random

import torch
from torchaudio.functional import edit_distance

from audiossm.decoding import best_labels
from audiossm.models import Recogniser
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.corpus import Corpus

__all__ = ["greedy_wer"]


@torch.no_grad()
def greedy_wer(network: Recogniser, corpus: Corpus, rows: int = 32) -> float:
    """Return the greedy word error rate (a fraction) at the longest look-ahead."""
    was_training = network.training
    network.eval()
    config = network.config
    vocabulary, late = Vocabulary(config.pieces), max(config.lookahead_frames)
    order = sorted(range(len(corpus)), key=lambda item: int(corpus.sizes[item]))
    errors = words = 0
    for at in range(0, len(order), rows):
        items = order[at : at + rows]
        frames = [-(-int(corpus.sizes[item]) // config.frame_size) for item in items]
        samples = (max(frames) + late) * config.frame_size
        batch = corpus.batch([[item] for item in items], samples, random.Random(0))
        log_probs = network(batch.audio)[:, late * config.stack :]
        for row, item in enumerate(items):
            labels, _ = best_labels(log_probs[row, : frames[row] * config.stack])
            kept = [
                new for old, new in zip([0, *labels], labels, strict=False) if new not in (0, old)
            ]
            reference = normalise_text(corpus.texts[item]).split()
            errors += edit_distance(reference, vocabulary.decode(kept).split())
            words += len(reference)
    network.train(was_training)
    return errors / max(words, 1)
