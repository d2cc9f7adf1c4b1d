"""What a dialect is told of a stream after each message, and whether an utterance ends there."""

from dataclasses import dataclass

__all__ = ["Heard", "HeardWord"]


@dataclass(frozen=True)
class HeardWord:
    """A final word; times in seconds.

    Attributes:
        text: as it is written where there is a writer.
        plain: the word or words of a number without capitals and marks, where ``text`` has some.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    plain: str = ""


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

    def ends(self, pause_s: float) -> bool:
        """Whether what was said before is an utterance, by a pause of so many seconds.

        Words that a writer still waits for aren't cut off: the session's own endpoint tells them. A
        flush would, too, but what is heard after it could be other words.
        """
        return not self.pending and self.silence_s >= pause_s
