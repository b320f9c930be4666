"""Take the matrix a caller gives as one of the kinds that the passes know.

float32 and float64 stay what they are, everything else that is a number becomes
float32; sparse matrices stay sparse (CSR or CSC). Samples are rows, always.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from batchcorr.errors import CountsWarning, InputError, warn
from batchcorr.models.namespace import is_cupy, is_foreign, namespace, to_numpy

__all__ = [
    "as_counts",
    "as_matrix",
    "becomes_dense",
    "is_sparse",
    "is_writable",
    "looks_like_counts",
    "warn_of_counts",
]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
SAMPLED = 200_000
"""Values looked at to tell counts from logs."""

LARGE_COUNT = 20
"""Integers under this could be anything; counts of a sequencer go beyond."""


def is_sparse(x: Any) -> bool:
    """Whether a matrix is of SciPy's sparse kinds."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(x)


def becomes_dense(x: Any) -> bool:
    """Whether a matrix is sparse, SciPy's or CuPy's: corrected values are dense."""
    cupy_s = sys.modules.get("cupyx.scipy.sparse")
    return is_sparse(x) or (cupy_s is not None and cupy_s.issparse(x))


def is_writable(x: Any) -> bool:
    """Whether results can be written into a matrix: NumPy's, if not frozen, or CuPy's."""
    return is_cupy(x) or (isinstance(x, np.ndarray) and x.flags.writeable)


def as_matrix(x: Any) -> Any:
    """Return a float matrix of a known kind: `x` itself where it is one already.

    Raises
    ------
    InputError
        If `x` is not two-dimensional, or does not hold real numbers.

    Examples
    --------
    >>> as_matrix([[1, 2], [3, 4]]).dtype
    dtype('float32')
    """
    if becomes_dense(x):
        known = {"csr", "csc"} if is_sparse(x) else {"csr"}
        x = x if x.format in known else x.tocsr()
    elif hasattr(x, "to_numpy"):
        x = x.to_numpy()
    elif isinstance(x, np.ma.MaskedArray):
        x = as_matrix(x.data).copy() if x.mask is np.ma.nomask else _unmask(x)
    elif isinstance(x, np.matrix) or not hasattr(x, "dtype") or not hasattr(x, "ndim"):
        x = _from_sequence(x)
    if x.ndim != 2:
        msg = (
            f"The data must be a matrix of samples × features, not {x.ndim}-dimensional"
            f" of shape {tuple(x.shape)}."
            + (" Give one feature as x[:, None]." if x.ndim == 1 else "")
        )
        raise InputError(msg)
    if any(size != size for size in x.shape):  # noqa: PLR0124 - NaN in Dask's shapes
        msg = (
            "The lengths of this Dask array's chunks are not known: call "
            "x.compute_chunk_sizes() first."
        )
        raise InputError(msg)
    if is_foreign(x):
        return _as_floats(x)
    if x.dtype in FLOATS:
        return x if x.dtype.isnative or not hasattr(x, "byteswap") else x.astype("=f8")
    if x.dtype.kind in "buif":
        wide = x.dtype.kind == "f" and x.dtype.itemsize > 4
        return x.astype(np.float64 if wide else np.float32)
    msg = f"The data must be real numbers, not {x.dtype}. " + (
        "A column of text or of mixed types makes the whole table so: leave it "
        "out, or convert with .astype(float)."
        if x.dtype.kind in "OUST"
        else "Convert them to float first."
    )
    raise InputError(msg)


def _as_floats(x: Any) -> Any:
    """Return an array of a library other than NumPy in a dtype that is known."""
    xp = namespace(x)
    if x.dtype in (xp.float32, xp.float64):
        return x
    if xp.isdtype(x.dtype, ("bool", "integral", "real floating")):
        return xp.astype(x, xp.float32)
    msg = f"The data must be real numbers, not {x.dtype}: convert them to float first."
    raise InputError(msg)


def _from_sequence(x: Any) -> Any:
    if type(x).__name__ == "AnnData":
        msg = (
            "The estimators take matrices, not an AnnData: use the functions of "
            "batchcorr.pp, such as batchcorr.pp.combat, or give adata.X."
        )
        raise InputError(msg)
    if isinstance(x, str | bytes | dict) or not (
        np.iterable(x) or hasattr(x, "__array__")
    ):
        msg = (
            "The data must be a matrix of samples × features: a NumPy array, a "
            f"DataFrame or a SciPy sparse matrix, not {type(x).__name__}."
        )
        raise InputError(msg)
    try:
        return np.asarray(x)
    except (ValueError, TypeError) as error:
        msg = (
            "The data are not a matrix of samples × features: their rows are of "
            "different lengths or kinds."
        )
        raise InputError(msg) from error


def _unmask(x: Any) -> Any:
    """Masked values are missing values."""
    floats = as_matrix(x.data)
    return np.where(x.mask, floats.dtype.type(np.nan), floats)


def as_counts(x: Any) -> Any:
    """Return a matrix of counts in a dtype and storage that can be given back.

    Integers stay as they are, floats that hold whole numbers too; booleans become
    integers.

    Raises
    ------
    InputError
        If values are negative, fractional, missing or infinite.

    Examples
    --------
    >>> as_counts([[1, 2], [3, 4]]).dtype.kind
    'i'
    """
    if is_sparse(x):
        x = x if x.format in {"csr", "csc"} else x.tocsr()
    elif hasattr(x, "dask"):
        from batchcorr.estimators.raw_counts import in_memory

        in_memory(x)  # says what to do
    elif is_cupy(x) or becomes_dense(x):
        msg = (
            f"Counts are corrected on the CPU, not in a {type(x).__module__}."
            f"{type(x).__qualname__}: give x.get(), a NumPy array or SciPy matrix."
        )
        raise InputError(msg)
    else:
        x = x.to_numpy() if hasattr(x, "to_numpy") else _from_sequence(x)
    if x.ndim != 2 or x.dtype.kind not in "biuf" or 0 in x.shape:
        if 0 in x.shape:
            msg = f"There are no counts in a matrix of shape {x.shape}."
            raise InputError(msg)
        as_matrix(x)  # says what is wrong
    if x.dtype.kind == "b":
        return x.astype(np.int64)
    values = x.data if is_sparse(x) else x
    if x.dtype.kind == "f" and not np.isfinite(values).all():
        msg = (
            "The counts hold missing or infinite values: counts are known or absent "
            "(0). Drop those features or samples."
        )
        raise InputError(msg)
    if values.size and values.min() < 0:
        msg = (
            f"The counts hold negative values (down to {values.min():g}): these are not"
            " counts. Values that were logged, scaled or corrected go to combat."
        )
        raise InputError(msg)
    if x.dtype.kind == "f" and not np.all(values == np.floor(values)):
        worst = values[values != np.floor(values)].flat[0]
        msg = (
            f"The counts hold fractions ({worst:g}): ComBat-seq takes raw counts. Round"
            " expected counts of a quantifier first (np.rint); values that were "
            "normalized or logged go to combat."
        )
        raise InputError(msg)
    return x


def looks_like_counts(x: Any) -> bool:
    """Whether the values look like raw counts: whole, not negative, and some large."""
    if becomes_dense(x):
        values = to_numpy(x.data[:SAMPLED])
    elif (isinstance(x, np.ndarray) or is_foreign(x)) and 0 not in x.shape:
        n_rows, width = x.shape
        step = max(1, n_rows * width // SAMPLED // width)
        rows = min(n_rows, step * max(1, SAMPLED // width + 1))
        values = to_numpy(x[:rows:step, :])
    else:
        return False
    return bool(
        values.size
        and values.max() >= LARGE_COUNT
        and values.min() >= 0
        and np.all(values == np.floor(values))
    )


def warn_of_counts(x: Any, method: str) -> None:
    """Warn if a method for logarithms was given what look like counts."""
    if looks_like_counts(x):
        msg = (
            f"{method} expects values on a log scale, and these look like raw counts "
            "(whole numbers up to large ones). Batch effects on counts multiply: take "
            "logarithms first, with batchcorr.pp.log_normalize or scanpy's normalize_total "
            "and log1p, or correct the counts with combat_seq."
        )
        warn(msg, CountsWarning)
