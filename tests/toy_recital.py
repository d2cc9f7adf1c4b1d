"""What a tiny generator learns from: random codes and units."""

import torch

from audiossm.models.generator import GeneratorConfig
from audiossm.train.recitals import UNTOLD, Recital

CONFIG = GeneratorConfig.tiny()
NONE = CONFIG.num_codes
ROWS, FRAMES, GROUPS = 2, 7, CONFIG.num_groups


def make_recital(rows: int = ROWS, frames: int = FRAMES) -> Recital:
    """Random codes and units of two frames; the second row ends two frames early, without text."""
    none = frames + CONFIG.units_after + CONFIG.units_before
    units = torch.zeros(rows, none + 1, 3, dtype=torch.uint8)
    said = (frames + 1) // 2
    units[:, :said, 0] = torch.randint(1, 40, (rows, said))
    time = torch.arange(frames)
    recital = Recital(
        codes=torch.randint(0, NONE, (rows, frames, GROUPS), dtype=torch.int16),
        units=units,
        place=(time // 2).repeat(rows, 1).to(torch.int16),
        age=(time % 2).repeat(rows, 1).to(torch.int16),
        ends=(time % 2).repeat(rows, 1).to(torch.int8),
        pace=torch.full((rows, frames), 0.3),
        who=torch.arange(rows) + 1,
    )
    recital.codes[1, -2:] = NONE
    recital.ends[1], recital.units[1], recital.place[1] = UNTOLD, 0, none
    return recital
