"""The steps of networks as loops over one frame of one stream, compiled for this processor."""

from audiossm.loops.program import Program, Slot
from audiossm.loops.stream import Loop, LoopState, Output, name_parts

__all__ = ["Loop", "LoopState", "Output", "Program", "Slot", "name_parts"]
