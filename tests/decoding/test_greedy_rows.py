"""Many streams' greedy decoding in arrays: what the decoder of one stream finds, and its state."""

import random

import numpy as np
import pytest
import torch

from audiossm.decoding import (
    DecodedEndpoint,
    DecodedToken,
    DecodedWord,
    EndpointRules,
    GreedyDecoder,
    Segmenter,
    best_labels,
)
from audiossm.decoding.greedy_rows import RULES, GreedyRows, RowsFound, list_words
from heard_frames import VOCABULARY

FRAME_S = 0.02
DECODER = GreedyDecoder(VOCABULARY, pause_frames=6, max_pieces=5)
LIMITS = EndpointRules(silence_s=0.5, pause_s=0.2, longest_s=0.6)


def speak(rng: random.Random, frames: int) -> torch.Tensor:
    """Log-probabilities of letters held for a while, breaks and silences of all lengths."""
    labels: list[int] = []
    while len(labels) < frames:
        label = rng.choice([0, 0, 0, 1, 1, *range(2, len(VOCABULARY))])
        labels += [label] * rng.choice([1, 1, 2, 3, 9, 30] if label == 0 else [1, 1, 2, 3])
    logits = torch.rand(frames, len(VOCABULARY), generator=torch.manual_seed(rng.randrange(999)))
    logits[range(frames), labels[:frames]] += 1.5
    return logits.log_softmax(-1)


def find_fresh(labels: np.ndarray, late: int) -> np.ndarray:
    fresh, previous = np.zeros(len(labels), bool), 0
    for i, label in enumerate(labels.tolist()):
        fresh[i] = label not in (0, previous)
        previous = label if i >= late else 0
    return fresh


def list_items(found: RowsFound, row: int) -> list[list[object]]:
    words = [word for at, word in list_words(VOCABULARY, found.words) if at == row]
    tokens = [(id, frame) for at, id, frame, _ in zip(*found.tokens, strict=True) if at == row]
    ends = [
        DecodedEndpoint(RULES[rule], frame, start, end, ())
        for at, rule, frame, start, end in zip(*found.endpoints, strict=True)
        if at == row
    ]
    return [tokens, words, ends]


@pytest.mark.parametrize("rules", [LIMITS, None], ids=["endpoints", "none"])
def test_rows_find_what_the_decoder_finds_in_each(rules):
    rng = random.Random(3)
    lates = [0, 8, 4, 0]
    heard = [speak(rng, 400) for _ in lates]
    heard[3][:60, 0] = 0.0  # one is silent at first
    segmenter = Segmenter(DECODER, rules, FRAME_S, VOCABULARY)
    rows = GreedyRows(DECODER, rules, FRAME_S, 6)
    places = [5, 0, 3, 1]
    expected: list[list[list[object]]] = []
    ended = set()
    for place, late, frames in zip(places, lates, heard, strict=True):
        rows.write(place, segmenter.init_state(late))
        found, state = segmenter.decode(frames, segmenter.init_state(late))
        items = [*found, *segmenter.finish(state)]
        ended |= {item.rule for item in items if isinstance(item, DecodedEndpoint)}
        expected.append(
            [
                [(item.id, item.frame) for item in items if isinstance(item, DecodedToken)],
                *([i for i in items if isinstance(i, k)] for k in (DecodedWord, DecodedEndpoint)),
            ]
        )
        assert len(expected[-1][1]) > 10
    assert ended == ({"silence", "pause", "length", "end"} if rules else {"end"})
    got: list[list[list[object]]] = [[[], [], []] for _ in places]
    at, states = [0] * 4, [segmenter.init_state(late) for late in lates]
    while min(at) < 400:
        who = [i for i in range(4) if at[i] < 400 and rng.random() < 0.7]
        if not who:
            continue
        labels, scores = (
            np.stack(parts)
            for parts in zip(*(best_labels(heard[i][at[i] : at[i] + 2]) for i in who), strict=True)
        )
        fresh = np.stack(
            [find_fresh(best_labels(heard[i])[0], lates[i])[at[i] : at[i] + 2] for i in who]
        )
        found = rows.step(np.array([places[i] for i in who]), labels, scores, fresh)
        for i in who:
            _, states[i] = segmenter.decode(heard[i][at[i] : at[i] + 2], states[i])
            at[i] += 2
            kept = rows.read(places[i])
            for name, part in states[i].decoder._asdict().items():
                other = getattr(kept.decoder, name)
                assert other.dtype == part.dtype and np.array_equal(other, part), name
            assert np.array_equal(kept.marks, states[i].marks)
            for have, new in zip(got[i], list_items(found, places[i]), strict=True):
                have += new
    for i, place in enumerate(places):
        for have, new in zip(got[i], list_items(rows.finish(place), place), strict=True):
            have += new
    assert got == expected
