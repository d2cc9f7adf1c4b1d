"""A real-time audio toolkit: a Mamba-3 backbone over the frames of a neural audio codec."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiossm.pronouncer import Pronouncer, Pronunciation
    from audiossm.streaming import (
        AudioCodec,
        DecoderSession,
        EncoderSession,
        Endpoint,
        EndpointRules,
        Segment,
        Session,
        Skipped,
        Sound,
        Speaker,
        Speech,
        SpeechSession,
        SpokenWord,
        Token,
        Transcriber,
        Transcript,
        Word,
        WrittenWord,
    )

__all__ = [
    "AudioCodec",
    "DecoderSession",
    "EncoderSession",
    "Pronouncer",
    "Pronunciation",
    "Endpoint",
    "EndpointRules",
    "Segment",
    "Session",
    "Skipped",
    "Sound",
    "Speaker",
    "Speech",
    "SpeechSession",
    "SpokenWord",
    "Token",
    "Transcriber",
    "Transcript",
    "Word",
    "WrittenWord",
    "__version__",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # not at import: torch takes seconds, and `audiossm --help` needs none of it
    if name in ("Pronouncer", "Pronunciation"):  # known words need no torch at all
        from audiossm import pronouncer

        return getattr(pronouncer, name)
    if name in __all__:
        from audiossm import streaming

        return getattr(streaming, name)
    raise AttributeError(f"module 'audiossm' has no attribute {name!r}")
