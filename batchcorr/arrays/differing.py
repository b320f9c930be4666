"""How many values of a batch are unlike what is common there, and how far one lies off.

A value that all but a few samples of a batch have is the middle one of any of its
samples that are more than twice as many as those few: so a look at some rows tells it,
and one read of the matrix how often it is not met. O(B G) beside the matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from batchcorr._numba import Kernel, prange
from batchcorr.arrays.cells import order_of
from batchcorr.arrays.operations import operation, unknown_kind
from batchcorr.arrays.scipy_passes import canonical
from batchcorr.models.namespace import is_foreign, packages_of, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Unlike", "count_unlike", "on_host", "unlike"]

WIDTH = 512
"""Features that one thread counts at a time."""


class Unlike(NamedTuple):
    """What of a batch and feature is unlike the rest: (B, G) each; added over rows.

    Attributes
    ----------
    unlike
        Values that are not the common one.
    nonzero
        Values that are not 0.
    far
        The largest distance from a centre.
    """

    unlike: NDArray[np.int64]
    nonzero: NDArray[np.int64]
    far: NDArray[np.float64]

    @classmethod
    def nothing(cls, shape: tuple[int, int]) -> Unlike:
        """Return what no rows have."""
        return cls(np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape))

    def merge(self, other: Unlike) -> Unlike:
        """Return what the rows of both have."""
        return Unlike(
            self.unlike + other.unlike,
            self.nonzero + other.nonzero,
            np.maximum(self.far, other.far),
        )


def unlike(
    x: Any, codes: NDArray[np.int32], centre: NDArray[np.float64], few: int
) -> Unlike:
    """Count the values of each batch and feature that are unlike the common one.

    Parameters
    ----------
    x
        Matrix, (n, G); NaN stands for a missing value, which is not counted.
    codes
        Batch of each row.
    centre
        From where distances are measured: (B, G).
    few
        As many as this may be unlike the common value, for it to be found.

    Returns
    -------
    The counts, and the largest distances.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 5], [1, 0], [3, 0], [1, 0]])
    >>> found = unlike(x, np.zeros(4, np.int32), np.zeros((1, 2)), 1)
    >>> found.unlike.tolist(), found.nonzero.tolist(), found.far.tolist()
    ([[1, 1]], [[4, 1]], [[3.0, 5.0]])
    """
    x = on_host(x)
    common = _common(x, codes, len(centre), 2 * few + 1)
    found: Unlike = count_unlike(x, codes, common, np.ascontiguousarray(centre))
    return found


def on_host(x: Any) -> Any:
    """Return a matrix on a device as one of NumPy's or SciPy's; others as they are."""
    if packages_of(type(x)) & {"cupy", "cupyx"}:
        return x.get()
    return to_numpy(x) if is_foreign(x) else x


def _common(
    x: Any, codes: NDArray[np.int32], n_batches: int, some: int
) -> NDArray[np.float64]:
    """Return the middle of some rows of each batch: (B, G)."""
    common = np.zeros((n_batches, x.shape[1]))
    rows_of = [np.flatnonzero(codes == batch) for batch in range(n_batches)]
    picked = np.sort(np.concatenate([rows[:some] for rows in rows_of]))
    first = _read(x, picked, None)
    for batch, rows in enumerate(rows_of):
        if not len(rows):
            continue
        block = first[codes[picked] == batch]
        dense = block.toarray() if hasattr(block, "toarray") else block
        block = np.asarray(dense, dtype=np.float64)
        common[batch] = _middle(block)
        gaps = np.flatnonzero(np.isnan(block).any(axis=0))
        if gaps.size and len(rows) > some:  # then all rows are looked at
            common[batch, gaps] = _middle(np.asarray(_read(x, rows, gaps), float))
    return common


def _read(x: Any, rows: NDArray[np.intp], features: Any) -> Any:
    block = x[rows] if features is None else x[rows][:, features]
    return on_host(block.compute() if hasattr(block, "compute") else block)


def _middle(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middle of the observed values, the lower one of two; NaN if none."""
    observed = (~np.isnan(block)).sum(axis=0)
    places = np.maximum(observed - 1, 0) // 2
    middle: NDArray[np.float64] = np.sort(block, axis=0)[
        places, np.arange(block.shape[1])
    ]
    return middle


@operation
def count_unlike(
    x: Any,
    codes: NDArray[np.int32],
    common: NDArray[np.float64],
    centre: NDArray[np.float64],
) -> Any:
    """Count the values that are not the common ones, (B, G), in one read."""
    raise unknown_kind(x)


@Kernel
def _dense(x, codes, common, centre, unlike, nonzero, far):
    n_features = x.shape[1]
    for tile in prange((n_features + WIDTH - 1) // WIDTH):
        first, last = tile * WIDTH, min((tile + 1) * WIDTH, n_features)
        for row in range(len(codes)):
            batch, values = codes[row], x[row, first:last]
            usual, middle = common[batch, first:last], centre[batch, first:last]
            others, counts = unlike[batch, first:last], nonzero[batch, first:last]
            farthest = far[batch, first:last]
            for g in range(last - first):
                value = values[g]
                if not np.isnan(value):
                    others[g] += value != usual[g]
                    counts[g] += value != 0
                    farthest[g] = max(farthest[g], abs(value - middle[g]))


@Kernel
def _csr(
    data, indices, indptr, order, starts, common, centre, stored, unlike, nonzero, far
):
    for batch in prange(len(starts) - 1):
        for k in range(starts[batch], starts[batch + 1]):
            row = order[k]
            for position in range(indptr[row], indptr[row + 1]):
                g, value = indices[position], data[position]
                stored[batch, g] += 1
                unlike[batch, g] += value != common[batch, g]
                nonzero[batch, g] += value != 0
                far[batch, g] = max(far[batch, g], abs(value - centre[batch, g]))


@Kernel
def _csc(data, indices, indptr, codes, common, centre, stored, unlike, nonzero, far):
    for g in prange(len(indptr) - 1):
        for position in range(indptr[g], indptr[g + 1]):
            batch, value = codes[indices[position]], data[position]
            stored[batch, g] += 1
            unlike[batch, g] += value != common[batch, g]
            nonzero[batch, g] += value != 0
            far[batch, g] = max(far[batch, g], abs(value - centre[batch, g]))


@count_unlike.register(np.ndarray)
def _count_dense(
    x: NDArray[Any],
    codes: NDArray[np.int32],
    common: NDArray[np.float64],
    centre: NDArray[np.float64],
) -> Unlike:
    found = Unlike.nothing(common.shape)
    _dense(x, codes, common, centre, *found)
    return found


def _count_sparse(
    x: Any,
    codes: NDArray[np.int32],
    common: NDArray[np.float64],
    centre: NDArray[np.float64],
) -> Unlike:
    x = canonical(x)
    found = Unlike.nothing(common.shape)
    stored = np.zeros(common.shape, int)
    counts = np.bincount(codes, minlength=len(common))
    if x.format == "csr":
        starts = np.concatenate([[0], np.cumsum(counts)])
        order = order_of(codes, len(common))
        _csr(x.data, x.indices, x.indptr, order, starts, common, centre, stored, *found)
    else:
        _csc(x.data, x.indices, x.indptr, codes, common, centre, stored, *found)
    zeros = counts[:, None] - stored
    return Unlike(
        found.unlike + np.where(common == 0, 0, zeros),
        found.nonzero,
        np.where(zeros > 0, np.maximum(found.far, np.abs(centre)), found.far),
    )


for _kind in (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    count_unlike.register(_kind, _count_sparse)
