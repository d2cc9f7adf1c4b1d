"""A real-time audio toolkit: a Mamba-3 backbone over the frames of a neural audio codec."""

__all__ = ["__version__"]

__version__ = "0.1.0"
