"""Who listens to a microphone: a model in this process, or a server."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import AudioSSMError
from audiossm.hotwords import HotWord

if TYPE_CHECKING:
    from audiossm.protocol.native import Reply
    from audiossm.streaming import Event, Session, Transcriber

__all__ = ["Ear", "Heard", "LocalEar", "RepliedText", "ServerEar"]

Samples = NDArray[np.float32]

MAX_WAITING_S = 600.0  # audio that is kept while a server is away


@dataclass(frozen=True)
class Heard:
    """A word that will not change, as it is shown; seconds from the start."""

    text: str
    start_s: float
    end_s: float
    begins: bool = False  # the first one after a pause


Tell = Callable[[Sequence[Heard], str], None]


class Ear(Protocol):
    """Turns blocks into words; ``note`` says what it waits for, if it does."""

    @property
    def note(self) -> str: ...

    def listen(self, blocks: Iterable[Samples], sample_rate: int, tell: Tell) -> None:
        """Listen to the end of the blocks; ``tell`` gets new words, and what may still change."""


class LocalEar:
    """A model in this process."""

    note = ""

    def __init__(
        self, transcriber: "Transcriber", lookahead_ms: int, hotwords: Sequence[HotWord]
    ) -> None:
        self.transcriber, self.lookahead_ms, self.hotwords = transcriber, lookahead_ms, hotwords
        self.pauses = _Pauses()

    def listen(self, blocks: Iterable[Samples], sample_rate: int, tell: Tell) -> None:
        """Listen to the end of the blocks (samples,) float32."""
        session = self.transcriber.session(sample_rate, self.lookahead_ms, self.hotwords)
        for block in blocks:
            events = session.push(block)
            tell(self._words(events), _unfinished(session))
        tell(self._words(session.finish()), "")

    def _words(self, events: "Iterable[Event]") -> list[Heard]:
        from audiossm.streaming import Endpoint, Word, WrittenWord

        kind = Word if self.transcriber.writer is None else WrittenWord
        words = []
        for event in events:
            if isinstance(event, Endpoint):
                self.pauses.end(event.rule)
            elif isinstance(event, kind):
                words += self.pauses.mark([Heard(event.text, event.start_s, event.end_s)])
        return words


class _Pauses:
    """Marks the words that are the first after a pause, or after somebody asked for the rest."""

    paused = False

    def end(self, rule: str) -> None:
        """A segment ends by this rule."""
        self.paused = self.paused or rule != "length"

    def mark(self, words: list[Heard]) -> list[Heard]:
        """Return the words, the first of them marked if it is one."""
        if words and self.paused:
            self.paused = False
            words = [replace(words[0], begins=True), *words[1:]]
        return words


def _unfinished(session: "Session") -> str:
    words = (*(word.word for word in session.unwritten), session.partial)
    return " ".join(words).strip()


class ServerEar:
    """An ``audiossm serve`` somewhere; ``reconnects`` counts lost connections.

    Args:
        server: address.
        key: API key.
        raw: plain words.
        settings: further fields of ``audiossm.protocol.native.Start``.
    """

    def __init__(self, server: str, key: str | None, raw: bool, **settings: Any) -> None:
        self.server, self.key, self.raw, self.settings = server, key, raw, settings
        self.reconnects = 0
        self.note = ""

    def listen(self, blocks: Iterable[Samples], sample_rate: int, tell: Tell) -> None:
        """Listen to the end of the blocks (samples,) float32.

        Raises:
            ServiceError: the server can't be reached, or refuses.
        """
        from audiossm_apps.client import SyncStream

        text = RepliedText(self.raw)
        self.note = f"waiting for {self.server}"
        problems: list[AudioSSMError] = []

        def read(replies: "Iterator[Reply]") -> None:
            try:
                for reply in replies:
                    self.note = ""
                    tell(text.add(reply), text.unfinished)
            except AudioSSMError as exc:
                problems.append(exc)

        with SyncStream(
            self.server,
            key=self.key,
            max_waiting_s=MAX_WAITING_S,
            sample_rate=sample_rate,
            **self.settings,
        ) as stream:
            reading = threading.Thread(target=read, args=(stream.replies(),), daemon=True)
            reading.start()
            try:
                for block in blocks:
                    stream.send(block)
                stream.finish()
            finally:
                # a stream that failed says so to its reader, too
                reading.join()
                self.reconnects = stream.stream.reconnects
        if problems:
            raise problems[0]


class RepliedText:
    """Puts a server's replies together.

    A server that writes tells each word twice, plain and as it is written, and begins a partial
    text with the words that aren't written yet. One that doesn't tells plain words alone.

    Args:
        raw: plain words are wanted.
    """

    def __init__(self, raw: bool) -> None:
        self.raw = raw
        self.pending: list[Heard] = []  # plain words that aren't written yet
        self.partial = ""
        self.writes: bool | None = None  # not known yet
        self.pauses = _Pauses()

    def add(self, reply: "Reply") -> list[Heard]:
        """Take a reply; return the words that became final by it."""
        from audiossm.protocol import native

        words = self.pauses.mark(self._take(reply))
        if isinstance(reply, native.Endpoint):
            self.pauses.end(reply.rule)
        return words

    def _take(self, reply: "Reply") -> list[Heard]:
        from audiossm.protocol import native

        match reply:
            case native.Partial(text=text):
                known = [] if self._is_ahead(text) else self._settle()
                self.partial = text.strip()
                return known
            case native.Word():
                word = Heard(reply.word, reply.start_s, reply.end_s)
                self.pending.append(word)
                if not self._is_ahead(self.partial):
                    self.partial = ""
                settled = self._settle() if self.writes is False else []
                return [word] if self.raw else settled
            case native.Written():
                self.writes = True
                del self.pending[: len(reply.word.split())]
                self.partial = _without(self.partial, reply.word)
                word = Heard(reply.text, reply.start_s, reply.end_s)
                return [] if self.raw else [word]
            case native.Endpoint() if self.pending:
                return self._settle()  # all its words were told, and written where anything writes
            case native.Finished():
                self.partial = ""
                return self._settle()
        return []

    @property
    def unfinished(self) -> str:
        """What was heard after the words that are final."""
        if self.raw:
            return _without(self.partial, self._words)
        if self._is_ahead(self.partial):
            return self.partial
        return f"{self._words} {self.partial}".strip()

    @property
    def _words(self) -> str:
        return " ".join(word.text for word in self.pending)

    def _is_ahead(self, text: str) -> bool:
        return f"{text.strip()} ".startswith(f"{self._words} ") or not self.pending

    def _settle(self) -> list[Heard]:
        """Take the words as they are, if nothing writes them."""
        if self.writes:
            return []
        self.writes = False
        words, self.pending = self.pending, []
        return [] if self.raw else words  # raw ones were told as they came


def _without(text: str, words: str) -> str:
    return text[len(words) :].strip() if f"{text} ".startswith(f"{words} ") else text
