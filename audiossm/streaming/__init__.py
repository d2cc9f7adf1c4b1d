"""Streams and files on their way to words or codes: sessions, the transcriber, the codec."""

from audiossm.decoding import EndpointRules, Reading
from audiossm.streaming.aligner import AlignedPhone, AlignedWord, Alignment
from audiossm.streaming.audio_codec import AudioCodec
from audiossm.streaming.batch import step_rows
from audiossm.streaming.code_files import decode_stream, encode_stream
from audiossm.streaming.coding import DecoderSession, EncoderSession
from audiossm.streaming.engine import Engine, EngineLimits, Progress
from audiossm.streaming.events import Endpoint, Event, Token, Word, WrittenWord
from audiossm.streaming.files import transcribe_channels, transcribe_stream
from audiossm.streaming.seats import CardSeats
from audiossm.streaming.session import Session
from audiossm.streaming.speaker import Speaker, Speech
from audiossm.streaming.speech import SpeechSession
from audiossm.streaming.speech_events import Skipped, Sound, SpeechEvent, SpokenWord
from audiossm.streaming.store import FolderStore, MemoryStore, SnapshotStore, open_store
from audiossm.streaming.stream import News, Stream
from audiossm.streaming.table import Heard, StreamTable
from audiossm.streaming.transcriber import Transcriber
from audiossm.streaming.transcript import Segment, Transcript, TranscriptDraft

__all__ = [
    "AlignedPhone",
    "AlignedWord",
    "Alignment",
    "AudioCodec",
    "CardSeats",
    "DecoderSession",
    "EncoderSession",
    "Engine",
    "EngineLimits",
    "Event",
    "FolderStore",
    "Heard",
    "MemoryStore",
    "News",
    "Progress",
    "Endpoint",
    "EndpointRules",
    "Reading",
    "Segment",
    "Session",
    "Skipped",
    "SnapshotStore",
    "Sound",
    "Speaker",
    "Speech",
    "SpeechEvent",
    "SpeechSession",
    "SpokenWord",
    "Stream",
    "StreamTable",
    "Token",
    "Transcriber",
    "Transcript",
    "TranscriptDraft",
    "Word",
    "WrittenWord",
    "decode_stream",
    "encode_stream",
    "open_store",
    "step_rows",
    "transcribe_channels",
    "transcribe_stream",
]
