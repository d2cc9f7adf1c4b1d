"""Models: the networks made of codec and backbone."""

from audiossm.models.recogniser import (
    BackboneConfig,
    Recogniser,
    RecogniserConfig,
    RecogniserState,
)

__all__ = [
    "BackboneConfig",
    "Recogniser",
    "RecogniserConfig",
    "RecogniserState",
]
