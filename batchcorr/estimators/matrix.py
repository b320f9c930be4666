"""Take the matrix a caller gives as one of the kinds that the passes know.

Numbers become float32 or float64 as `arrays.dtypes` has it; sparse matrices stay sparse
(CSR or CSC); what a mask hides, and pandas' missing values, are NaN. Samples are rows.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.dtypes import dtype_of_values
from batchcorr.errors import InputError
from batchcorr.models.namespace import is_cupy, is_foreign, namespace, packages_of

if TYPE_CHECKING:
    from batchcorr.models.namespace import Matrix

__all__ = [
    "as_array",
    "as_matrix",
    "is_sparse",
    "is_writable",
    "matrix_to_fit",
    "on_device",
]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def is_sparse(x: object) -> bool:
    """Whether a matrix is sparse: SciPy's, or CuPy's."""
    modules = (sys.modules.get(f"{name}.sparse") for name in ("scipy", "cupyx.scipy"))
    return any(module is not None and module.issparse(x) for module in modules)


def on_device(x: object) -> bool:
    """Whether a matrix is CuPy's, dense or sparse."""
    return not packages_of(type(x)).isdisjoint({"cupy", "cupyx"})


def is_writable(x: object) -> bool:
    """Whether results can be written into a matrix: NumPy's, if not frozen, or CuPy's."""
    return x.flags.writeable if isinstance(x, np.ndarray) else is_cupy(x)


def as_matrix(x: Matrix) -> Matrix:
    """Return a float matrix of a known kind: `x` itself where it is one already.

    Raises
    ------
    InputError
        If `x` is not two-dimensional, or does not hold real numbers.

    Examples
    --------
    >>> as_matrix([[1, 2], [3, 4]]).dtype
    dtype('float64')
    >>> as_matrix(np.ma.masked_equal([[1, 2], [3, 4]], 3))
    array([[ 1.,  2.],
           [nan,  4.]])
    """
    if is_sparse(x):
        known = {"csr"} if on_device(x) else {"csr", "csc"}
        x = x if x.format in known else x.tocsr()
    else:
        given, x = x, as_array(x)
        if x.ndim == 0:
            msg = (
                "The data must be a matrix of samples × features, not of type "
                f"{type(given).__name__}. If it is in a file, read it into memory or "
                "as a Dask array."
            )
            raise InputError(msg)
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
        return x.astype(dtype_of_values(x.dtype))
    msg = f"The data must be real numbers, not {x.dtype}. " + (
        "Complex data not supported: convert them to float first."
        if x.dtype.kind == "c"
        else "One column of text, dates or mixed types gives the whole table this type: "
        "leave it out, or convert with .astype(float)."
    )
    raise InputError(msg)


def matrix_to_fit(x: Matrix) -> Matrix:
    """The float matrix of a known kind, refused if there is nothing in it: `as_matrix`."""
    x = as_matrix(x)
    if 0 in x.shape:
        msg = (
            f"There is nothing to fit: the data are {x.shape[0]} samples × "
            f"{x.shape[1]} features."
        )
        raise InputError(msg)
    return x


def _as_floats(x: Matrix) -> Matrix:
    """Return an array of a library other than NumPy in a dtype that is known."""
    xp = namespace(x)
    if x.dtype in (xp.float32, xp.float64):
        return x
    if xp.isdtype(x.dtype, ("bool", "integral", "real floating")):
        narrow = (xp.bool, xp.int8, xp.uint8, xp.int16)
        exact = x.dtype in narrow or not xp.isdtype(x.dtype, ("bool", "integral"))
        return xp.astype(x, xp.float32 if exact else xp.float64)
    msg = f"The data must be real numbers, not {x.dtype}: convert them to float first."
    raise InputError(msg)


def _from_sequence(x: object) -> Matrix:
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


def as_array(x: object) -> Matrix:
    """Return what holds a matrix as an array of the library that it is of.

    Tables, lists and masked arrays become NumPy arrays: what is masked, or missing in a
    table of numbers, is NaN there, in float64; integers stay integers where nothing is.
    """
    if isinstance(x, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(x)
        if not hidden.any():
            return np.array(x.data)
        if x.dtype.kind not in "buif":
            return x.data
        wide = dtype_of_values(x.dtype)
        return np.where(hidden, wide.type(np.nan), x.data.astype(wide))
    if hasattr(x, "to_numpy"):
        return _from_table(x)
    if isinstance(x, np.matrix) or not hasattr(x, "dtype") or not hasattr(x, "ndim"):
        return _from_sequence(x)
    return x


def _from_table(x: Matrix) -> Matrix:
    """Return the values of a DataFrame, whose columns may be of dtypes with pandas' NA."""
    values = x.to_numpy()
    if values.dtype.kind != "O" or values.ndim != 2:
        return values
    if not {getattr(dtype, "kind", "O") for dtype in x.dtypes} <= set("buif"):
        return values
    if x.isna().to_numpy().any():
        return x.to_numpy(dtype=np.float64, na_value=np.nan)
    plain = [getattr(dtype, "numpy_dtype", dtype) for dtype in x.dtypes]
    return x.to_numpy(dtype=np.result_type(*plain))
