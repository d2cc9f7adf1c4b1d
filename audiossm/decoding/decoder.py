"""What a session asks of a decoder, and the decoders there are."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

from torch import Tensor

from audiossm.decoding.greedy import GreedyDecoder
from audiossm.decoding.words import DecodedToken, DecodedWord, Reading
from audiossm.errors import ConfigError
from audiossm.hotwords import HotWord
from audiossm.models import Calibration
from audiossm.text import Vocabulary

__all__ = ["DECODERS", "Decoder", "DecoderName", "choose_decoder", "make_decoder"]

DecoderName = Literal["beam", "greedy"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)

S = TypeVar("S")


class Decoder(Protocol[S]):
    """From log-probabilities of pieces to words; the state is a NamedTuple of arrays."""

    @property
    def hash(self) -> str:
        """What the words depend on beside the vocabulary."""

    def with_hotwords(self, hotwords: Sequence[HotWord]) -> Self:
        """Return a decoder like this one that has these hot words instead of others.

        Raises:
            ConfigError: it can't weigh hot words.
        """

    def adopt(self, state: S) -> S:
        """Return a state of other hot words' decoder as one to go on from."""

    def init_state(self, late_frames: int) -> S:
        """Return the state before the first frame of a network whose output is late."""

    def decode(self, log_probs: Tensor, state: S) -> tuple[Sequence[DecodedToken | DecodedWord], S]:
        """Advance by some frames, (label frames, pieces); tell what became final by them."""

    def close(self, state: S) -> tuple[Sequence[DecodedToken | DecodedWord], S]:
        """Tell the rest, and return the state of a segment's start."""

    def readings(self, state: S, number: int) -> list[Reading]:
        """Return the best ways to read what is not final yet, the best first."""

    def finish(self, state: S) -> Sequence[DecodedToken | DecodedWord]:
        """Tell the rest."""

    def skip_to(self, frame: int, state: S) -> S:
        """Leave out all tokens before ``frame``: a flush has told them already."""

    def partial(self, state: S) -> str:
        """Return what was heard and may still change."""


def choose_decoder(vocabulary: Vocabulary) -> DecoderName:
    """Return the best decoder for a vocabulary: the beam needs one that spells in letters."""
    return "beam" if vocabulary.spells_letters else "greedy"


@cache
def make_decoder(
    name: str, vocabulary: Vocabulary, calibration: Calibration | None = None
) -> Decoder[Any]:
    """Return the one decoder of this name for a vocabulary; all sessions share it.

    The beam's words have confidences by ``calibration``; greedy ones have their letters' mean.

    Raises:
        ConfigError: there is no such decoder, or it can't serve this vocabulary.
        ModelError: its language model is missing or damaged.
    """
    if name == "greedy":
        return GreedyDecoder(vocabulary)
    if name != "beam":
        raise ConfigError(f"decoder {name!r} is not one of {', '.join(DECODERS)}")
    # only now: its compiler takes a while to import
    from audiossm.decoding.beam import BeamDecoder
    from audiossm.decoding.ngram import NgramModel

    return BeamDecoder(vocabulary, NgramModel.load(), calibration=calibration)
