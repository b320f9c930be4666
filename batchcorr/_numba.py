"""Compile kernels with numba so that they work wherever the package is installed.

Every kernel has two builds of the same source. The parallel one runs when the main
thread of the main process calls; anywhere else (a Dask worker, a pool) the caller
already spreads the work, nested threading layers abort the process, and the serial one
runs. Both give the same bits. numba is imported when the first of them is called.
Compiled code is cached on disk where something is writable, and recompiled in each
process where nothing is.
"""

from __future__ import annotations

import multiprocessing
import threading
from functools import cached_property, update_wrapper
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["Helper", "Kernel", "prange", "threads"]

prange = range
"""In the source of kernels; compiled ones have numba's."""


def threads() -> int:
    """Return how many threads a kernel called from here may use."""
    import numba

    if not _is_main():
        return 1
    return int(numba.get_num_threads())


def _is_main() -> bool:
    here = threading.current_thread() is threading.main_thread()
    return here and multiprocessing.parent_process() is None


class Helper:
    """A function that kernels call, compiled with the first of them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = cast("FunctionType", function)
        update_wrapper(self, function)

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        """The compiled function."""
        return _njit(self._function, parallel=False)

    def __call__(self, *args: Any) -> Any:
        """Run it, compiled."""
        return self.compiled(*args)


class Kernel:
    """A compiled function, in a parallel and a serial build made at first use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = cast("FunctionType", function)
        update_wrapper(self, function)

    @cached_property
    def _parallel(self) -> Callable[..., Any]:
        return _njit(self._function, parallel=True)

    @cached_property
    def _serial(self) -> Callable[..., Any]:
        return _njit(self._function, parallel=False, mark="_serial")

    def __call__(self, *args: Any) -> Any:
        """Run the build that suits the calling thread."""
        return (self._parallel if _is_main() else self._serial)(*args)


def _njit(f: FunctionType, *, parallel: bool, mark: str = "") -> Callable[..., Any]:
    """A function compiled with what it calls; `mark` gives it a cache entry of its own."""
    import numba

    known = f.__globals__ | {"prange": numba.prange}
    for name in f.__code__.co_names:
        if isinstance(known.get(name), Helper):
            known[name] = known[name].compiled
    twin = FunctionType(f.__code__, known, f.__name__, f.__defaults__)
    twin.__qualname__ = f"{f.__qualname__}{mark}"
    options: dict[str, Any] = {
        "parallel": parallel,
        "nogil": True,
        "error_model": "numpy",
    }
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(**options, cache=True)(twin)
    except RuntimeError:  # no place on this machine where a cache can be written
        compiled = numba.njit(**options, cache=False)(twin)
    return compiled
