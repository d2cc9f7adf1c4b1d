"""Kernels of the Mamba-3 mixer: plain functions of tensors, no modules, no files.

Letters used in this package: B batch, L frames, H heads, P head dimension, N state dimension,
G groups of B/C, R rank (1 in SISO), S rotary angles, C frames of a chunk, K chunks.
"""

from audiossm_kernels.errors import KernelError
from audiossm_kernels.projection import make_steps, norm_vectors
from audiossm_kernels.rotary import turn_back
from audiossm_kernels.ssm_scan import ssm_scan
from audiossm_kernels.ssm_step import ssm_step, ssm_step_
from audiossm_kernels.state import Pairing, RawParams, SsmInputs, SsmParams, SsmState

__all__ = [
    "KernelError",
    "Pairing",
    "RawParams",
    "SsmInputs",
    "SsmParams",
    "SsmState",
    "make_steps",
    "norm_vectors",
    "ssm_scan",
    "ssm_step",
    "ssm_step_",
    "turn_back",
]
