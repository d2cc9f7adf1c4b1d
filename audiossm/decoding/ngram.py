"""A word n-gram language model in arrays, packed in one file."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from audiossm.errors import ModelError

__all__ = [
    "DEFAULT_LM",
    "MARKS",
    "MAX_ORDER",
    "MAX_WORDS",
    "SENTENCE_END",
    "SENTENCE_START",
    "UNKNOWN",
    "Level",
    "NgramModel",
    "pack_ngrams",
]

DEFAULT_LM = "books"
LM_FILE = "ngrams.safetensors"
MAX_ORDER = 4
# the first word ids; the words of the lexicon follow, sorted
UNKNOWN, SENTENCE_START, SENTENCE_END = 0, 1, 2
MARKS = ("<unk>", "<s>", "</s>")
MAX_WORDS = 1 << 16
MANY = 255


class Level(NamedTuple):
    """The n-grams of one order, sorted; those with the same context stand together."""

    words: NDArray[np.uint16]  # the last word
    probs: NDArray[np.float32]  # its log-probability after the others
    backoffs: NDArray[np.float32]  # log-weight of the shorter context, where this is a context
    children: NDArray[np.int32]  # how many n-grams of the next order begin with this one


def pack_ngrams(words: Sequence[str], levels: Sequence[Level]) -> bytes:
    """Write words and n-grams to bytes: log-probabilities become 8 bits, evenly spaced.

    Most n-grams are no context of longer ones: one bit says so, and nothing more is stored of it.

    Args:
        words: of the lexicon, sorted; their ids begin after those of the marks.
        levels: orders 1 to ``MAX_ORDER`` at most, the first with every word and mark.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "lexicon": np.frombuffer("\n".join(words).encode(), np.uint8).copy()
    }
    for order, level in enumerate(levels, 1):
        arrays[f"{order}.words"] = level.words
        quantities = {"probs": level.probs}
        if order < len(levels):
            is_context = level.children > 0
            children = level.children[is_context]
            quantities["backoffs"] = level.backoffs[is_context]
            arrays[f"{order}.contexts"] = np.packbits(is_context)
            # most contexts have few n-grams: what a byte can't hold stands apart, in order
            arrays[f"{order}.children"] = np.minimum(children, MANY).astype(np.uint8)
            arrays[f"{order}.children.many"] = children[children >= MANY]
        for name, values in quantities.items():
            low, high = float(values.min()), float(values.max())
            step = max(high - low, 1e-6) / 255
            arrays[f"{order}.{name}"] = np.rint((values - low) / step).astype(np.uint8)
            arrays[f"{order}.{name}.scale"] = np.array([low, step], np.float32)
    return save(arrays)


class NgramModel:
    """Log-probabilities of words after up to three others, as ``search`` reads them.

    All n-grams have one number, a word's being its id. The n-grams that go on from number ``n`` are
    ``first[n]`` to ``first[n + 1]``, sorted by ``words``, their last word; the longest have none.
    """

    def __init__(self, data: bytes, name: str) -> None:
        arrays = load(data)
        self.name, self.hash = name, hashlib.sha256(data).hexdigest()
        self.lexicon: tuple[str, ...] = tuple(arrays["lexicon"].tobytes().decode().split("\n"))
        orders = range(1, MAX_ORDER + 1)
        levels = [order for order in orders if f"{order}.words" in arrays]
        self.order = len(levels)
        self.words = np.concatenate([arrays[f"{order}.words"] for order in levels])
        self.probs = np.concatenate([_read_scale(arrays, f"{n}.probs") for n in levels])
        shorter = levels[:-1]
        is_context = np.concatenate([_read_contexts(arrays, n) for n in shorter])
        # what is no context has no histories of its own, and its weight is one
        self.backoffs = np.zeros(len(is_context), np.float32)
        self.backoffs[is_context] = np.concatenate(
            [_read_scale(arrays, f"{n}.backoffs") for n in shorter]
        )
        children = np.zeros(len(is_context), np.int32)
        children[is_context] = np.concatenate([_read_children(arrays, n) for n in shorter])
        num_words = len(arrays["1.words"])
        if num_words != len(MARKS) + len(self.lexicon):
            raise ValueError(f"{num_words} unigrams for {len(self.lexicon)} words")
        ends = np.cumsum(children, dtype=np.int64) + num_words
        if ends[-1] != len(self.words):
            raise ValueError(f"contexts have {ends[-1]} n-grams in all, not {len(self.words)}")
        self.first = np.concatenate([[num_words], ends]).astype(np.int32)

    @staticmethod
    @cache
    def load(name: str = DEFAULT_LM) -> "NgramModel":
        """Read a language model that came with the package or stands in its checkout (once).

        Raises:
            ModelError: it is missing or damaged.
        """
        path = shipped_ngrams(name)
        try:
            return NgramModel(path.read_bytes(), name)
        except (OSError, ValueError, KeyError, IndexError, SafetensorError) as exc:
            raise ModelError(f"{path}: can't read this language model ({exc!r})") from exc


def _read_scale(arrays: dict[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    low, step = arrays[f"{name}.scale"].astype(np.float32)
    values: NDArray[np.float32] = arrays[name].astype(np.float32)
    values *= step
    values += low
    return values


def _read_contexts(arrays: dict[str, NDArray[np.generic]], order: int) -> NDArray[np.bool_]:
    bits = arrays[f"{order}.contexts"].astype(np.uint8)
    return np.unpackbits(bits, count=len(arrays[f"{order}.words"])).astype(np.bool_)


def _read_children(arrays: dict[str, NDArray[np.generic]], order: int) -> NDArray[np.int32]:
    children = arrays[f"{order}.children"].astype(np.int32)
    children[children == MANY] = arrays[f"{order}.children.many"]
    return children


def shipped_ngrams(name: str) -> Path:
    """Return where the language model is."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_assets" / "lm"
    folder = installed if installed.is_dir() else package.parent / "assets" / "lm"
    return folder / name / LM_FILE
