"""Models: the networks made of codec and backbone, and loading them."""

from audiossm.models.calibration import EVIDENCE, Calibration
from audiossm.models.language_model import LanguageModel, LanguageModelConfig
from audiossm.models.loaded import (
    DEFAULT_MODEL,
    LoadedRecogniser,
    choose_device,
    save_recogniser,
)
from audiossm.models.loaded_sounder import (
    LoadedSounder,
    save_sounder,
    shipped_sounder,
    sound_out,
)
from audiossm.models.loaded_writer import (
    Forms,
    LoadedWriter,
    choose_forms,
    save_writer,
    shipped_writer,
)
from audiossm.models.offsets import SpikeOffsets
from audiossm.models.recogniser import (
    BackboneConfig,
    Recogniser,
    RecogniserConfig,
    RecogniserState,
)
from audiossm.models.recogniser_slots import RecogniserSlots, SlotLabels, SlotState
from audiossm.models.sounder import LETTERS, Sounder, SounderConfig
from audiossm.models.writer import BORDER, Writer, WriterConfig, WriterState

__all__ = [
    "BORDER",
    "DEFAULT_MODEL",
    "EVIDENCE",
    "BackboneConfig",
    "Calibration",
    "Forms",
    "LETTERS",
    "LanguageModel",
    "LanguageModelConfig",
    "LoadedRecogniser",
    "LoadedSounder",
    "LoadedWriter",
    "Recogniser",
    "RecogniserConfig",
    "RecogniserSlots",
    "RecogniserState",
    "SlotLabels",
    "SlotState",
    "Sounder",
    "SounderConfig",
    "SpikeOffsets",
    "Writer",
    "WriterConfig",
    "WriterState",
    "choose_device",
    "choose_forms",
    "save_recogniser",
    "save_sounder",
    "save_writer",
    "shipped_sounder",
    "shipped_writer",
    "sound_out",
]
