"""Decide whether a sparse matrix may become dense: never silently, never too large."""

from __future__ import annotations

import os
from pathlib import Path

from batchcorr.errors import DensifyWarning, TooLargeError, warn

__all__ = ["allow_dense", "free_device_memory", "free_memory"]


def free_memory() -> int:
    """Return the bytes of memory that can be had without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError):  # no such call on this system
        return 8 << 30


SMALL = 1 << 30
"""Bytes of a dense result that nobody needs to hear of, where memory is free."""


def free_device_memory() -> int:
    """Return the bytes that are free on the current CUDA device, CuPy's pool included."""
    import cupy

    free, _ = cupy.cuda.runtime.memGetInfo()
    return int(free + cupy.get_default_memory_pool().free_bytes())


def allow_dense(
    shape: tuple[int, int], itemsize: int, *, dense: bool | None, device: bool = False
) -> None:
    """Warn that a sparse matrix becomes dense, or refuse it.

    Parameters
    ----------
    dense
        True: wanted, say nothing. None: refuse if the result takes more than half of
        the free memory, and warn if it is not small. False: refuse.
    """
    if dense:
        return
    size = shape[0] * shape[1] * itemsize
    free = free_device_memory() if device else free_memory()
    what = (
        f"The corrected matrix is dense (corrected zeros are not zero): {shape[0]:,} × "
        f"{shape[1]:,} values take {_human(size)}, and {_human(free)} are free."
    )
    if dense is None and size < free / 2:
        if size > SMALL:
            warn(f"{what} Give dense=True to hide this warning.", DensifyWarning)
        return
    msg = (
        f"{what} Select features or samples first (such as highly variable genes), or "
        "give dense=True to make it dense anyway."
    )
    raise TooLargeError(msg)


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
