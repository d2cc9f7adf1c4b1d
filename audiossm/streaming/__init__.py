"""Streams and files on their way to words: sessions, their events, the transcriber."""

from audiossm.streaming.aligner import AlignedPhone, AlignedWord, Alignment
from audiossm.streaming.batch import step_rows
from audiossm.streaming.events import Event, Token, Word
from audiossm.streaming.files import transcribe_channels, transcribe_stream
from audiossm.streaming.session import Session
from audiossm.streaming.transcriber import Transcriber, Transcript

__all__ = [
    "AlignedPhone",
    "AlignedWord",
    "Alignment",
    "Event",
    "Session",
    "Token",
    "Transcriber",
    "Transcript",
    "Word",
    "step_rows",
    "transcribe_channels",
    "transcribe_stream",
]
