"""The one error that kernels raise."""

__all__ = ["KernelError"]


class KernelError(ValueError):
    """A shape, dtype or option that a kernel doesn't take."""
