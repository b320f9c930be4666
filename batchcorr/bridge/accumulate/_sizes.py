"""Which micro-batch sizes can be asked for."""

from __future__ import annotations

from collections.abc import Sequence

from batchcorr.errors import InputError

__all__ = ["require_size", "sizes_to_try"]


def require_size(size: object, n: int) -> int:
    """Return a micro-batch size, at most that of the batch.

    Raises
    ------
    InputError
        If it is no whole number from 1 on.

    Examples
    --------
    >>> require_size(4, 64), require_size(100, 64)
    (4, 64)
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        msg = f"A micro-batch has a whole number of samples, at least 1, not {size!r}."
        raise InputError(msg)
    return min(size, n)


def sizes_to_try(sizes: object, n: int, positions: float) -> list[int]:
    """Return sizes that leave every BatchNorm two values per channel at least.

    Raises
    ------
    InputError
        If there is none, or one that was asked for does not.

    Examples
    --------
    >>> sizes_to_try(None, 24, 1)
    [2, 4, 8, 16]
    """
    if sizes is None:
        powers = (2**k for k in range(1, n.bit_length()))
        chosen = [m for m in powers if m < n and _smallest(m, n) * positions >= 2]
        if not chosen:
            msg = f"A batch of {n} samples is too small for micro-batches: give more."
            raise InputError(msg)
        return chosen
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or not sizes:
        msg = f"micro_batch_sizes must be a list of whole numbers, not {sizes!r}."
        raise InputError(msg)
    return [_fitting(size, n, positions) for size in sizes]


def _fitting(size: object, n: int, positions: float) -> int:
    own = require_size(size, n)
    if own != size:
        msg = f"A micro-batch of {size} is larger than the batch of {n} samples."
        raise InputError(msg)
    if _smallest(own, n) * positions < 2:
        msg = (
            f"Micro-batches of {size} out of {n} samples leave BatchNorm with one value "
            f"per channel where only {_smallest(own, n)} sample is left, and one value "
            "has no variance. Give larger sizes, or ones that divide the batch."
        )
        raise InputError(msg)
    return own


def _smallest(size: int, n: int) -> int:
    """Return the size of the smallest of micro-batches as equal as can be."""
    return n // -(-n // size)
