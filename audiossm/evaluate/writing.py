"""How well a writer punctuates: its marks and capitals against written sentences."""

import lzma
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiossm.errors import ManifestError
from audiossm.marks import COMMA, LOWER, QUESTION, STOP, UPPER, MarkedWord, read_marks
from audiossm.models import BORDER, Forms, LoadedWriter, Writer, choose_forms

__all__ = [
    "CLASSES",
    "ClassScore",
    "WritingScore",
    "find_logits",
    "mishear",
    "read_lines",
    "score_forms",
    "score_writer",
    "true_forms",
]

CHUNK = 512  # words at a time

CLASSES: dict[str, Callable[[Forms], Tensor]] = {
    "full stop": lambda forms: forms.marks == STOP,
    "comma": lambda forms: forms.marks == COMMA,
    "question mark": lambda forms: forms.marks == QUESTION,
    "capitals": lambda forms: forms.cases != LOWER,
    "upper case": lambda forms: forms.cases == UPPER,
}


@dataclass(frozen=True)
class ClassScore:
    """How often a class was right, written wrongly and missed."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The share of what was written that is right."""
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        """The share of what is right that was written."""
        return self.right / max(self.right + self.missed, 1)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / max(2 * self.right + self.wrong + self.missed, 1)


@dataclass(frozen=True, kw_only=True)
class WritingScore:
    """What ``score_writer`` measured."""

    model: str
    model_hash: str
    sentences: int
    words: int
    misheard: int
    classes: dict[str, ClassScore]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        return {
            "model": self.model,
            "model_hash": self.model_hash,
            "sentences": self.sentences,
            "words": self.words,
            "misheard": self.misheard,
            "classes": {
                name: {
                    "f1": score.f1,
                    "precision": score.precision,
                    "recall": score.recall,
                    "right": score.right,
                    "wrong": score.wrong,
                    "missed": score.missed,
                }
                for name, score in self.classes.items()
            },
        }


def read_lines(path: Path) -> list[str]:
    """Read a text file, packed by xz or not, a sentence a line.

    Raises:
        ManifestError: it can't be read.
    """
    try:
        data = path.read_bytes()
        return (lzma.decompress(data) if path.suffix == ".xz" else data).decode().splitlines()
    except (OSError, UnicodeDecodeError, lzma.LZMAError) as exc:
        raise ManifestError(f"{path}: can't read these sentences ({exc})") from exc


def score_forms(truth: Forms, found: Forms) -> dict[str, ClassScore]:
    """Compare how words were written with how they are."""
    scores = {}
    for name, belongs in CLASSES.items():
        true, told = belongs(truth), belongs(found)
        counts = (true & told, ~true & told, true & ~told)
        scores[name] = ClassScore(*(int(count.sum()) for count in counts))
    return scores


def true_forms(words: Sequence[MarkedWord]) -> Forms:
    """Return how words are written."""
    return Forms(*(torch.tensor([item[at] for item in words]) for at in (1, 2)))


@torch.no_grad()
def find_logits(network: Writer, words: Sequence[MarkedWord]) -> Tensor:
    """Run a network over words that are one stream: (words, cases + marks), in time with them."""
    late = network.config.lookahead
    plain = [BORDER] * late + [item.word for item in words] + [BORDER] * late
    device = network.embedding.weight.device
    features = network.config.features(plain).unsqueeze(0).to(device)
    state, pieces = network.init_state(1), []
    for at in range(0, len(plain), CHUNK):
        logits, state = network.step(features[:, at : at + CHUNK], state)
        pieces.append(logits[0].cpu())
    return torch.cat(pieces)[2 * late :]


def mishear(words: Sequence[MarkedWord], share: float) -> list[MarkedWord]:
    """Replace a share of the words, each by any of all; the choice is a function of both."""
    rng = random.Random(0)
    return [
        item._replace(word=rng.choice(words).word) if rng.random() < share else item
        for item in words
    ]


def score_writer(writer: LoadedWriter, lines: Sequence[str], misheard: float = 0.0) -> WritingScore:
    """Have sentences written that follow each other without a pause: one stream, one end.

    Args:
        writer: on the CPU.
        lines: written sentences; exclamation marks, semicolons and so on count as ``read_marks``
            reads them.
        misheard: the share of words that are replaced by any others, as a recogniser would; how
            they are written doesn't count.

    Raises:
        ManifestError: there are no words.
    """
    words = [item for line in lines for item in read_marks(line)]
    if not words:
        raise ManifestError("there are no words in these sentences")
    heard = mishear(words, misheard)
    forms = choose_forms(find_logits(writer.network, heard), STOP)
    counted = torch.tensor([item == true for item, true in zip(heard, words, strict=True)])
    truth, found = (Forms(*(x[counted] for x in each)) for each in (true_forms(words), forms))
    return WritingScore(
        model=writer.name,
        model_hash=writer.hash,
        sentences=len(lines),
        words=len(words),
        misheard=len(words) - int(counted.sum()),
        classes=score_forms(truth, found),
    )
