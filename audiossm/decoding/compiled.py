"""The one place that knows the compiler of the search's inner loops."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled", "entry"]

F = TypeVar("F", bound=Callable[..., Any])

njit: Any = numba.njit  # its types leave out the options that halve the time to compile


def compiled(function: F) -> F:
    """Compile a function that other compiled ones call, and they alone."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    return cast(F, njit(**options)(function))


def entry(function: F) -> F:
    """Compile a function of numbers, arrays and named tuples when it is first called.

    The machine code is kept on the disk: beside the module, or among the user's cache files. Other
    threads run meanwhile.
    """
    options = {"no_cfunc_wrapper": True, "error_model": "numpy", "nogil": True}
    try:
        return cast(F, njit(cache=True, **options)(function))
    except RuntimeError:  # nowhere to write: it is compiled anew in each process
        return cast(F, njit(**options)(function))
