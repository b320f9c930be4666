"""Take counts as a caller gives them, for methods that normalize them.

Integers stay integers of their width, fractions (expected counts of a quantifier) are
welcome; what is negative, missing or infinite is refused, and what looks like logarithms
is warned of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.counts import canonical
from batchcorr.errors import EmptySampleWarning, InputError, LogScaleWarning, some, warn
from batchcorr.estimators.matrix import as_matrix, is_sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["in_memory", "is_lazy", "raw_counts", "warn_of_empty", "warn_of_logs"]


def raw_counts(x: Any) -> Any:
    """Return counts as a NumPy array, or a SciPy CSR or CSC matrix in canonical format.

    A Dask array stays one: its blocks are looked at when they are read.

    Raises
    ------
    InputError
        If `x` is not a matrix of real numbers, or has no features.

    Examples
    --------
    >>> import numpy as np
    >>> raw_counts(np.array([[1, 2], [3, 4]])).dtype.kind
    'i'
    """
    x = x.to_numpy() if hasattr(x, "to_numpy") else x
    if not _keeps_integers(x):
        x = as_matrix(x)
    if x.shape[1] == 0:
        msg = f"There are no features: the data are {x.shape[0]} samples × 0."
        raise InputError(msg)
    return x if is_lazy(x) else canonical(in_memory(x))


def is_lazy(x: Any) -> bool:
    """Whether a matrix is a Dask array."""
    return hasattr(x, "dask")


def in_memory(x: Any) -> Any:
    """Return a matrix that is in memory, and say what to do about any other."""
    if isinstance(x, np.ndarray) or is_sparse(x):
        return x
    msg = (
        f"The data must be in memory, in a NumPy array or a SciPy matrix, not in a "
        f"{type(x).__module__}.{type(x).__qualname__}: call .compute() on it; or fit on "
        "a part of the samples and transform the blocks one by one, as samples are "
        "transformed each on its own."
    )
    raise InputError(msg)


def _keeps_integers(x: Any) -> bool:
    known = type(x) is np.ndarray or is_sparse(x) or is_lazy(x)
    return (
        known
        and x.ndim == 2
        and x.dtype.kind in "iu"
        and x.dtype.isnative
        and x.shape[0] >= 0  # of a Dask array it may not be known, and NaN
    )


def warn_of_empty(totals: NDArray[np.float64], becomes: str) -> None:
    """Warn of samples without counts."""
    rows = np.flatnonzero(totals == 0)
    if len(rows):
        msg = (
            f"{len(rows)} of {len(totals)} samples have no counts (rows "
            f"{some(rows)}): {becomes}"
        )
        warn(msg, EmptySampleWarning)


def warn_of_logs(largest: float, method: str) -> None:
    """Warn if a method for counts was given what look like logarithms, up to `largest`."""
    if largest:
        msg = (
            f"{method} expects raw counts, and these look like logarithms (fractions up "
            f"to {largest:.3g}). Taking logarithms twice flattens every "
            "difference: give the counts, which many AnnData keep in layers['counts'] "
            "or raw."
        )
        warn(msg, LogScaleWarning)
