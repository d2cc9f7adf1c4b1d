"""Models: the networks made of codec and backbone, and loading them."""

from audiossm.models.language_model import LanguageModel, LanguageModelConfig
from audiossm.models.loaded import (
    DEFAULT_MODEL,
    LoadedRecogniser,
    choose_device,
    save_recogniser,
)
from audiossm.models.offsets import SpikeOffsets
from audiossm.models.recogniser import (
    BackboneConfig,
    Recogniser,
    RecogniserConfig,
    RecogniserState,
)

__all__ = [
    "DEFAULT_MODEL",
    "BackboneConfig",
    "LanguageModel",
    "LanguageModelConfig",
    "LoadedRecogniser",
    "Recogniser",
    "RecogniserConfig",
    "RecogniserState",
    "SpikeOffsets",
    "choose_device",
    "save_recogniser",
]
