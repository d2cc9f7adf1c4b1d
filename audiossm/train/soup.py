"""Averages of tuned models: of which (model soups, 2203.05482), and how far from their base."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchaudio.functional import edit_distance

from audiossm.decoding import DecoderName, choose_decoder, make_decoder
from audiossm.decoding.words import DecodedWord
from audiossm.models import Recogniser
from audiossm.models.loaded import TAIL_S
from audiossm.processes import start_processes
from audiossm.text import Vocabulary, normalise_text
from audiossm.train.corpus import Corpus
from audiossm.train.scoring import utterances

__all__ = ["Weights", "average", "blend", "choose_share", "choose_soup", "judging", "mix"]

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
Weights = Mapping[str, Tensor]
Job = tuple[DecoderName, tuple[str, ...], tuple[str, ...], list[tuple[str, NDArray[np.float32]]]]


def average(models: Sequence[Weights]) -> dict[str, Tensor]:
    """Return the mean of models' weights, in their order."""
    return {name: torch.stack([each[name] for each in models]).mean(0) for name in models[0]}


def choose_soup(
    models: Mapping[str, Weights],
    wrong: Callable[[Weights], float],
    told: Callable[[Sequence[str], float], None] = lambda names, rate: None,
) -> list[str]:
    """Return the names of those whose average is best: the greedy soup.

    The best one comes first; then each of the others, from the better to the worse, joins if the
    average isn't worse with it.

    Args:
        models: weights by name, of one shape.
        wrong: how bad weights are.
        told: is called with each average that was tried, and how bad it is.
    """

    def judge(names: Sequence[str]) -> float:
        rate = wrong(average([models[name] for name in names]))
        told(names, rate)
        return rate

    alone = {name: judge([name]) for name in models}
    first, *others = sorted(alone, key=lambda name: alone[name])
    chosen, least = [first], alone[first]
    for name in others:
        rate = judge([*chosen, name])
        if rate <= least:
            chosen, least = [*chosen, name], rate
    return chosen


def mix(base: Weights, tuned: Weights, share: float) -> dict[str, Tensor]:
    """Return weights that are by ``share`` on the way from a base to what it was tuned to."""
    return {name: torch.lerp(value, tuned[name], share) for name, value in base.items()}


def choose_share(
    base: Weights,
    tuned: Weights,
    wrong: Callable[[Weights], float],
    told: Callable[[float, float], None] = lambda share, rate: None,
) -> float:
    """Return how far to go from a base towards what it was tuned to (WiSE-FT, 2109.01903).

    Args:
        base: weights.
        tuned: others of their shapes.
        wrong: how bad weights are.
        told: is called with each share that was tried, and how bad it is.
    """
    found = {}
    for share in SHARES:
        found[share] = wrong(mix(base, tuned, share))
        told(share, found[share])
    return min(SHARES, key=lambda share: found[share])


def blend(
    models: Mapping[str, Weights],
    base: Weights | None,
    network: Recogniser,
    part: nn.Module,
    corpus: Corpus,
    workers: int,
) -> Weights:
    """Return the best average of models, by the words that it gets wrong; print what was tried.

    Args:
        models: weights by name, of one shape.
        base: what they were tuned from; the average then goes only so far from it as is best.
        network: is used to hear; it is left with other weights.
        part: of it, what the weights are of.
        corpus: what it hears, on its device.
        workers: processes that search what was heard.
    """

    def wrong(candidate: Weights) -> float:
        part.load_state_dict(candidate)
        return word_error_rate(network)

    def tell(what: Sequence[str] | float, rate: float) -> None:
        told = f"{what:g} of the way" if isinstance(what, float) else " + ".join(what)
        print(f"{100 * rate:.2f} % of the words wrong: {told}", flush=True)

    with judging(corpus, workers) as word_error_rate:
        chosen = choose_soup(models, wrong, tell)
        mean: Weights = average([models[name] for name in chosen])
        print(f"averaged: {' + '.join(chosen)}")
        if base is not None:
            share = choose_share(base, mean, wrong, tell)
            mean = mix(base, mean, share)
            print(f"and {share:g} of the way from the base")
    return mean


@contextmanager
def judging(corpus: Corpus, workers: int) -> Iterator[Callable[[Recogniser], float]]:
    """Have processes ready that tell the share of a corpus's words that a recogniser gets wrong.

    The network hears many recordings at once, at its longest look-ahead, and processes search what
    it heard by its default search, so this is much faster than ``audiossm evaluate transcribe``. It
    has neither pauses at which a session makes words final nor the calibration by which weak words
    aren't told.
    """

    def word_error_rate(network: Recogniser) -> float:
        config = network.config
        heard = sorted(hear(network, corpus), key=lambda pair: -len(pair[1]))
        parts = [heard[i :: 2 * workers] for i in range(2 * workers)]
        jobs = [(choose_decoder(config), config.pieces, config.phones, part) for part in parts]
        errors, words = np.sum(list((pool.map if pool else map)(read, jobs)), axis=0)
        return float(errors / max(words, 1))

    several = workers > 1
    with start_processes(workers, torch.set_num_threads, 1) if several else nullcontext() as pool:
        yield word_error_rate


@torch.no_grad()
def hear(network: Recogniser, corpus: Corpus) -> list[tuple[str, NDArray[np.float32]]]:
    """Return texts, and log-probabilities (label frames, pieces or also phones), of recordings."""
    config = network.config
    late = max(config.lookahead_frames) * config.stack
    tail = round(TAIL_S * config.encoder.sample_rate / config.frame_size)
    found = []
    for items, frames, audio in utterances(corpus, config, rows=64):
        audio = torch.nn.functional.pad(audio, (0, tail * config.frame_size))
        letters, phones, _ = network.run(audio, network.init_state(len(items)))
        both = letters if phones is None else torch.cat([letters, phones], dim=-1)
        log_probs = both[:, late:].float().cpu().numpy()
        for row, item in enumerate(items):
            end = (frames[row] + tail) * config.stack
            found.append((corpus.texts[item], np.ascontiguousarray(log_probs[row, :end])))
    return found


def read(job: Job) -> tuple[int, int]:
    """Search some recordings; return wrong words and words."""
    name, pieces, phones, heard = job
    decoder = make_decoder(name, Vocabulary(pieces), phones)
    errors = words = 0
    for text, log_probs in heard:
        told, state = decoder.decode(torch.from_numpy(log_probs), decoder.init_state(0))
        told = [*told, *decoder.finish(state)]
        hypothesis = [item.word for item in told if isinstance(item, DecodedWord)]
        reference = normalise_text(text).split()
        errors += edit_distance(reference, hypothesis)
        words += len(reference)
    return errors, words
