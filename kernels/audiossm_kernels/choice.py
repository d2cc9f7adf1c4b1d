"""Which form "auto" stands for."""

import os

from audiossm_kernels.errors import KernelError

__all__ = ["triton_wanted"]

VARIABLE = "AUDIOSSM_KERNELS"


def triton_wanted() -> bool:
    """Return whether "auto" may choose Triton: not with ``AUDIOSSM_KERNELS=torch`` set.

    Raises:
        KernelError: the variable is neither "auto" nor "torch".
    """
    value = os.environ.get(VARIABLE, "auto")
    if value not in ("auto", "torch"):
        raise KernelError(f"{VARIABLE} is {value!r}, must be 'auto' or 'torch'")
    return value == "auto"
