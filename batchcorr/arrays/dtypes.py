"""Which dtype holds what, decided in one place.

Values on a log scale: float32 and float64 stay; of all others, what float32 holds exactly
(booleans, integers of up to 16 bits, float16) becomes float32, and the rest float64, as
NumPy promotes them. The dtype alone decides, so that blocks and parts agree.

Counts: the dtype stays; corrected counts that do not fit take the next wider one of its
kind, and nothing saturates. Sums are always float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["LARGEST_COUNT", "dtype_of_counts", "dtype_of_values"]

LARGEST_COUNT = 2**53
"""float64, in which counts are worked on, holds all whole numbers up to this one."""


def dtype_of_values(dtype: Any) -> np.dtype:
    """The dtype of measurements that come in as `dtype`: float32 or float64.

    Examples
    --------
    >>> dtype_of_values("uint16"), dtype_of_values("int64")
    (dtype('float32'), dtype('float64'))
    """
    promoted = np.result_type(dtype, np.float32)
    return np.dtype(np.float32 if promoted == np.float32 else np.float64)


def dtype_of_counts(dtype: Any, largest: float) -> np.dtype:
    """The narrowest dtype of the kind of `dtype`, at least as wide, that holds a count.

    Examples
    --------
    >>> dtype_of_counts("uint8", 255), dtype_of_counts("uint8", 256)
    (dtype('uint8'), dtype('uint16'))
    >>> dtype_of_counts("float32", 2**24), dtype_of_counts("float32", 2**24 + 1)
    (dtype('float32'), dtype('float64'))
    """
    dtype = np.dtype(dtype)
    while _largest_exact(dtype) < largest and dtype.itemsize < 8:
        dtype = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
    wide: np.dtype = dtype
    return wide


def _largest_exact(dtype: np.dtype) -> float:
    """The whole number up to which a dtype holds all."""
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).max)
    return float(2 / np.finfo(dtype).eps)
