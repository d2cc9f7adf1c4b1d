"""Models: the networks made of codec and backbone."""

from audiossm.models.loaded import DEFAULT_MODEL, LoadedRecogniser, choose_device
from audiossm.models.recogniser import (
    BackboneConfig,
    Recogniser,
    RecogniserConfig,
    RecogniserState,
)

__all__ = [
    "DEFAULT_MODEL",
    "LoadedRecogniser",
    "choose_device",
    "BackboneConfig",
    "Recogniser",
    "RecogniserConfig",
    "RecogniserState",
]
