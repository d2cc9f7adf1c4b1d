"""Which ptxas assembles Triton's kernels: not one that makes wrong code for Hopper.

ptxas of CUDA 12 breaks kernels of several products there: sums come out wrong, or addresses are
illegal (seen with the 12.8 that triton 3.6 brings, in one shape of three of the scan's gradients;
13.0 and 13.1 make right code of the same PTX; https://github.com/triton-lang/triton/pull/11781).
torch's wheels for CUDA 13 bring a newer one, which torch's own compiler takes as well.
"""

import functools
import os
from pathlib import Path

import torch
import triton

__all__ = ["choose_assembler", "refuse_assembler"]

VARIABLE = "TRITON_PTXAS_PATH"
FIRST_RIGHT = 13  # CUDA's major version


def choose_assembler() -> None:
    """Let Triton take torch's ptxas if that is new enough and nobody has chosen another."""
    path = Path(torch.__file__).parent / "bin" / "ptxas"
    if VARIABLE in os.environ or not os.access(path, os.X_OK):
        return
    tool = triton.knobs.NvidiaTool.from_path(str(path))
    if tool is not None and major(tool.version) >= FIRST_RIGHT:
        os.environ[VARIABLE] = str(path)


def major(version: str) -> int:
    """Return 12 of "12.8"."""
    return int(version.split(".")[0])


@functools.lru_cache
def refuse_assembler(device: int) -> str | None:
    """Return why the kernels' products may be wrong on a CUDA device, or None."""
    if torch.cuda.get_device_capability(device)[0] != 9:
        return None
    choose_assembler()
    version = triton.knobs.nvidia.ptxas.version
    if major(version) >= FIRST_RIGHT:
        return None
    return (
        f"ptxas {version} makes wrong code for Hopper:"
        f" set {VARIABLE} to one of CUDA {FIRST_RIGHT} or newer"
    )
