"""Take counts as a caller gives them, for methods that normalize them.

Integers stay integers of their width, fractions (expected counts of a quantifier) are
welcome; what is negative, missing or infinite is refused, and what looks like logarithms
is warned of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.counts import canonical, totals
from batchcorr.errors import EmptySampleWarning, InputError, LogScaleWarning, warn
from batchcorr.methods.matrix import SAMPLED, as_matrix, is_sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "checked_totals",
    "in_memory",
    "raw_counts",
    "warn_of_empty",
    "warn_of_logs",
]

LARGE_LOG = 20
"""Logarithms of counts do not reach this: the base-2 logarithm of a million is 19.9."""


def raw_counts(x: Any) -> Any:
    """Return counts as a NumPy array, or a SciPy CSR or CSC matrix in canonical format.

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
    if is_sparse(x) and x.format not in {"csr", "csc"}:
        x = x.tocsr()
    if not _keeps_integers(x):
        x = in_memory(as_matrix(x))
    if x.shape[1] == 0:
        msg = f"There are no features: the data are {x.shape[0]} samples × 0."
        raise InputError(msg)
    return canonical(x)


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
    known = type(x) is np.ndarray or is_sparse(x)
    return known and x.ndim == 2 and x.dtype.kind in "iu" and x.dtype.isnative


def checked_totals(x: Any) -> NDArray[np.float64]:
    """Return the total of each sample, (n,).

    Raises
    ------
    InputError
        If any value is missing, infinite or negative.
    """
    found: NDArray[np.float64]
    found, smallest = totals(x)
    if not np.isfinite(found).all():
        rows = np.flatnonzero(~np.isfinite(found))
        msg = (
            f"The counts of {len(rows)} samples (first: row {rows[0]}) hold missing or "
            "infinite values: a count is known, or it is 0. Leave out those samples or "
            "features, or fill in what is missing."
        )
        raise InputError(msg)
    if smallest < 0:
        msg = (
            f"The counts hold negative values, down to {smallest:g}. Values that were "
            "logged, scaled or corrected are not counts: give the raw ones, which many "
            "AnnData keep in layers['counts'] or raw."
        )
        raise InputError(msg)
    return found


def warn_of_empty(totals: NDArray[np.float64], becomes: str) -> None:
    """Warn of samples without counts."""
    rows = np.flatnonzero(totals == 0)
    if len(rows):
        msg = (
            f"{len(rows)} of {len(totals)} samples have no counts (rows "
            f"{', '.join(map(str, rows[:5]))}{', …' if len(rows) > 5 else ''}): {becomes}"
        )
        warn(msg, EmptySampleWarning)


def warn_of_logs(x: Any, method: str) -> None:
    """Warn if a method for counts was given what look like logarithms."""
    values = x.data if is_sparse(x) else x[: max(1, SAMPLED // x.shape[1])].ravel()
    values = values[:SAMPLED]
    values = values[values > 0]
    if not values.size or values.dtype.kind != "f" or values.max() >= LARGE_LOG:
        return
    if np.mean(values == np.floor(values)) < 0.5:
        msg = (
            f"{method} expects raw counts, and these look like logarithms (fractions up "
            f"to {values.max():.3g}). Taking logarithms twice flattens every "
            "difference: give the counts, which many AnnData keep in layers['counts'] "
            "or raw."
        )
        warn(msg, LogScaleWarning)
