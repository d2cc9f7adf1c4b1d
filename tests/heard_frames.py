"""Log-probabilities as a network would give them, and what beam search makes of them."""

import itertools
import random

import numpy as np
import torch
from torch import Tensor

from audiossm.decoding import DecodedToken, DecodedWord
from audiossm.decoding.beam import BeamDecoder, BeamState
from audiossm.decoding.units import Letters
from audiossm.text import CHARACTERS, Vocabulary
from contract import random_split

VOCABULARY = Vocabulary(CHARACTERS)
LETTERS = Letters(VOCABULARY)
ROWS = {piece: i for i, piece in enumerate(CHARACTERS)} | {".": 0, "_": 1}
Found = list[DecodedToken | DecodedWord]
# every sequence of three words was seen: what the language model remembers tells all the words
RICH = tuple(" ".join(words) for words in itertools.product(("a", "b", "ab", "ba"), repeat=5))
LABELS = [0, ROWS["_"], ROWS["a"], ROWS["b"]]


def hear(frames: str, sure: float = 0.9, other: dict[int, str] | None = None) -> Tensor:
    """Return log-probabilities of a label a frame; ``other`` frames have a second one, at half."""
    probs = np.full((len(frames), len(CHARACTERS)), (1 - sure) / (len(CHARACTERS) - 1))
    for t, char in enumerate(frames):
        probs[t, ROWS[char]] = sure
        if other and t in other:
            probs[t, ROWS[char]] = probs[t, ROWS[other[t]]] = sure / 2
    return torch.from_numpy(np.log(probs).astype(np.float32))


def make_noise(num_frames: int, seed: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(num_frames, len(CHARACTERS), generator=generator)
    logits[:, 0] += scale
    return logits.log_softmax(-1)


def decode(decoder: BeamDecoder, log_probs: Tensor, late: int = 0) -> Found:
    found, state = decoder.decode(log_probs, decoder.init_state(late))
    return [*found, *decoder.finish(state)]


def text_of(found: Found) -> str:
    return " ".join(item.word for item in found if isinstance(item, DecodedWord))


def tokens_of(found: Found) -> list[tuple[str, int]]:
    return [(CHARACTERS[t.id], t.frame) for t in found if isinstance(t, DecodedToken)]


def equal(a: BeamState, b: BeamState) -> bool:
    """Rows beyond the beam's size and the tree's are whatever was there before."""
    rows, entries = int(a.beam_size[0]), int(a.history_size[0])
    return (
        all(
            np.array_equal(getattr(a, name), getattr(b, name))
            for name in ("frame", "emit_from", "company")
        )
        and (rows, entries) == (int(b.beam_size[0]), int(b.history_size[0]))
        and np.array_equal(a.beam_ints[:rows], b.beam_ints[:rows])
        and np.array_equal(a.beam_floats[:rows], b.beam_floats[:rows])
        and np.array_equal(a.history_entries[:entries], b.history_entries[:entries])
        and np.array_equal(a.history_scores[:entries], b.history_scores[:entries])
    )


def assert_pieces_are_one(decoder: BeamDecoder, seed: int, trials: int) -> None:
    """Any pieces of noise and words give the words, and the state, of the whole."""
    log_probs = torch.cat([make_noise(150, seed), hear("...the_cat_sat" + "." * 40)])
    whole, end = decoder.decode(log_probs, decoder.init_state(0))
    for trial in range(trials):
        state, found = decoder.init_state(0), []
        for piece in log_probs.split(random_split(len(log_probs), random.Random(trial))):
            items, state = decoder.decode(piece, state)
            found += items
        assert found == whole
        assert equal(state, end)
        assert decoder.finish(state) == decoder.finish(end)
