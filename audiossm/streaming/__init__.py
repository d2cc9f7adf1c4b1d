"""Streams and files on their way to words: sessions, their events, the transcriber."""

from audiossm.streaming.events import Event, Token, Word
from audiossm.streaming.files import transcribe_channels, transcribe_stream
from audiossm.streaming.session import Session
from audiossm.streaming.transcriber import DEFAULT_MODEL, Transcriber, Transcript, choose_device

__all__ = [
    "DEFAULT_MODEL",
    "Event",
    "Session",
    "Token",
    "Transcriber",
    "Transcript",
    "Word",
    "choose_device",
    "transcribe_channels",
    "transcribe_stream",
]
