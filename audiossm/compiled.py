"""The one place that knows the compiler of inner loops: those of the search, and of live steps."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled", "entry", "summing"]

F = TypeVar("F", bound=Callable[..., Any])

njit: Any = numba.njit  # its types leave out the options that halve the time to compile

# leave is given to add up in any order, and to round a product and a sum once, but nothing else:
# quotients stay quotients, and what isn't a number stays none
ANY_ORDER = {"reassoc", "contract", "nsz"}


def compiled(function: F) -> F:
    """Compile a function that other compiled ones call, and they alone."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    return cast(F, njit(**options)(function))


def summing(function: F) -> F:
    """Do what ``compiled`` does, for sums whose order doesn't matter: they become vectors."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    return cast(F, njit(**options, fastmath=ANY_ORDER)(function))


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
