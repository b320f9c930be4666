r"""SciPy CSR and CSC matrices: moments from the nonzeros alone, corrected values dense.

The m stored values of n rows, mean x̄₊ and squares M₊, and the n - m zeros beside them
are merged as two groups:

    x̄ = x̄₊ m / n,      M = M₊ + m (n - m) / n  x̄₊²

Stored values are measured from the first one met, so that nothing cancels; slopes are
centred, so that zeros add nothing to their products. O(nonzeros + C G).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from batchcorr._numba import Kernel, prange
from batchcorr.arrays.by_feature import dense_sums_by_feature
from batchcorr.arrays.operations import (
    Maps,
    Sums,
    affine,
    has_infinite,
    sums,
    sums_by_feature,
)
from batchcorr.errors import InputError
from batchcorr.models.moments import Moments
from batchcorr.models.namespace import Array, namespace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.cells import Cells
    from batchcorr.design.design import Design
    from batchcorr.models.namespace import Matrix

STRIPES = 16
"""CSR rows are summed in stripes of one cell each, of n / STRIPES rows at most."""

COUNT, BASE, TOTAL, SQUARES = range(4)
"""What is summed of the stored values of a group and feature, side by side."""


@Kernel
def _csr_sums(data, indices, indptr, order, bounds, slopes, found, cross):
    for stripe in prange(len(bounds) - 1):
        own, product = found[stripe], cross[stripe]
        for k in range(bounds[stripe], bounds[stripe + 1]):
            row = order[k]
            for position in range(indptr[row], indptr[row + 1]):
                g, value = indices[position], data[position]
                if own[g, COUNT] == 0:
                    own[g, BASE] = value
                d = value - own[g, BASE]
                own[g, COUNT] += 1
                own[g, TOTAL] += d
                own[g, SQUARES] += d * d
                for s in range(slopes.shape[1]):
                    product[s, g] += slopes[row, s] * value


@Kernel
def _csc_sums(data, indices, indptr, codes, cell_batch, slopes, found, cross):
    for g in prange(len(indptr) - 1):
        own = np.zeros((found.shape[0], 4))
        for position in range(indptr[g], indptr[g + 1]):
            row, value = indices[position], data[position]
            cell = codes[row]
            if own[cell, COUNT] == 0:
                own[cell, BASE] = value
            d = value - own[cell, BASE]
            own[cell, COUNT] += 1
            own[cell, TOTAL] += d
            own[cell, SQUARES] += d * d
            for s in range(slopes.shape[1]):
                cross[cell_batch[cell], s, g] += slopes[row, s] * value
        found[:, g] = own


def with_zeros(found: Array, rows: Array) -> tuple[Array, Array]:
    """Merge stored values with the zeros beside them: mean and squares, (groups, G)."""
    xp = namespace(found)
    count, rest = found[:, :, COUNT], rows[:, None] - found[:, :, COUNT]
    at_least_one = xp.maximum(count, 1)
    off = found[:, :, TOTAL] / at_least_one
    stored = found[:, :, BASE] + off
    squares = xp.maximum(found[:, :, SQUARES] - off * found[:, :, TOTAL], 0)
    share = count / xp.maximum(rows[:, None], 1)
    return xp.where(rest > 0, stored * share, stored), squares + (
        rest * share * stored**2
    )


def canonical(x: Matrix) -> Matrix:
    """Return a matrix in which no entry is stored twice: `x` itself if possible."""
    if x.has_canonical_format:
        return x
    x = x.copy()
    x.sum_duplicates()
    return x


def _csr(x: Matrix, cells: Cells, slopes: NDArray[np.float64]) -> Sums:
    x = canonical(x)
    order = cells.sorted_rows().order
    parents, bounds = cells.stripes(max(1, -(-x.shape[0] // STRIPES)))
    found = np.zeros((len(parents), x.shape[1], 4))
    cross = np.zeros((len(parents), slopes.shape[1], x.shape[1]))
    _csr_sums(x.data, x.indices, x.indptr, order, bounds, slopes, found, cross)

    rows = np.diff(bounds)
    stripes = Moments.of_values(rows[:, None], *with_zeros(found, rows))
    merged = stripes.collapse(parents.tolist(), cells.n_cells)
    by_batch = np.zeros((cells.n_batches, *cross.shape[1:]))
    for batch, part in zip(cells.batch[parents], cross, strict=True):
        by_batch[batch] += part
    return Sums(merged.mean, merged.squares, by_batch)


def _csc(x: Matrix, cells: Cells, slopes: NDArray[np.float64]) -> Sums:
    x = canonical(x)
    found = np.zeros((cells.n_cells, x.shape[1], 4))
    cross = np.zeros((cells.n_batches, slopes.shape[1], x.shape[1]))
    _csc_sums(
        x.data, x.indices, x.indptr, cells.codes, cells.batch, slopes, found, cross
    )
    return Sums(*with_zeros(found, cells.counts), cross)


def refuse_missing(values: Array) -> None:
    """Refuse stored values that are missing."""
    if namespace(values).isnan(values).any():
        msg = (
            "The sparse matrix contains missing values (NaN). Values that are not "
            "stored are zeros, so NaN is probably a mistake of an earlier step: drop "
            "these features or samples, or give a dense matrix if the values are truly "
            "missing."
        )
        raise InputError(msg)


def _sums_by_feature(
    x: Matrix, design: Design, weights: NDArray[np.float64] | None
) -> Moments:
    refuse_missing(x.data)
    return dense_sums_by_feature(x.toarray(), design, weights)


@Kernel
def _csr_affine(stored, codes, cell_batch, scale, shift, slopes, tilt, out):
    data, indices, indptr = stored
    for row in prange(len(codes)):
        cell = codes[row]
        line = shift[cell].copy()
        for s in range(slopes.shape[1]):
            slope, t = slopes[row, s], tilt[cell_batch[cell], s]
            for g in range(len(line)):
                line[g] += slope * t[g]
        for position in range(indptr[row], indptr[row + 1]):
            g = indices[position]
            line[g] += scale[cell_batch[cell], g] * data[position]
        out[row] = line


def _affine(x: Matrix, cells: Cells, maps: Maps, out: Matrix | None) -> Matrix:
    x = x.tocsr()
    if out is None:
        out = np.empty(x.shape, dtype=x.dtype)
    stored = x.data, x.indices, x.indptr
    _csr_affine(stored, cells.codes, cells.batch, *maps, out)
    return out


def _has_infinite(x: Matrix) -> bool:
    return bool(np.isinf(x.data).any())


for _rows, _kinds in (
    (_csr, (sp.csr_matrix, sp.csr_array)),
    (_csc, (sp.csc_matrix, sp.csc_array)),
):
    for _kind in _kinds:
        sums.register(_kind, _rows)
        sums_by_feature.register(_kind, _sums_by_feature)
        has_infinite.register(_kind, _has_infinite)
        affine.register(_kind, _affine)
