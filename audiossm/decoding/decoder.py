"""What a session asks of a decoder, and the decoders there are."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

from torch import Tensor

from audiossm.decoding.greedy import GreedyDecoder
from audiossm.decoding.words import DecodedToken, DecodedWord, Reading
from audiossm.errors import ConfigError
from audiossm.hotwords import HotWord
from audiossm.models import Calibration, LoadedRecogniser, RecogniserConfig
from audiossm.text import Vocabulary

__all__ = ["DECODERS", "Decoder", "DecoderName", "choose_decoder", "find_decoder", "make_decoder"]

DecoderName = Literal["phones", "beam", "greedy"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)

S = TypeVar("S")


class Decoder(Protocol[S]):
    """From log-probabilities to words; the state is a NamedTuple of arrays.

    Of these the first columns are the model's pieces, the others its phones if it has any.
    """

    @property
    def hash(self) -> str:
        """What the words depend on beside the vocabulary."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """What the ids of its tokens stand for."""

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
        """Advance by some frames, (label frames, symbols); tell what became final by them."""

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


def choose_decoder(config: RecogniserConfig) -> DecoderName:
    """Return the best decoder for a model.

    The beam needs a model that spells in letters. It hears phones instead if the head for them
    stands above all layers; half-way up, it hears them worse than letters.
    """
    if not Vocabulary(config.pieces).spells_letters:
        return "greedy"
    has_phones = bool(config.phones) and config.middle_after == config.backbone.num_layers
    return "phones" if has_phones else "beam"


def find_decoder(model: LoadedRecogniser, name: DecoderName) -> Decoder[Any]:
    """Return the decoder of this name for a model, without hot words.

    The model's calibration is of its best decoder's words; others go without.

    Raises:
        ConfigError: there is no such decoder, or it can't serve this model.
        ModelError: its language model or lexicon is missing or damaged.
    """
    is_best = name == choose_decoder(model.config)
    calibration = model.calibration if is_best else None
    return make_decoder(name, model.vocabulary, model.config.phones, calibration)


@cache
def make_decoder(
    name: str,
    vocabulary: Vocabulary,
    phones: tuple[str, ...] = (),
    calibration: Calibration | None = None,
) -> Decoder[Any]:
    """Return the one decoder of this name for a model; all sessions share it.

    Args:
        name: ``greedy``; ``beam``, which hears letters; or ``phones``, a beam that hears phones.
        vocabulary: the model's pieces.
        phones: what its head for them puts out, if it has one.
        calibration: gives a beam's words confidences; others have their labels' mean.

    Raises:
        ConfigError: there is no such decoder, or it can't serve this model.
        ModelError: its language model or lexicon is missing or damaged.
    """
    if name == "greedy":
        return GreedyDecoder(vocabulary)
    if name not in DECODERS:
        raise ConfigError(f"decoder {name!r} is not one of {', '.join(DECODERS)}")
    # only now: its compiler takes a while to import
    from audiossm.decoding.beam import BY_PHONES, BeamDecoder
    from audiossm.decoding.ngram import NgramModel
    from audiossm.decoding.units import Letters, load_phones

    ngrams = NgramModel.load()
    if name == "beam":
        return BeamDecoder(Letters(vocabulary), ngrams, calibration=calibration)
    return BeamDecoder(load_phones(vocabulary, phones), ngrams, BY_PHONES, calibration=calibration)
