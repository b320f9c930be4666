r"""Products of a corrected CSR matrix: O(nonzeros × columns), the matrix stays sparse.

With a_c = s_c V for each cell c of rows with one shift s_c, and t_b V for the slopes z,

    (C V)_i = Σ_j (r_b x_ij) V[j] + a_c + z_i (t_b V)
    Cᵀ U    = Σ_i (r_b x_ij) u_i  + Σ_c s_c ⊗ Σ_{i∈c} u_i + Σ_b t_bᵀ (Z_bᵀ U_b)

and Cᵀ C V does both for some rows while these are in cache, tile by tile of features, so
that the vectors of a tile stay in cache too. Vectors are kept in the dtype they are
given in; partial sums are added up in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from batchcorr._numba import Helper, Kernel, prange
from batchcorr.arrays.cells import Cells
from batchcorr.arrays.passes import by_cell
from batchcorr.arrays.products import arranged, gram_times, times, transposed_times
from batchcorr.arrays.scipy_passes import canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.location_scale import LocationScale
    from batchcorr.models.namespace import Matrix

CHUNK = 512
"""Rows that are multiplied together."""

STRIPES = 16
"""Partial sums at most, each as large as the result: fixed, whatever the threads."""

TILE = 600_000
"""Bytes of vectors that a tile of features takes, so that they stay in cache."""


class _Csr(NamedTuple):
    """Stored values, and where the tiles of each row start."""

    data: NDArray[Any]
    indices: NDArray[Any]
    starts: NDArray[Any]


class _Map(NamedTuple):
    """What the correction does to a row: cell, batch of a cell, scale, slopes."""

    cell: NDArray[np.int32]
    batch: NDArray[np.int32]
    scale: NDArray[Any]
    slopes: NDArray[Any]


@Kernel
def _tile_starts(indices, indptr, width, starts):
    for row in prange(len(indptr) - 1):
        first, last = indptr[row], indptr[row + 1]
        for tile in range(starts.shape[1] - 1):
            starts[row, tile] = first
            first += np.searchsorted(indices[first:last], (tile + 1) * width)
        starts[row, -1] = last


@Helper
def _forward(csr, by, right, beside, along, first, lines):
    """lines[k] = (C V)_i of the rows i = first + k."""
    for k in range(len(lines)):
        cell, line = by.cell[first + k], lines[k]
        line[:] = beside[cell]
        for s in range(by.slopes.shape[1]):
            slope, to_line = by.slopes[first + k, s], along[by.batch[cell], s]
            for m in range(len(line)):
                line[m] += slope * to_line[m]
    for tile in range(csr.starts.shape[1] - 1):
        for k in range(len(lines)):
            row, line = first + k, lines[k]
            scale = by.scale[by.batch[by.cell[row]]]
            p, stop = csr.starts[row, tile], csr.starts[row, tile + 1]
            while p + 4 <= stop:  # the line is read and written once for four values
                g0, g1 = csr.indices[p], csr.indices[p + 1]
                g2, g3 = csr.indices[p + 2], csr.indices[p + 3]
                x0, x1 = csr.data[p] * scale[g0], csr.data[p + 1] * scale[g1]
                x2, x3 = csr.data[p + 2] * scale[g2], csr.data[p + 3] * scale[g3]
                v0, v1, v2, v3 = right[g0], right[g1], right[g2], right[g3]
                for m in range(len(line)):
                    line[m] += (x0 * v0[m] + x1 * v1[m]) + (x2 * v2[m] + x3 * v3[m])
                p += 4
            for rest in range(p, stop):
                g = csr.indices[rest]
                x, v = csr.data[rest] * scale[g], right[g]
                for m in range(len(line)):
                    line[m] += x * v[m]


@Helper
def _backward(csr, by, lines, first, partial, in_cell, along):
    """Add (r x)ᵀ U of the rows i = first + k to `partial`, and U to its cells and slopes."""
    for k in range(len(lines)):
        cell, line = by.cell[first + k], lines[k]
        total = in_cell[cell]
        for m in range(len(line)):
            total[m] += line[m]
        for s in range(by.slopes.shape[1]):
            slope, total = by.slopes[first + k, s], along[by.batch[cell], s]
            for m in range(len(line)):
                total[m] += slope * line[m]
    for tile in range(csr.starts.shape[1] - 1):
        for k in range(len(lines)):
            row, line = first + k, lines[k]
            scale = by.scale[by.batch[by.cell[row]]]
            p, stop = csr.starts[row, tile], csr.starts[row, tile + 1]
            while p + 2 <= stop:
                g0, g1 = csr.indices[p], csr.indices[p + 1]
                x0, x1 = csr.data[p] * scale[g0], csr.data[p + 1] * scale[g1]
                v0, v1 = partial[g0], partial[g1]
                for m in range(len(line)):
                    v0[m] += x0 * line[m]
                    v1[m] += x1 * line[m]
                p += 2
            for rest in range(p, stop):
                g = csr.indices[rest]
                x, v = csr.data[rest] * scale[g], partial[g]
                for m in range(len(line)):
                    v[m] += x * line[m]


@Kernel
def _times_kernel(csr, by, right, beside, along, result):
    n = len(result)
    for chunk in prange(-(-n // CHUNK)):
        first = chunk * CHUNK
        lines = result[first : min(first + CHUNK, n)]
        _forward(csr, by, right, beside, along, first, lines)


@Kernel
def _transposed_kernel(csr, by, left, bounds, partial, in_cell, sloped):
    for stripe in prange(len(bounds) - 1):
        own, cells, slopes = partial[stripe], in_cell[stripe], sloped[stripe]
        for first in range(bounds[stripe], bounds[stripe + 1], CHUNK):
            lines = left[first : min(first + CHUNK, bounds[stripe + 1])]
            _backward(csr, by, lines, first, own, cells, slopes)


@Kernel
def _gram_kernel(csr, by, right, beside, along, bounds, partial, in_cell, sloped):
    for stripe in prange(len(bounds) - 1):
        own, cells, slopes = partial[stripe], in_cell[stripe], sloped[stripe]
        buffer = np.empty((CHUNK, right.shape[1]), dtype=right.dtype)
        for first in range(bounds[stripe], bounds[stripe + 1], CHUNK):
            lines = buffer[: min(CHUNK, bounds[stripe + 1] - first)]
            _forward(csr, by, right, beside, along, first, lines)
            _backward(csr, by, lines, first, own, cells, slopes)


def tile_starts(x: Matrix, width: int) -> NDArray[Any]:
    """Where each row passes from one tile of `width` features to the next: (n, tiles + 1)."""
    starts = np.empty((x.shape[0], -(-x.shape[1] // width) + 1), x.indptr.dtype)
    _tile_starts(x.indices, x.indptr, width, starts)
    return starts


class _Parts:
    """A corrected CSR matrix taken apart, for vectors of one width and dtype."""

    def __init__(
        self,
        x: Matrix,
        design: Design,
        correction: LocationScale,
        vectors: NDArray[np.generic],
    ) -> None:
        x = arranged(x)
        self.cells = Cells.of(design)
        maps = by_cell(design, self.cells, correction)
        self.shift, self.tilt = maps.shift, maps.tilt
        self.columns, self.dtype = vectors.shape[1], vectors.dtype
        self.by = _Map(
            self.cells.codes,
            self.cells.batch,
            maps.scale.astype(self.dtype),
            maps.slopes.astype(self.dtype),
        )
        width = max(TILE // (self.dtype.itemsize * self.columns), 64)
        self.csr = _Csr(x.data, x.indices, tile_starts(x, width))
        self.shape = x.shape

    def added(self, right: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a_c, (C, k), and t_b V, (B, q, k): what rows have beside X."""
        return (self.shift @ right).astype(self.dtype), (self.tilt @ right).astype(
            self.dtype
        )

    def sums(self) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the cuts of stripes, and zeros for the sums of each."""
        n, k = self.shape[0], self.columns
        count = min(max(n // CHUNK, 1), STRIPES)
        bounds = np.linspace(0, n, count + 1).astype(np.intp)
        partial = np.zeros((count, self.shape[1], k), self.dtype)
        in_cell = np.zeros((count, self.cells.n_cells, k))
        sloped = np.zeros((count, *self.tilt.shape[:2], k))
        return bounds, partial, in_cell, sloped

    def result(
        self,
        partial: NDArray[np.generic],
        in_cell: NDArray[np.generic],
        sloped: NDArray[np.generic],
    ) -> NDArray[np.float64]:
        """Return Cᵀ U from the sums."""
        total: NDArray[np.float64] = partial.sum(axis=0, dtype=np.float64)
        total += self.shift.T @ in_cell.sum(axis=0)
        for tilt, along in zip(self.tilt, sloped.sum(axis=0), strict=True):
            total += tilt.T @ along
        return total


def _times(
    x: Matrix, design: Design, correction: LocationScale, right: NDArray[np.generic]
) -> NDArray[Any]:
    parts = _Parts(x, design, correction, right)
    result = np.empty((x.shape[0], right.shape[1]), right.dtype)
    _times_kernel(parts.csr, parts.by, right, *parts.added(right), result)
    return result


def _transposed_times(
    x: Matrix, design: Design, correction: LocationScale, left: NDArray[np.generic]
) -> NDArray[np.float64]:
    parts = _Parts(x, design, correction, left)
    bounds, *sums = parts.sums()
    _transposed_kernel(parts.csr, parts.by, left, bounds, *sums)
    return parts.result(*sums)


def _gram_times(
    x: Matrix, design: Design, correction: LocationScale, right: NDArray[np.generic]
) -> NDArray[np.float64]:
    parts = _Parts(x, design, correction, right)
    bounds, *sums = parts.sums()
    added = parts.added(right)
    _gram_kernel(parts.csr, parts.by, right, *added, bounds, *sums)
    return parts.result(*sums)


def _arranged(x: Matrix) -> Matrix:
    return canonical(x).tocsr()


for _kind in (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    arranged.register(_kind, _arranged)
    times.register(_kind, _times)
    transposed_times.register(_kind, _transposed_times)
    gram_times.register(_kind, _gram_times)
