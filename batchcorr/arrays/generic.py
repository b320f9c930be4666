r"""Arrays of any library that follows the array API standard: torch, array-api-strict.

The sums are written once, on the standard, without a branch that depends on values: so
they run on the device of the array, and torch differentiates through them. Per group
of rows, with v = 1 for a value that is there and 0 for a missing one,

    x̄ = o + Σ v (x - o) / Σ v,     M = Σ v (x - x̄)²,     C = Σ v (z - z̄)(x - x̄)

where o is the group's first value: a constant group gives M = 0 exactly. Whole groups
are taken in blocks of rows and merged by `Moments.collapse`.

Models of neural networks are built on `tensor_moments` and `tensor_affine`, which take
and give arrays of the library itself; `array_api` makes them the operations of a kind
of matrix.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.cells import order_of
from batchcorr.models.moments import Moments
from batchcorr.models.namespace import Array, Namespace, asarray_like, namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchcorr.models.location_scale import LocationScale

__all__ = [
    "accumulator",
    "affine_rows",
    "row_slices",
    "rows_of",
    "tensor_affine",
    "tensor_moments",
]

BLOCK = 2**24
"""Values that are worked on at a time."""


def accumulator(x: Array) -> Any:
    """The dtype to sum in: float64, but float32 for half precision, and on Apple's MPS."""
    xp = namespace(x)
    has_wide = getattr(x.device, "type", "") != "mps"
    return (
        xp.float64 if has_wide and x.dtype in (xp.float32, xp.float64) else xp.float32
    )


def tensor_moments(
    x: Array,
    codes: NDArray[np.integer] | None = None,
    n_batches: int = 1,
    columns: NDArray[np.float64] | Array | None = None,
    weights: NDArray[np.float64] | Array | None = None,
    *,
    missing: bool = False,
) -> Moments:
    """Return the moments of a matrix per batch, as arrays of its library.

    Parameters
    ----------
    x
        Matrix of n rows and G features.
    codes
        Batch of each row, 0 … B-1: (n,), on the CPU; None: all are one batch.
    n_batches
        B; a batch without rows has n = 0.
    columns
        Design columns: (n, p).
    weights
        Weight of each value, (n, G), or row, (n, 1); statistics are then by feature.
    missing
        Whether NaN stands for a missing value; statistics are then by feature.

    Returns
    -------
    Moments
        In float64; in float32 for half precision.

    Examples
    --------
    >>> import numpy as np
    >>> found = tensor_moments(np.array([[1.0], [3.0], [9.0]]), np.array([0, 0, 1]), 2)
    >>> found.mean.ravel().tolist(), found.squares.ravel().tolist()
    ([2.0, 9.0], [2.0, 0.0])
    """
    xp, n_rows, wide = namespace(x), x.shape[0], accumulator(x)
    if columns is None:
        columns = np.empty((n_rows, 0))
    columns = asarray_like(x, columns, wide)
    codes = np.zeros(n_rows, dtype=np.intp) if codes is None else codes
    parents, parts = [], []
    for batch, rows in _blocks(x, codes, n_batches):
        block, z = x, columns
        if rows is not None:
            block, z = xp.take(x, rows, axis=0), xp.take(columns, rows, axis=0)
        block = xp.astype(block, wide)
        if missing or weights is not None:
            v = xp.astype(~xp.isnan(block), block.dtype)
            if weights is not None:
                w = asarray_like(x, weights, block.dtype)
                w = w if rows is None else xp.take(w, rows, axis=0)
                v = xp.where(w > 0, v * w, xp.zeros_like(v))
            parts.append(_by_feature(xp, block, z, v))
        else:
            parts.append(_shared(xp, block, z))
        parents.append(batch)
    one_each = parents == list(range(n_batches))
    together = parts[0] if len(parts) == 1 else _stack(xp, parts)
    return together if one_each else together.collapse(parents, n_batches)


def _stack(xp: Namespace, parts: list[Moments]) -> Moments:
    """Set the groups of several moments after each other."""
    return Moments(
        **{
            name: xp.concat([getattr(part, name) for part in parts], axis=0)
            for name in Moments.__dataclass_fields__
        }
    )


def _blocks(
    x: Array, codes: NDArray[np.integer], n_batches: int
) -> Iterator[tuple[int, Array | None]]:
    """Yield the batch and the rows of each block; None stands for all rows."""
    size = max(1, BLOCK // max(int(x.shape[1]), 1))
    if n_batches == 1 and len(codes) <= size:
        yield 0, None
        return
    order = asarray_like(x, order_of(codes, n_batches).astype(np.int64))
    ends = np.cumsum(np.bincount(codes, minlength=n_batches)).tolist()
    for batch, (first, last) in enumerate(pairwise([0, *ends])):
        for start in range(first, last, size):
            yield batch, order[start : min(start + size, last)]


def _shared(xp: Namespace, x: Array, z: Array) -> Moments:
    """Return the moments of rows in which nothing is missing: one group."""
    origin, z_origin = x[:1, :], xp.mean(z, axis=0, keepdims=True)
    off = x - origin
    shift = xp.mean(off, axis=0, keepdims=True)
    d, z = off - shift, z - z_origin
    count = xp.full_like(x[:1, :1], float(x.shape[0]))
    return Moments(
        rows=count,
        n=count,
        mean=origin + shift,
        squares=xp.sum(d * d, axis=0, keepdims=True),
        columns=z_origin[:, :, None],
        cross=xp.matmul(z.T, d)[None, ...],
        gram=xp.matmul(z.T, z)[None, :, :, None],
    )


def _by_feature(xp: Namespace, x: Array, z: Array, v: Array) -> Moments:
    """Return the moments of rows with missing or weighted values: one group."""
    there = v > 0
    x = xp.where(there, x, xp.zeros_like(x))
    first = xp.argmax(xp.astype(there, xp.int32), axis=0, keepdims=True)
    origin = xp.take_along_axis(x, first, axis=0)
    n = xp.sum(v, axis=0, keepdims=True)
    safe = xp.where(n > 0, n, xp.ones_like(n))
    off = xp.where(there, x - origin, xp.zeros_like(x))
    shift = xp.sum(v * off, axis=0, keepdims=True) / safe
    d = v * xp.where(there, off - shift, xp.zeros_like(x))
    centre = xp.mean(z, axis=0)
    z = z - centre
    z_shift = xp.matmul(z.T, v) / safe  # (p, G)
    p = int(z.shape[1])
    products = xp.reshape(z[:, :, None] * z[:, None, :], (z.shape[0], p * p))
    gram = xp.reshape(xp.matmul(products.T, v), (p, p, v.shape[1]))
    gram = gram - n * z_shift[:, None, :] * z_shift[None, :, :]
    seen = xp.astype(n > 0, n.dtype)
    return Moments(
        rows=xp.full_like(x[:1, :1], float(x.shape[0])),
        n=n,
        mean=origin + shift,
        squares=xp.sum(d * (off - shift), axis=0, keepdims=True),
        columns=((centre[:, None] + z_shift) * seen)[None, ...],
        cross=xp.matmul(z.T, d)[None, ...],
        gram=gram[None, ...],
    )


def tensor_affine(
    x: Array, correction: LocationScale, codes: NDArray[np.integer] | None = None
) -> Array:
    """Return r x + s for arrays of one library, differentiably.

    Parameters
    ----------
    x
        Matrix of n rows and G features.
    correction
        The frozen correction, of arrays of the same library and device.
    codes
        Batch of each row: (n,); None: all are of batch 0.

    Examples
    --------
    >>> import numpy as np
    >>> from batchcorr.models.location_scale import LocationScale
    >>> none = np.empty((0, 1))
    >>> halve = LocationScale(np.full((1, 1), 0.5), np.ones((1, 1)), none, none)
    >>> tensor_affine(np.array([[2.0], [4.0]]), halve).ravel().tolist()
    [2.0, 3.0]
    """
    pick = None
    if codes is not None and correction.n_batches > 1:
        pick = asarray_like(x, np.asarray(codes, dtype=np.int64))
    return affine_rows(
        x, rows_of(correction.scale, pick), rows_of(correction.shift, pick)
    )


def rows_of(values: Array, pick: Array | None) -> Array:
    """Return the values of each row's batch; of the only batch where none is picked."""
    return values if pick is None else namespace(values).take(values, pick, axis=0)


def affine_rows(
    x: Array, scale: Array, shift: Array, columns: Array = None, tilt: Array = None
) -> Array:
    """Return scale x + shift + columns tilt, each laid out for the rows of x.

    In this order, so that it is the same whether a column is in the shift or beside it.
    """
    xp, line = namespace(x), shift
    if columns is not None:
        z = asarray_like(x, columns, scale.dtype)
        for k in range(int(z.shape[1])):
            line = line + z[:, k : k + 1] * tilt[:, k, :]
    return xp.astype(xp.astype(x, scale.dtype) * scale + line, x.dtype)


def row_slices(x: Array) -> Iterator[slice]:
    """Cut the rows into blocks that are worked on at a time."""
    n_rows, size = int(x.shape[0]), max(1, BLOCK // max(int(x.shape[1]), 1))
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))
