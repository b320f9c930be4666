r"""Products of a corrected CSR matrix: O(nonzeros × columns), the matrix stays sparse.

With V_b = r_b ∘ V and a_c = s_c V for each cell c of rows with one shift s_c,

    (C V)_i = Σ_j x_ij V_b[j] + a_c + z_i (t_b V)
    Cᵀ U    = Σ_b r_b ∘ (X_bᵀ U_b) + Σ_c s_c ⊗ Σ_{i∈c} u_i + Σ_b t_bᵀ (Z_bᵀ U_b)

and Cᵀ C V does both for a row while the row is in cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from batchcorr._numba import Kernel, prange
from batchcorr.arrays.cells import Cells
from batchcorr.arrays.corrected import gram_times, times, transposed_times
from batchcorr.arrays.passes import by_cell
from batchcorr.arrays.sparse import canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.design import Design
    from batchcorr.models.location_scale import LocationScale

STRIPE = 256
"""Rows of a batch that one partial sum takes, at least."""

STRIPES = 8
"""Partial sums of a batch at most: each is as large as the result."""

TILE = 600_000
"""Bytes of vectors that a tile of features takes, so that two of them stay in cache."""


@Kernel
def _product(data, indices, indptr, rows, scaled, constant, result):
    """result[i] = constant[i] + Σ_j x_ij scaled[j], for the given rows."""
    for k in prange(len(rows)):
        row = rows[k]
        line = constant[k].copy()
        for position in range(indptr[row], indptr[row + 1]):
            value, from_row = data[position], scaled[indices[position]]
            for m in range(len(line)):
                line[m] += value * from_row[m]
        result[row] = line


@Kernel
def _transposed(data, indices, indptr, rows, bounds, left, partial):
    """partial[stripe, j] = Σ_i x_ij left[i] over the rows of the stripe."""
    for stripe in prange(len(bounds) - 1):
        own = partial[stripe]
        for k in range(bounds[stripe], bounds[stripe + 1]):
            row = rows[k]
            line = left[k]
            for position in range(indptr[row], indptr[row + 1]):
                value, to_row = data[position], own[indices[position]]
                for m in range(len(line)):
                    to_row[m] += value * line[m]


@Kernel
def _tile_starts(indices, indptr, width, starts):
    """Find where each row passes from one tile of features to the next."""
    for row in prange(len(indptr) - 1):
        position = indptr[row]
        for tile in range(starts.shape[1]):
            while position < indptr[row + 1] and indices[position] < tile * width:
                position += 1
            starts[row, tile] = position


@Kernel
def _gram(data, indices, starts, rows, bounds, scaled, constant, partial, product):
    """Both of the above, stripe by stripe, tile by tile of features that stay in cache.

    `product` takes C V of the rows, `partial` the sums of Xᵀ C V.
    """
    for stripe in prange(len(bounds) - 1):
        own = partial[stripe]
        mine = range(bounds[stripe], bounds[stripe + 1])
        for k in mine:
            product[k] = constant[k]
        for tile in range(starts.shape[1] - 1):
            for k in mine:
                row, line = rows[k], product[k]
                for position in range(starts[row, tile], starts[row, tile + 1]):
                    value, from_row = data[position], scaled[indices[position]]
                    for m in range(len(line)):
                        line[m] += value * from_row[m]
        for tile in range(starts.shape[1] - 1):
            for k in mine:
                row, line = rows[k], product[k]
                for position in range(starts[row, tile], starts[row, tile + 1]):
                    value, to_row = data[position], own[indices[position]]
                    for m in range(len(line)):
                        to_row[m] += value * line[m]


@dataclass(frozen=True)
class _Parts:
    """A corrected CSR matrix taken apart: what differs by batch, cell and row."""

    x: Any
    rows: list[NDArray[np.intp]]
    cells: Cells
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    slopes: NDArray[np.float64]
    tilt: NDArray[np.float64]

    @classmethod
    def of(cls, x: Any, design: Design, correction: LocationScale) -> _Parts:
        cells = Cells.of(design)
        _, shift, slopes, tilt = by_cell(design, cells, correction)
        order = np.argsort(design.codes, kind="stable")
        rows = np.split(order, np.cumsum(design.counts)[:-1])
        return cls(
            canonical(x).tocsr(), rows, cells, correction.scale, shift, slopes, tilt
        )

    def constant(self, b: int, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the rows of batch b have beside X: (rows, k)."""
        rows = self.rows[b]
        beside: NDArray[np.float64] = (self.shift @ right)[self.cells.codes[rows]]
        if self.slopes.shape[1]:
            beside += self.slopes[rows] @ (self.tilt[b] @ right)
        return np.ascontiguousarray(beside)

    def spread(
        self, b: int, left: NDArray[np.float64], partial: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return Cᵀ U of batch b from U of its rows and the partial sums of XᵀU."""
        rows = self.rows[b]
        result: NDArray[np.float64] = self.scale[b][:, None] * partial.sum(axis=0)
        in_cell = np.zeros((self.cells.n_cells, left.shape[1]))
        np.add.at(in_cell, self.cells.codes[rows], left)
        mine = np.flatnonzero(self.cells.batch == b)
        result += self.shift[mine].T @ in_cell[mine]
        if self.slopes.shape[1]:
            result += self.tilt[b].T @ (self.slopes[rows].T @ left)
        return result

    def stripes(self, b: int) -> NDArray[np.intp]:
        """Cut the rows of batch b: the cuts do not depend on the number of threads."""
        n = len(self.rows[b])
        count = min(max(n // STRIPE, 1), STRIPES)
        return np.linspace(0, n, count + 1).astype(np.intp)


def _times(
    x: Any, design: Design, correction: LocationScale, right: NDArray[np.float64]
) -> NDArray[np.float64]:
    parts = _Parts.of(x, design, correction)
    result = np.empty((x.shape[0], right.shape[1]))
    csr = parts.x
    for b, rows in enumerate(parts.rows):
        scaled = parts.scale[b][:, None] * right
        constant = parts.constant(b, right)
        _product(csr.data, csr.indices, csr.indptr, rows, scaled, constant, result)
    return result


def _transposed_times(
    x: Any, design: Design, correction: LocationScale, left: NDArray[np.float64]
) -> NDArray[np.float64]:
    parts = _Parts.of(x, design, correction)
    result = np.zeros((x.shape[1], left.shape[1]))
    csr = parts.x
    for b, rows in enumerate(parts.rows):
        own, bounds = np.ascontiguousarray(left[rows]), parts.stripes(b)
        partial = np.zeros((len(bounds) - 1, *result.shape))
        _transposed(csr.data, csr.indices, csr.indptr, rows, bounds, own, partial)
        result += parts.spread(b, own, partial)
    return result


def _gram_times(
    x: Any, design: Design, correction: LocationScale, right: NDArray[np.float64]
) -> NDArray[np.float64]:
    parts = _Parts.of(x, design, correction)
    result = np.zeros(right.shape)
    csr = parts.x
    width = max(TILE // (8 * right.shape[1]), 64)
    tiles = -(-x.shape[1] // width)
    starts = np.empty((x.shape[0], tiles + 1), dtype=csr.indptr.dtype)
    _tile_starts(csr.indices, csr.indptr, width, starts)
    starts[:, -1] = csr.indptr[1:]
    for b, rows in enumerate(parts.rows):
        scaled, bounds = parts.scale[b][:, None] * right, parts.stripes(b)
        constant = parts.constant(b, right)
        partial = np.zeros((len(bounds) - 1, *result.shape))
        product = np.empty_like(constant)
        _gram(
            csr.data,
            csr.indices,
            starts,
            rows,
            bounds,
            scaled,
            constant,
            partial,
            product,
        )
        result += parts.spread(b, product, partial)
    return result


for _kind in (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    times.register(_kind, _times)
    transposed_times.register(_kind, _transposed_times)
    gram_times.register(_kind, _gram_times)
