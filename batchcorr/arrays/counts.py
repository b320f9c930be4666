"""Counts, sample by sample: their totals, and what of a sample is not zero.

For NumPy arrays and SciPy matrices of any real dtype: integers are read as
they are, block by block in float64, and no copy of the matrix is made. Dask arrays have
theirs in `dask_counts`, which brings their blocks here.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp

from batchcorr.arrays.blocks import cuts, dense_rows, in_threads, row_blocks
from batchcorr.arrays.operations import operation, unknown_kind
from batchcorr.errors import InputError
from batchcorr.models.counts.size_factors import measure, scaled_totals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.counts.samples import Samples, Work
    from batchcorr.models.counts.size_factors import Reference
    from batchcorr.models.namespace import Matrix

__all__ = ["CountRows", "canonical", "count_rows", "effective_library_sizes", "totals"]

T = TypeVar("T")

COLUMNS = 1 << 22
"""Stored values of a CSC matrix that are added up together."""

SAMPLED = 200_000
"""Values looked at to tell counts from logarithms."""

LARGE_LOG = 20
"""Logarithms of counts do not reach this: the base-2 logarithm of a million is 19.9."""


@operation
def count_rows(x: Matrix) -> Samples:
    """Return the counts of one sample after the other, as `models.size_factors` reads."""
    raise unknown_kind(x)


@operation
def effective_library_sizes(x: Matrix, reference: Reference) -> Matrix:
    """Return the effective library sizes of samples, (n,), each measured on its own.

    0 for samples without counts; for a Dask array a Dask array, with nothing computed.
    """
    raise unknown_kind(x)


@operation
def totals(x: Matrix) -> tuple[NDArray[np.float64], float]:
    """Return the sum of every row, (n,), and the smallest stored value or 0.

    A sum is not finite exactly when its row holds a value that is not (or, at 1e308, a
    number that is no count).
    """
    raise unknown_kind(x)


@totals.register(np.ndarray)
def _dense_totals(x: NDArray[np.generic]) -> tuple[NDArray[np.float64], float]:
    found, lowest = np.zeros(x.shape[0]), [0.0]

    def add(rows: slice) -> None:
        block = dense_rows(x, rows)
        with np.errstate(all="ignore"):
            found[rows] = block.sum(axis=1)
        lowest.append(float(block.min(initial=0.0)))

    in_threads(add, row_blocks(x.shape))
    return found, min(lowest)


def _csr_totals(x: Matrix) -> tuple[NDArray[np.float64], float]:
    found, lowest = np.zeros(x.shape[0]), [0.0]

    def add(rows: slice) -> None:
        starts = x.indptr[rows.start : rows.stop + 1]
        block = x.data[starts[0] : starts[-1]].astype(np.float64)
        filled = starts[:-1] < starts[1:]
        with np.errstate(all="ignore"):
            sums = np.add.reduceat(block, (starts[:-1] - starts[0])[filled])
        found[rows][filled] = sums
        lowest.append(float(block.min(initial=0.0)))

    in_threads(add, cuts(x.indptr))
    return found, min(lowest)


def _csc_totals(x: Matrix) -> tuple[NDArray[np.float64], float]:
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


def checked_totals(x: Matrix, first: int = 0) -> NDArray[np.float64]:
    """Return the sum of every row, (n,).

    Parameters
    ----------
    x
        Counts in memory.
    first
        Which of all rows the first one is, for messages.

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
            f"The counts of {len(rows)} of {len(found)} samples (first: row "
            f"{first + rows[0]}) contain missing or infinite values, but every count "
            "must be known. Leave out these samples or features, or fill in the "
            "missing counts."
        )
        raise InputError(msg)
    if smallest < 0:
        msg = (
            f"The counts contain negative values, down to {smallest:g}. "
            "Log-transformed, scaled or corrected values are not counts: give the raw "
            "counts, which are often in layers['counts'] or raw."
        )
        raise InputError(msg)
    return found


def canonical(x: Matrix) -> Matrix:
    """Return a NumPy array, or CSR or CSC that stores no entry twice: `x` if it is one."""
    if isinstance(x, np.ndarray):
        return x
    x = x if x.format in {"csr", "csc"} else x.tocsr()
    if _ascending(x.indices, x.indptr):
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

    in_threads(check, cuts(indptr))
    return all(found)


class CountRows:
    """The positive counts of one sample after the other, whatever the matrix.

    Parameters
    ----------
    x
        NumPy array, or SciPy CSR or CSC matrix in canonical format.
    totals
        Sum of each row, (n,), if known.
    first
        Which of all rows the first one is, for messages.

    Raises
    ------
    InputError
        If any value is missing, infinite or negative.
    """

    def __init__(
        self, x: Matrix, totals: NDArray[np.float64] | None = None, first: int = 0
    ) -> None:
        self._x = x
        self.first = first
        self.totals = checked_totals(x, first) if totals is None else totals
        self.n_features = int(x.shape[1])

    @property
    def logged(self) -> float:
        """The largest of the first values if they look like logarithms, else 0."""
        x = self._x
        dense = isinstance(x, np.ndarray)
        values = x[: max(1, SAMPLED // x.shape[1])].ravel() if dense else x.data
        values = values[:SAMPLED]
        values = values[values > 0]
        if not values.size or values.dtype.kind != "f" or values.max() >= LARGE_LOG:
            return 0.0
        fractions = np.mean(values == np.floor(values)) < 0.5
        return float(values.max()) if fractions else 0.0

    def gather(self, work: Work[T], _: object) -> T:
        """Work on all samples: they are one block."""
        return work(self)

    @cached_property
    def _by_row(self) -> Matrix:
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


def _effective_library_sizes(
    x: Matrix, reference: Reference, first: int = 0
) -> NDArray[np.float64]:
    rows = CountRows(x, first=first)
    return scaled_totals(reference, rows.totals, measure(rows, reference))


for _known in (np.ndarray, sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    count_rows.register(_known, CountRows)
    effective_library_sizes.register(_known, _effective_library_sizes)
