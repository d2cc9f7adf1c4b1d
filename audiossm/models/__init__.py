"""Models: the networks made of codec and backbone, and loading them."""

from audiossm.models.calibration import EVIDENCE, Calibration, Company
from audiossm.models.generator import (
    Generator,
    GeneratorConfig,
    GeneratorState,
    delay_codes,
)
from audiossm.models.interchange import load_language_model
from audiossm.models.language_model import LanguageModel, LanguageModelConfig
from audiossm.models.loaded import (
    DEFAULT_MODEL,
    LoadedRecogniser,
    choose_device,
    save_recogniser,
)
from audiossm.models.loaded_generator import (
    LoadedGenerator,
    make_generator_step,
    save_generator,
    shipped_generator,
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
from audiossm.models.voices import (
    Voice,
    find_voice,
    list_voices,
    load_voice,
    save_voice,
)
from audiossm.models.writer import BORDER, Writer, WriterConfig, WriterState

__all__ = [
    "BORDER",
    "DEFAULT_MODEL",
    "EVIDENCE",
    "LETTERS",
    "BackboneConfig",
    "Calibration",
    "Company",
    "Forms",
    "Generator",
    "GeneratorConfig",
    "GeneratorState",
    "LanguageModel",
    "LanguageModelConfig",
    "LoadedGenerator",
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
    "Voice",
    "Writer",
    "WriterConfig",
    "WriterState",
    "choose_device",
    "choose_forms",
    "delay_codes",
    "find_voice",
    "list_voices",
    "load_language_model",
    "load_voice",
    "make_generator_step",
    "save_generator",
    "save_recogniser",
    "save_sounder",
    "save_voice",
    "save_writer",
    "shipped_generator",
    "shipped_sounder",
    "shipped_writer",
    "sound_out",
]
