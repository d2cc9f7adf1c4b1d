"""What a dialect is told of a stream after each message, and when an utterance ends there."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Heard", "HeardWord", "Verdict", "judge"]

# words that wait to be written are cut off here only: shorter pauses would cut sentences
WRITING_PAUSE_S = 0.8


@dataclass(frozen=True)
class HeardWord:
    """A final word, as it is written where there is a writer; times in seconds."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Heard:
    """How a stream stands after a message.

    Attributes:
        words: those that became final by it.
        pending: what was heard after them: it may change, or isn't written yet.
        tail: the part of ``pending`` that may change.
        now_s: where the audio stands.
        silence_s: how long nothing was heard, up to where the audio was listened to.
    """

    words: tuple[HeardWord, ...]
    pending: str
    tail: str
    now_s: float
    silence_s: float


Verdict = Literal["goes on", "ends", "ends after a flush"]


def judge(heard: Heard, pause_s: float) -> Verdict:
    """Say whether words before this silence are an utterance; perhaps a flush has to tell them."""
    if heard.tail or heard.silence_s < pause_s:
        return "goes on"
    if not heard.pending:
        return "ends"
    if heard.silence_s >= max(pause_s, WRITING_PAUSE_S):
        return "ends after a flush"
    return "goes on"
