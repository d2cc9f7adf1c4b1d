"""A client of the protocol for speech: texts to a server, and what a session tells from it."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np

from audiossm.errors import DependencyError, ProtocolError, ServiceError
from audiossm.protocol import decode_samples, speak
from audiossm.protocol.native import Message, encode
from audiossm.streaming import Skipped, Sound, SpeechEvent, SpokenWord
from audiossm_apps.client import stream_address

__all__ = ["RemoteSpeech", "speak_address"]

PIECE = 50_000  # characters in a message


def speak_address(server: str) -> str:
    """Return the address of the protocol for speech: of ``host:port``, or with ws, http..."""
    return stream_address(server).removesuffix("/v1/stream") + "/v1/speak"


class RemoteSpeech:
    """Something that a server says: the connection is there within ``with``.

    Args:
        server: address, such as ``localhost:8765``.
        key: API key, if it wants one.
        settings: fields of ``speak.Start``; the samples come as they are made, in float32.

    Attributes:
        name: of the server's model.
        voice: its name.
        sample_rate: Hz.

    Raises:
        DependencyError: the package websockets isn't installed.
        ServiceError: the server can't be reached, or it refuses.
    """

    def __init__(self, server: str, key: str | None = None, **settings: Any) -> None:
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError as exc:
            raise DependencyError(
                "a server needs the package websockets: pip install 'audiossm[serve]'"
            ) from exc
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.server, self.name, self.voice, self.sample_rate = server, "", "", 0
        self._broken = (WebSocketException, OSError, TimeoutError)
        self._stack = contextlib.ExitStack()
        address = speak_address(server)
        try:
            self._socket = self._stack.enter_context(
                connect(address, additional_headers=headers, max_size=None)
            )
        except (*self._broken, ValueError) as exc:
            raise ServiceError(f"{server}: can't speak there: {exc}") from exc
        with self._stack as stack:
            self._say(speak.Start(encoding="f32", **settings))
            started = self._read()
            if not isinstance(started, speak.Started):
                raise ServiceError(f"{server}: it doesn't begin to speak")
            self._stack = stack.pop_all()
        self.name, self.voice = started.model, started.voice
        self.sample_rate = started.sample_rate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def say(self, texts: Iterable[str]) -> Iterator[SpeechEvent]:
        """Send a text in pieces, as they come, and yield what is made of it meanwhile.

        Raises:
            ServiceError: the connection broke, or the server says what is wrong.
        """
        problems: list[Exception] = []
        # it may wait for more text when the command ends
        sender = threading.Thread(target=self._send, args=(texts, problems), daemon=True)
        sender.start()
        no_codes = np.zeros((0, 0), np.int64)
        while True:
            try:
                reply = self._read()
            except ServiceError:
                if problems:
                    raise problems[0] from None
                raise
            match reply:
                case bytes():
                    yield Sound(decode_samples(reply, "f32"), no_codes)
                case speak.Word():
                    yield SpokenWord(reply.word, reply.start_s, reply.end_s)
                case speak.Skipped():
                    yield Skipped(reply.text)
                case speak.Finished():
                    return

    def _send(self, texts: Iterable[str], problems: list[Exception]) -> None:
        try:
            for text in texts:
                for at in range(0, len(text), PIECE):
                    self._say(speak.Text(text=text[at : at + PIECE]))
            self._say(speak.Finish())
        except ServiceError:
            pass  # whoever reads is told
        except Exception as exc:  # of the text itself: raised where it is read
            problems.append(exc)
            self._socket.close()

    def _say(self, message: Message) -> None:
        try:
            self._socket.send(encode(message))
        except self._broken as exc:
            raise ServiceError(f"{self.server}: the connection broke: {exc}") from exc

    def _read(self) -> speak.SpeakReply | bytes:
        try:
            message = self._socket.recv()
            reply = message if isinstance(message, bytes) else speak.decode_speak_reply(message)
        except self._broken as exc:
            raise ServiceError(f"{self.server}: the connection broke: {exc}") from exc
        except ProtocolError as exc:
            raise ServiceError(f"{self.server}: no such server: {exc}") from exc
        if isinstance(reply, speak.Failure):
            raise ServiceError(f"{self.server}: {reply.message}")
        return reply
