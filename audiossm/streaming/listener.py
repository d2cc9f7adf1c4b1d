"""A stream of samples to what the network hears in it, frame by frame and undecoded."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.models import LoadedRecogniser
from audiossm.streaming.events import Event
from audiossm.streaming.session import Session

__all__ = ["Heard", "Listener"]

# spikes come late: those of the last sounds may come after the end
TAIL_S = 1


class Heard(NamedTuple):
    """Log-probabilities of a whole recording; symbol 0 is the blank."""

    letters: NDArray[np.float32]  # (label frames, pieces)
    phones: NDArray[np.float32] | None  # (label frames, phones + 1), if the model has a phone head


class Listener(Session):
    """A session that decodes nothing: once it is finished, ``heard`` has every label frame.

    The last ``TAIL_S`` seconds of them are of silence that follows the recording.
    """

    def __init__(
        self, transcriber: LoadedRecogniser, sample_rate: int = 16000, lookahead_ms: int = 320
    ) -> None:
        super().__init__(transcriber, sample_rate, lookahead_ms)
        self.tail_samples = 0  # its own tail is longer
        self.letters: list[NDArray[np.float32]] = []
        self.phones: list[NDArray[np.float32]] = []

    def finish(self) -> list[Event]:
        """Listen to some silence after the end, too, and end the session."""
        num_samples = self.samples_received
        self.push(np.zeros(TAIL_S * self.sample_rate, np.float32))
        events = super().finish()
        self.samples_received = num_samples
        return events

    def heard(self) -> Heard:
        """Return all frames so far, without those that the look-ahead puts before the first."""
        config = self.transcriber.config
        late = self.late_samples // config.encoder.frame_size
        letters = _join(self.letters, len(config.pieces))[late:]
        if not config.phones:
            return Heard(letters, None)
        return Heard(letters, _join(self.phones, len(config.phones) + 1)[late:])

    def _hear(self, samples: torch.Tensor) -> torch.Tensor:
        """Step the network over whole frames, keep what it says and leave nothing to decode."""
        letters, *phones = self.stepper.step(samples)
        self.letters.append(letters[0].numpy())
        self.phones += [part[0].numpy() for part in phones]
        return letters[0, :0]


def _join(parts: list[NDArray[np.float32]], num_symbols: int) -> NDArray[np.float32]:
    return np.concatenate([np.zeros((0, num_symbols), np.float32), *parts])
