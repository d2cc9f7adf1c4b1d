"""The dialect of sherpa-onnx's online server (``/sherpa``).

| client says | server says |
|---|---|
| binary: float32, little endian, mono, at 16000 Hz | a result whenever the text changed; it has
``is_final`` at an endpoint, and the next one has a higher ``segment`` |
| ``Done`` | the last result, with ``is_eof``; ``Done!``; the connection is closed |

A result is ``{"text", "tokens", "timestamps", "ys_probs", "lm_probs", "context_scores", "segment",
"words", "start_time", "is_final", "is_eof"}``. Tokens are words here, as they are written, with the
blank before; ``timestamps`` are where they begin, in seconds after ``start_time``, and ``ys_probs``
logarithms of their probabilities. What isn't final yet is in ``text`` only. ``lm_probs``,
``context_scores`` and ``words`` (numbers of words in a graph) are empty.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import ProtocolError
from audiossm.protocol.encoding import decode_samples
from audiossm.protocol.heard import Heard, HeardWord

__all__ = ["SAMPLE_RATE", "Audio", "Done", "Request", "SherpaProtocol"]

SAMPLE_RATE = 16000
ENDPOINT_S = 1.2  # an endpoint is so much silence after a word


@dataclass(frozen=True)
class Audio:
    """Samples (samples,) float32."""

    samples: NDArray[np.float32]


@dataclass(frozen=True)
class Done:
    """Nothing follows."""


Request = Audio | Done


class SherpaProtocol:
    """A server's end of one connection."""

    def __init__(self) -> None:
        self.segment = 0
        self.words: list[HeardWord] = []  # of this segment
        self.start_s = 0.0  # of this segment
        self.ended = False
        self._told = ""
        self._half = b""  # a message may end within a sample

    def receive(self, message: str | bytes) -> Request:
        """Return what the client says.

        Raises:
            ProtocolError: nothing of this dialect, or no sound; the state is as before.
        """
        if self.ended:
            raise ProtocolError("a message after Done")
        if isinstance(message, bytes):
            data = self._half + message
            whole = len(data) // 4 * 4
            samples = decode_samples(data[:whole], "f32")
            self._half = data[whole:]
            return Audio(samples)
        if message.strip() != "Done":
            raise ProtocolError("a text message is Done, and nothing else")
        self.ended = True
        return Done()

    def hear(self, heard: Heard) -> list[str]:
        """Answer audio."""
        self.words += heard.words
        if self.words and heard.ends(ENDPOINT_S):
            return [self.end_segment((), heard.now_s)]
        text = self._text(heard.pending)
        if text == self._told:
            return []
        self._told = text
        return [self._result(text)]

    def end_segment(self, words: tuple[HeardWord, ...], now_s: float) -> str:
        """Tell the segment as final, and begin the next one."""
        self.words += words
        result = self._result(self._text(""), is_final=True, is_eof=self.ended)
        self.segment += 1
        self.words, self.start_s, self._told = [], now_s, ""
        return result

    def finish(self, words: tuple[HeardWord, ...], now_s: float) -> list[str]:
        """Answer ``Done`` with the rest."""
        return [self.end_segment(words, now_s), "Done!"]

    def _text(self, pending: str) -> str:
        return " ".join([*(word.text for word in self.words), *pending.split()])

    def _result(self, text: str, *, is_final: bool = False, is_eof: bool = False) -> str:
        return json.dumps(
            {
                "text": text,
                "tokens": [f" {word.text}" for word in self.words],
                "timestamps": [
                    round(max(0.0, word.start_s - self.start_s), 3) for word in self.words
                ],
                # a probability can round to 0
                "ys_probs": [
                    round(math.log(max(word.confidence, 1e-30)), 4) for word in self.words
                ],
                "lm_probs": [],
                "context_scores": [],
                "segment": self.segment,
                "words": [],
                "start_time": round(self.start_s, 3),
                "is_final": is_final,
                "is_eof": is_eof,
            }
        )
