"""Matplotlib, which draws our pictures, if it is installed."""

from typing import Any

from audiossm.errors import DependencyError

__all__ = ["load_pyplot"]


def load_pyplot() -> Any:
    """Return ``matplotlib.pyplot``, drawing to files, never to a window.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as exc:
        raise DependencyError(
            "pictures are drawn by matplotlib, which is not installed: pip install 'audiossm[eval]'"
        ) from exc
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
