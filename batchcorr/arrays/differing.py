"""How many values of a batch differ from its most common one, and between what they lie.

A value that all but a few samples of a batch have is the middle one of any of its
samples that are more than twice as many as those few: so a look at some rows tells it,
and one read of the matrix how often it is not met. The same read tells the smallest and
the largest value, and how many decimals the values have. O(B G) beside the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from batchcorr._numba import Helper, Kernel, prange
from batchcorr.arrays.cells import order_of
from batchcorr.arrays.operations import operation, unknown_kind
from batchcorr.arrays.scipy_passes import canonical
from batchcorr.models.namespace import is_foreign, packages_of, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = [
    "MOST_DECIMALS",
    "Differing",
    "count_differing",
    "differing",
    "on_host",
    "read_rows",
]

WIDTH = 512
"""Features that one thread counts at a time."""

MOST_DECIMALS = 4
"""Decimals that are looked for; one more stands for values with more of them."""


class Differing(NamedTuple):
    """What values a batch has of a feature: (B, G) each; merged over blocks of rows.

    Attributes
    ----------
    unequal
        Values that are not the most common one.
    nonzero
        Values that are not 0.
    low
        The smallest value, infinite if there is none.
    high
        The largest value, minus infinity if there is none.
    decimals
        Digits after the point that all values are written with: 0 of whole numbers,
        more than `MOST_DECIMALS` where they are not rounded.
    """

    unequal: NDArray[np.int64]
    nonzero: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    decimals: NDArray[np.int64]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Differing:
        """The counts of no rows."""
        none = [np.zeros(shape, int) for _ in range(3)]
        return cls(
            none[0], none[1], np.full(shape, np.inf), np.full(shape, -np.inf), none[2]
        )

    def merge(self, other: Differing) -> Differing:
        """The counts of the rows of both."""
        return Differing(
            self.unequal + other.unequal,
            self.nonzero + other.nonzero,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            np.maximum(self.decimals, other.decimals),
        )


def differing(
    x: Matrix, codes: NDArray[np.int32], n_batches: int, few: int
) -> Differing:
    """Count the values of each batch and feature that differ from the most common one.

    Parameters
    ----------
    x
        Matrix, (n, G); NaN stands for a missing value, which is not counted.
    codes
        Batch of each row.
    n_batches
        Number of batches.
    few
        As many as this may differ from the most common value, for it to be found.

    Returns
    -------
    The counts, the smallest and largest values, and their decimals.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 5], [1, 0], [3, 0], [1.25, 0]])
    >>> found = differing(x, np.zeros(4, np.int32), 1, 1)
    >>> found.unequal.tolist(), found.nonzero.tolist(), found.decimals.tolist()
    ([[2, 1]], [[4, 1]], [[2, 0]])
    """
    x = on_host(x)
    common = _common(x, codes, n_batches, 2 * few + 1)
    found: Differing = count_differing(x, codes, common)
    return found


def on_host(x: Matrix) -> Matrix:
    """A matrix on a device as one of NumPy's or SciPy's; others as they are."""
    if packages_of(type(x)) & {"cupy", "cupyx"}:
        return x.get()
    return to_numpy(x) if is_foreign(x) else x


def _common(
    x: Matrix, codes: NDArray[np.int32], n_batches: int, some: int
) -> NDArray[np.float64]:
    """The middle of some rows of each batch: (B, G)."""
    common = np.zeros((n_batches, x.shape[1]))
    rows_of = [np.flatnonzero(codes == batch) for batch in range(n_batches)]
    picked = np.sort(np.concatenate([rows[:some] for rows in rows_of]))
    first = read_rows(x, picked)
    for batch, rows in enumerate(rows_of):
        if not len(rows):
            continue
        block = first[codes[picked] == batch]
        dense = block.toarray() if hasattr(block, "toarray") else block
        block = np.asarray(dense, dtype=np.float64)
        common[batch] = _middle(block)
        gaps = np.flatnonzero(np.isnan(block).any(axis=0))
        if gaps.size and len(rows) > some:  # then all rows are looked at
            common[batch, gaps] = _middle(np.asarray(read_rows(x, rows, gaps), float))
    return common


def read_rows(x: Matrix, rows: NDArray[np.intp], features: object = None) -> Matrix:
    """Some rows of a matrix of any kind, and some features of them: NumPy's or SciPy's."""
    block = x[rows] if features is None else x[rows][:, features]
    return on_host(block.compute() if hasattr(block, "compute") else block)


def _middle(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle of the observed values, the lower one of two; NaN if none."""
    observed = (~np.isnan(block)).sum(axis=0)
    places = np.maximum(observed - 1, 0) // 2
    middle: NDArray[np.float64] = np.sort(block, axis=0)[
        places, np.arange(block.shape[1])
    ]
    return middle


@operation
def count_differing(
    x: Matrix, codes: NDArray[np.int32], common: NDArray[np.float64]
) -> Any:
    """Count the values that are not the common ones, (B, G), in one read."""
    raise unknown_kind(x)


@Helper
def _add(found, batch, g, value, common):
    """Count one value, and the decimals it has to a float32's precision."""
    found.unequal[batch, g] += value != common
    found.nonzero[batch, g] += value != 0
    found.low[batch, g] = min(found.low[batch, g], value)
    found.high[batch, g] = max(found.high[batch, g], value)
    decimals = found.decimals[batch, g]
    while decimals <= MOST_DECIMALS:
        scaled = abs(value) * 10.0**decimals
        if abs(scaled - np.rint(scaled)) <= 2e-7 * scaled + 1e-9:
            break
        decimals += 1
    found.decimals[batch, g] = decimals


@Kernel
def _dense(x, codes, common, found):
    n_features = x.shape[1]
    for tile in prange((n_features + WIDTH - 1) // WIDTH):
        for row in range(len(codes)):
            batch = codes[row]
            for g in range(tile * WIDTH, min((tile + 1) * WIDTH, n_features)):
                if not np.isnan(x[row, g]):
                    _add(found, batch, g, x[row, g], common[batch, g])


@Kernel
def _csr(data, indices, indptr, order, starts, common, stored, found):
    for batch in prange(len(starts) - 1):
        for k in range(starts[batch], starts[batch + 1]):
            row = order[k]
            for position in range(indptr[row], indptr[row + 1]):
                g = indices[position]
                stored[batch, g] += 1
                _add(found, batch, g, data[position], common[batch, g])


@Kernel
def _csc(data, indices, indptr, codes, common, stored, found):
    for g in prange(len(indptr) - 1):
        for position in range(indptr[g], indptr[g + 1]):
            batch = codes[indices[position]]
            stored[batch, g] += 1
            _add(found, batch, g, data[position], common[batch, g])


@count_differing.register(np.ndarray)
def _count_dense(
    x: NDArray[np.generic], codes: NDArray[np.int32], common: NDArray[np.float64]
) -> Differing:
    found = Differing.empty(common.shape)
    _dense(x, codes, common, found)
    return found


def _count_sparse(
    x: Matrix, codes: NDArray[np.int32], common: NDArray[np.float64]
) -> Differing:
    x = canonical(x)
    found = Differing.empty(common.shape)
    stored = np.zeros(common.shape, int)
    counts = np.bincount(codes, minlength=len(common))
    if x.format == "csr":
        starts = np.concatenate([[0], np.cumsum(counts)])
        order = order_of(codes, len(common))
        _csr(x.data, x.indices, x.indptr, order, starts, common, stored, found)
    else:
        _csc(x.data, x.indices, x.indptr, codes, common, stored, found)
    zeros = counts[:, None] - stored
    return found._replace(
        unequal=found.unequal + np.where(common == 0, 0, zeros),
        low=np.where(zeros > 0, np.minimum(found.low, 0), found.low),
        high=np.where(zeros > 0, np.maximum(found.high, 0), found.high),
    )


for _kind in (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    count_differing.register(_kind, _count_sparse)
