"""Which ptxas assembles Triton's kernels: not one that makes wrong code for Hopper.

ptxas of CUDA 12 breaks kernels of several products there: sums come out wrong, or addresses are
illegal (seen with the 12.8 that triton 3.6 brings, in four of four shapes of the scan's gradients;
13.0 and 13.1 make right code of them; https://github.com/triton-lang/triton/pull/11781). torch's
wheels for CUDA 13 bring a newer one, which torch's own compiler takes as well.
"""

import functools
import os
import warnings
from pathlib import Path

import torch
import triton

__all__ = ["choose_assembler", "refuse_assembler"]

VARIABLE = "TRITON_PTXAS_PATH"
FIRST_RIGHT = 13  # CUDA's major version


def choose_assembler() -> None:
    """Let Triton take torch's or the toolkit's ptxas if new enough; a user's choice stays."""
    if VARIABLE in os.environ or major(triton.knobs.nvidia.ptxas.version) >= FIRST_RIGHT:
        return
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    for folder in (Path(torch.__file__).parent, toolkit):
        path = folder / "bin" / "ptxas"
        if os.access(path, os.X_OK):
            tool = triton.knobs.NvidiaTool.from_path(str(path))
            if tool is not None and major(tool.version) >= FIRST_RIGHT:
                os.environ[VARIABLE] = str(path)
                return


def major(version: str) -> int:
    """Return 12 of "12.8"."""
    return int(version.split(".")[0])


@functools.lru_cache
def refuse_assembler(device: int) -> str | None:
    """Return why products may be wrong on a CUDA device, or None; warn of it once."""
    if torch.cuda.get_device_capability(device)[0] != 9:
        return None
    choose_assembler()
    version = triton.knobs.nvidia.ptxas.version
    if major(version) >= FIRST_RIGHT:
        return None
    reason = (
        f"ptxas {version} makes wrong code for Hopper:"
        f" set {VARIABLE} to one of CUDA {FIRST_RIGHT} or newer"
    )
    warnings.warn(f"audiossm_kernels: no Triton kernels of the scan: {reason}", stacklevel=2)
    return reason
