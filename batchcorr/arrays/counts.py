"""Counts, sample by sample: their totals, and what of a sample is not zero.

One room for NumPy arrays and SciPy matrices of any real dtype: integers are read as
they are, block by block in float64, and no copy of the matrix is made.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from batchcorr.arrays.blocks import cuts, dense_rows, row_blocks, spread
from batchcorr.arrays.verbs import _unknown, verb

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CountRows", "canonical", "totals"]

COLUMNS = 1 << 22
"""Stored values of a CSC matrix that are added up together."""


@verb
def totals(x: Any) -> tuple[NDArray[np.float64], float]:
    """Return the sum of every row, (n,), and the smallest stored value or 0.

    A sum is not finite exactly when its row holds a value that is not (or, at 1e308, a
    number that is no count).
    """
    raise _unknown(x)


@totals.register(np.ndarray)
def _dense_totals(x: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    found, lowest = np.zeros(x.shape[0]), [0.0]

    def add(rows: slice) -> None:
        block = dense_rows(x, rows)
        with np.errstate(all="ignore"):
            found[rows] = block.sum(axis=1)
        lowest.append(float(block.min(initial=0.0)))

    spread(add, row_blocks(x.shape))
    return found, min(lowest)


def _csr_totals(x: Any) -> tuple[NDArray[np.float64], float]:
    found, lowest = np.zeros(x.shape[0]), [0.0]

    def add(rows: slice) -> None:
        starts = x.indptr[rows.start : rows.stop + 1]
        block = x.data[starts[0] : starts[-1]].astype(np.float64)
        filled = starts[:-1] < starts[1:]
        with np.errstate(all="ignore"):
            sums = np.add.reduceat(block, (starts[:-1] - starts[0])[filled])
        found[rows][filled] = sums
        lowest.append(float(block.min(initial=0.0)))

    spread(add, cuts(x.indptr))
    return found, min(lowest)


def _csc_totals(x: Any) -> tuple[NDArray[np.float64], float]:
    n, stored = x.shape[0], int(x.indptr[-1])
    found, lowest = np.zeros(n), 0.0
    for start in range(0, stored, COLUMNS):
        part = slice(start, min(start + COLUMNS, stored))
        found += np.bincount(x.indices[part], weights=x.data[part], minlength=n)
        lowest = min(lowest, float(x.data[part].min()))
    return found, lowest


for _kinds, _rows in (
    ((sp.csr_matrix, sp.csr_array), _csr_totals),
    ((sp.csc_matrix, sp.csc_array), _csc_totals),
):
    for _kind in _kinds:
        totals.register(_kind, _rows)


def canonical(x: Any) -> Any:
    """Return a matrix that stores no entry twice: `x` itself if possible."""
    if isinstance(x, np.ndarray) or _ascending(x.indices, x.indptr):
        return x
    x = x.copy()
    x.has_canonical_format = False
    x.sum_duplicates()
    return x


def _ascending(indices: NDArray[Any], indptr: NDArray[Any]) -> bool:
    """Whether indices strictly ascend in every row (or column), on all threads."""
    found: list[bool] = []

    def check(part: slice) -> None:
        starts = indptr[part.start : part.stop + 1]
        first, last = starts[0], starts[-1]
        block = indices[first:last]
        up = block[1:] > block[:-1]
        fresh = starts[(starts > first) & (starts < last)]
        up[fresh - first - 1] = True
        found.append(bool(up.all()))

    spread(check, cuts(indptr))
    return all(found)


class CountRows:
    """The positive counts of one sample after the other, whatever the matrix.

    Parameters
    ----------
    x
        NumPy array, or SciPy CSR or CSC matrix in canonical format.
    totals
        Sum of each row: (n,).
    """

    def __init__(self, x: Any, totals: NDArray[np.float64]) -> None:
        self._x = x
        self.totals = totals
        self.n_features = int(x.shape[1])

    @cached_property
    def _by_row(self) -> Any:
        return self._x if isinstance(self._x, np.ndarray) else self._x.tocsr()

    def __getitem__(self, i: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return where sample i has counts, in ascending order, and how many."""
        x = self._by_row
        if isinstance(x, np.ndarray):
            row = np.asarray(x[i], dtype=np.float64)
            features = np.flatnonzero(row)
            return features, row[features]
        part = slice(x.indptr[i], x.indptr[i + 1])
        counts = x.data[part].astype(np.float64)
        features = x.indices[part].astype(np.intp)
        stored = counts != 0
        return (
            (features, counts) if stored.all() else (features[stored], counts[stored])
        )
