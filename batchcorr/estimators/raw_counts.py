"""Take counts as a caller gives them: whole ones to correct, any to normalize.

Integers stay integers of their width. What is negative, missing or infinite is refused;
fractions (expected counts of a quantifier) are welcome where counts are normalized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.counts import canonical
from batchcorr.arrays.dtypes import LARGEST_COUNT
from batchcorr.errors import EmptySampleWarning, InputError, some, warn
from batchcorr.estimators.matrix import as_array, as_matrix, is_sparse, on_device
from batchcorr.models.namespace import is_foreign, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["as_counts", "in_memory", "is_dask", "raw_counts", "warn_of_empty"]


def as_counts(x: Matrix) -> Matrix:
    """Return a matrix of counts in a dtype and storage that can be given back.

    Integers and floats of whole numbers stay as they are; booleans become integers.

    Raises
    ------
    InputError
        If values are negative, fractional, missing, infinite or beyond 2^53.

    Examples
    --------
    >>> as_counts([[1, 2], [3, 4]]).dtype.kind
    'i'
    """
    if on_device(x):
        msg = (
            f"Counts are corrected on the CPU, not in a {type(x).__module__}."
            f"{type(x).__qualname__}: give x.get(), a NumPy array or SciPy matrix."
        )
        raise InputError(msg)
    if is_sparse(x):
        x = x if x.format in {"csr", "csc"} else x.tocsr()
    else:
        x = as_array(x)
        x = in_memory(to_numpy(x) if is_foreign(x) else x)
    if x.ndim != 2 or x.dtype.kind not in "biuf" or 0 in x.shape:
        if 0 in x.shape:
            msg = f"There are no counts: the matrix has the shape {x.shape}."
            raise InputError(msg)
        as_matrix(x)  # says what is wrong
    if x.dtype.kind == "b":
        return x.astype(np.int64)
    values = x.data if is_sparse(x) else x
    if x.dtype.kind == "f" and not np.isfinite(values).all():
        msg = (
            "The counts contain missing or infinite values: drop these features or "
            "samples."
        )
        raise InputError(msg)
    if values.size and values.min() < 0:
        msg = (
            f"The counts contain negative values (down to {values.min():g}): these are "
            "not counts. Correct log-transformed or scaled values with combat."
        )
        raise InputError(msg)
    if x.dtype.kind == "f" and not np.all(values == np.floor(values)):
        worst = values[values != np.floor(values)].flat[0]
        msg = (
            f"The counts contain fractions ({worst:g}), but ComBat-seq needs raw "
            "counts. Round estimated counts, as of salmon or RSEM, first (np.rint); "
            "correct normalized or log-transformed values with combat."
        )
        raise InputError(msg)
    if values.size and int(values.max()) > LARGEST_COUNT:
        msg = (
            f"The largest count is {values.max():g}, but counts must be under 2^53, "
            "above which floats do not represent all integers. Check whether the "
            "values are intensities."
        )
        raise InputError(msg)
    return x


def raw_counts(x: Matrix) -> Matrix:
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
    x = x if is_sparse(x) else as_array(x)
    if not _keeps_integers(x):
        x = as_matrix(x)
    if x.shape[1] == 0:
        msg = f"There are no features: the data are {x.shape[0]} samples × 0."
        raise InputError(msg)
    return x if is_dask(x) else canonical(in_memory(x))


def is_dask(x: object) -> bool:
    """Whether a matrix is a Dask array."""
    return hasattr(x, "dask")


def in_memory(x: object) -> Matrix:
    """Return a matrix that is in memory, and say what to do about any other."""
    if isinstance(x, np.ndarray) or is_sparse(x):
        return x
    msg = (
        "The data must be in memory, in a NumPy array or a SciPy matrix, not in a "
        f"{type(x).__module__}.{type(x).__qualname__}: call .compute() on it; or fit "
        "to some of the samples and transform block by block, as each sample is "
        "transformed by itself."
    )
    raise InputError(msg)


def _keeps_integers(x: Matrix) -> bool:
    known = type(x) is np.ndarray or is_sparse(x) or is_dask(x)
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
