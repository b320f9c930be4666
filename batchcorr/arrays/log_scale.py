r"""Scale samples and take logarithms, in one pass: block by block, in cache.

    log_scale:    y = log(1 + k_i x) / log base              zeros stay zeros
    log_shifted:  y = log(k_i (x + p_i)) / log base          dense

NumPy's `log1p` works on eight values at a time and is many times faster than a call a
value; on blocks in cache the product before it is nearly free.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from batchcorr.arrays.blocks import BLOCK, cuts, dense_rows, in_threads, row_blocks
from batchcorr.arrays.operations import operation, unknown_kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["log_scale", "log_shifted"]

KINDS: dict[str, Any] = {
    "csr": (sp.csr_matrix, sp.csr_array),
    "csc": (sp.csc_matrix, sp.csc_array),
}


@operation
def log_scale(
    x: Matrix,
    scale: NDArray[np.float64],
    *,
    base: float = math.e,
    out: Matrix | None = None,
) -> Matrix:
    """Return log(1 + scale x) / log(base), row by row; a sparse matrix stays sparse.

    Parameters
    ----------
    x
        Matrix, (n, G); CSR and CSC in canonical format.
    scale
        What each row is multiplied by: (n,).
    base
        Base of the logarithm.
    out
        `x` itself to write into its memory (C order, float), or None for a new matrix,
        which is float64 for float64 and else float32, and shares nothing with `x`.
    """
    raise unknown_kind(x)


@operation
def log_shifted(
    x: Matrix,
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
    *,
    base: float = 2.0,
    out: Matrix | None = None,
) -> Matrix:
    """Return log(scale (x + shift)) / log(base), row by row; dense.

    Parameters
    ----------
    x
        Matrix, (n, G).
    shift, scale
        What each row is added to, and then multiplied by: (n,).
    base
        Base of the logarithm.
    out
        `x` itself to write into its memory (dense, C order, float), or None.
    """
    raise unknown_kind(x)


def _float_of(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _take_logs(block: NDArray[np.generic], base: float) -> None:
    np.log1p(block, out=block)
    if base != math.e:
        np.divide(block, math.log(base), out=block)


@log_scale.register(np.ndarray)
def _dense_log_scale(
    x: NDArray[np.generic],
    scale: NDArray[np.float64],
    *,
    base: float = math.e,
    out: Matrix | None = None,
) -> Matrix:
    if out is None:
        out = np.empty(x.shape, dtype=_float_of(x.dtype))
    factors = scale.astype(out.dtype)[:, None]

    def write(rows: slice) -> None:
        block = out[rows]
        np.multiply(x[rows], factors[rows], out=block, casting="same_kind")
        _take_logs(block, base)

    in_threads(write, row_blocks(x.shape))
    return out


def _sparse_log_scale(
    x: Matrix,
    scale: NDArray[np.float64],
    *,
    base: float = math.e,
    out: Matrix | None = None,
) -> Matrix:
    data = np.empty(x.nnz, dtype=_float_of(x.dtype)) if out is None else out.data
    factors = scale.astype(data.dtype)
    by_row, lengths = x.format == "csr", np.diff(x.indptr)

    def write(part: slice) -> None:
        stored = slice(x.indptr[part.start], x.indptr[part.stop])
        block = data[stored]
        if by_row:
            factor = np.repeat(factors[part], lengths[part])
        else:
            factor = factors[x.indices[stored]]
        np.multiply(x.data[stored], factor, out=block, casting="same_kind")
        _take_logs(block, base)

    in_threads(write, cuts(x.indptr))
    return _like(x, data) if out is None else out


def _like(x: Matrix, data: NDArray[np.generic]) -> Matrix:
    """Return a matrix with other values at the same places, sharing no memory."""
    kinds = KINDS[x.format]
    places = x.indices[: len(data)].copy(), x.indptr.copy()
    made = kinds[0 if isinstance(x, sp.spmatrix) else 1]((data, *places), shape=x.shape)
    made.has_canonical_format = True
    return made


def _log_shifted(
    x: Matrix,
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
    *,
    base: float = 2.0,
    out: Matrix | None = None,
) -> Matrix:
    x = x if isinstance(x, np.ndarray) else x.tocsr()
    if out is None:
        out = np.empty(x.shape, dtype=_float_of(x.dtype))

    def write(rows: slice) -> None:
        block = dense_rows(x, rows)
        block += shift[rows, None]
        block *= scale[rows, None]
        if base == 2:
            np.log2(block, out=block)
        else:
            np.log(block, out=block)
            block /= math.log(base)
        out[rows] = block

    in_threads(write, row_blocks(x.shape, BLOCK))
    return out


log_shifted.register(np.ndarray, _log_shifted)
for _kind in (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    log_scale.register(_kind, _sparse_log_scale)
    log_shifted.register(_kind, _log_shifted)
