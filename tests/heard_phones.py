"""Log-probabilities of phones as a network would give them, and words that sound alike."""

import math

import numpy as np
import torch
from torch import Tensor

from audiossm.decoding.units import Phones
from audiossm.text import CHARACTERS, Vocabulary

# a letter stands for each
PHONES = tuple("aeiktsndrm")
SAID = {
    "a": [("e",), ("a",)],
    "am": [tuple("am")],
    "an": [tuple("an")],
    "ant": [tuple("ant")],
    "aunt": [tuple("ant")],
    "i": [tuple("ai")],
    "is": [tuple("is")],
    "kate": [tuple("ket")],
    "red": [tuple("red")],
    "read": [tuple("red"), tuple("rid")],
    "sea": [tuple("si")],
    "see": [tuple("si")],
    "seat": [tuple("sit")],
    "the": [tuple("da"), tuple("di")],
}
SENTENCES = (
    "i see the sea",
    "kate is an aunt",
    "i am kate",
    "an ant is red",
    "the seat is red",
    "i read",
    "see the ant",
    "the sea is a sea",
)
BREAK = len(PHONES) + 1
NUM_LETTERS = len(CHARACTERS)


def sound_out(words: list[str]) -> list[tuple[str, ...]]:
    """Say words that nobody knows as they are written."""
    return [tuple(word) for word in words]


def make_phones(said: dict[str, list[tuple[str, ...]]] = SAID) -> Phones:
    ways = {word: [(row, 1 / len(rows)) for row in rows] for word, rows in said.items()}
    return Phones(
        Vocabulary(CHARACTERS), PHONES, lambda word: ways.get(word, ()), sound_out, "test"
    )


def hear_phones(frames: str, sure: float = 0.9, other: dict[int, str] | None = None) -> Tensor:
    """Return frames of a phone each, "." being the blank; letters are heard as blanks."""
    symbols = "." + "".join(PHONES)
    probs = np.full((len(frames), len(symbols)), (1 - sure) / (len(symbols) - 1))
    for t, char in enumerate(frames):
        probs[t, symbols.index(char)] = sure
        if other and t in other:
            probs[t, symbols.index(char)] = probs[t, symbols.index(other[t])] = sure / 2
    return beside_letters(torch.from_numpy(np.log(probs).astype(np.float32)))


def beside_letters(phones: Tensor) -> Tensor:
    """Put letters before phones: blanks."""
    letters = torch.full((len(phones), NUM_LETTERS), math.log(1e-4))
    letters[:, 0] = math.log(1 - 1e-4 * (NUM_LETTERS - 1))
    return torch.cat([letters, phones], dim=1)


def make_phone_noise(num_frames: int, seed: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(num_frames, len(PHONES) + 1, generator=generator)
    logits[:, 0] += scale
    return beside_letters(logits.log_softmax(-1))
