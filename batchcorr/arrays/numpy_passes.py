"""NumPy matrices: both passes at the speed of memory, in place, added memory O(C G).

`sums` cuts the features into tiles, one thread a tile, and takes the rows cell by cell,
so that only one cell's running sums are in cache. Rows come in chunks: within a chunk
values are measured from the running mean, after it the chunk is merged in by Chan's
rule. So nothing cancels, a constant batch gives an exact 0, and the result does not
depend on the number of threads.

Of a matrix so small that compiled kernels would take longer to load than they save, the
passes are those of `generic`, in NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr._numba import Kernel, prange, threads
from batchcorr.arrays.array_api import standard_sums
from batchcorr.arrays.by_feature import dense_sums_by_feature
from batchcorr.arrays.generic import affine_rows
from batchcorr.arrays.operations import (
    Maps,
    Sums,
    affine,
    has_infinite,
    sums,
    sums_by_feature,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchcorr.arrays.cells import Cells
    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

SMALL = 2**16
"""Values up to which kernels are not loaded: a pass in NumPy takes a few ms."""

CHUNK = 256
"""Rows between two mergers."""

WIDTH = 2048
"""Features in a tile at most: running sums of one cell that stay in cache."""

COPY = 1 << 22
"""Values in a block of features that is copied because its matrix is not in C order."""


@Kernel
def _sums(x, rows, origin, slopes, width, mean, squares, cross):
    order, starts, cell_batch = rows
    n_features, n_slopes = x.shape[1], slopes.shape[1]
    for tile in prange((n_features + width - 1) // width):
        first = tile * width
        size = min(width, n_features - first)
        total, total_squares = np.empty(size), np.empty(size)
        rest = np.empty(size)  # what rounding took from the running mean
        for cell in range(len(starts) - 1):
            batch = cell_batch[cell]
            fixed = origin[batch, first : first + size]
            centre = mean[cell, first : first + size]
            merged = squares[cell, first : first + size]
            centre[:] = fixed
            rest[:] = 0.0
            n = 0
            for start in range(starts[cell], starts[cell + 1], CHUNK):
                stop = min(start + CHUNK, starts[cell + 1])
                total[:] = 0.0
                total_squares[:] = 0.0
                whole = stop - (stop - start) % 4
                for k in range(start, whole, 4):  # four at a time: fewer sums to load
                    i0, i1, i2, i3 = order[k], order[k + 1], order[k + 2], order[k + 3]
                    v0 = x[i0, first : first + size]
                    v1 = x[i1, first : first + size]
                    v2 = x[i2, first : first + size]
                    v3 = x[i3, first : first + size]
                    for j in range(size):
                        c = centre[j]
                        d0, d1, d2, d3 = v0[j] - c, v1[j] - c, v2[j] - c, v3[j] - c
                        total[j] += (d0 + d1) + (d2 + d3)
                        total_squares[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
                    for slope in range(n_slopes):
                        z0, z1 = slopes[i0, slope], slopes[i1, slope]
                        z2, z3 = slopes[i2, slope], slopes[i3, slope]
                        product = cross[batch, slope, first : first + size]
                        for j in range(size):
                            f = fixed[j]
                            product[j] += (z0 * (v0[j] - f) + z1 * (v1[j] - f)) + (
                                z2 * (v2[j] - f) + z3 * (v3[j] - f)
                            )
                for k in range(whole, stop):
                    values = x[order[k], first : first + size]
                    for j in range(size):
                        d = values[j] - centre[j]
                        total[j] += d
                        total_squares[j] += d * d
                    for slope in range(n_slopes):
                        z = slopes[order[k], slope]
                        product = cross[batch, slope, first : first + size]
                        for j in range(size):
                            product[j] += z * (values[j] - fixed[j])
                m = stop - start
                share = m / (n + m)
                for j in range(size):
                    off = total[j] / m
                    own = max(total_squares[j] - off * total[j], 0.0)
                    off -= rest[j]
                    merged[j] += own + off * off * n * share
                    before = centre[j]
                    move = rest[j] + off * share
                    centre[j] += move
                    rest[j] = (before - centre[j]) + move
                n += m


@sums.register(np.ndarray)
def _dense_sums(
    x: NDArray[np.floating], cells: Cells, slopes: NDArray[np.float64]
) -> Sums:
    if _is_small(x):
        small: Sums = standard_sums(x, cells, slopes)
        return small
    rows = cells.sorted_rows()
    order, starts, _ = rows
    n_batches, n_features = cells.n_batches, x.shape[1]
    first_row = np.zeros(n_batches, dtype=np.intp)
    filled = cells.counts > 0
    first_row[cells.batch[filled][::-1]] = order[starts[:-1][filled][::-1]]
    origin = x[first_row].astype(np.float64)
    mean, squares = (np.zeros((cells.n_cells, n_features)) for _ in range(2))
    cross = np.zeros((n_batches, slopes.shape[1], n_features))
    for part in _features(x):
        block = np.ascontiguousarray(x[:, part])
        width = max(16, min(-(-block.shape[1] // threads()), WIDTH))
        _sums(
            block,
            rows,
            origin[:, part],
            slopes,
            width,
            mean[:, part],
            squares[:, part],
            cross[:, :, part],
        )
    mean[~filled] = 0  # and not the origin, which is some row of another batch
    return Sums(mean, squares, cross)


def _is_small(x: NDArray[np.floating]) -> bool:
    return 0 < x.size <= SMALL and x.dtype in (np.float32, np.float64)


def _features(*matrices: NDArray[np.generic]) -> Iterator[slice]:
    """Cut the features so that blocks of matrices not in C order are small copies."""
    n_rows, n_features = matrices[0].shape
    whole = all(matrix.flags.c_contiguous for matrix in matrices)
    step = n_features if whole else max(1, COPY // max(n_rows, 1))
    for start in range(0, n_features, max(step, 1)):
        yield slice(start, min(start + step, n_features))


@Kernel
def _affine(x, codes, cell_batch, scale, shift, slopes, tilt, out, in_place):
    for row in prange(x.shape[0]):
        cell = codes[row]
        result = out[row]
        if not in_place:
            result[:] = x[row]
        # Only `result` from here on: a loop over two arrays that may overlap, as they
        # do in place, would not be vectorized.
        r, s = scale[cell_batch[cell]], shift[cell]
        if slopes.shape[1] == 0:
            for j in range(len(result)):
                result[j] = r[j] * result[j] + s[j]
        elif slopes.shape[1] == 1:
            slope, t = slopes[row, 0], tilt[cell_batch[cell], 0]
            for j in range(len(result)):
                result[j] = r[j] * result[j] + (s[j] + slope * t[j])
        else:
            line = s.copy()
            for k in range(slopes.shape[1]):
                slope, t = slopes[row, k], tilt[cell_batch[cell], k]
                for j in range(len(line)):
                    line[j] += slope * t[j]
            for j in range(len(result)):
                result[j] = r[j] * result[j] + line[j]


@affine.register(np.ndarray)
def _dense_affine(
    x: NDArray[np.floating], cells: Cells, maps: Maps, out: Matrix | None
) -> Matrix:
    if _is_small(x):
        codes, batch = cells.codes, cells.batch[cells.codes]
        scale, shift, tilt = maps.scale[batch], maps.shift[codes], maps.tilt[batch]
        values = affine_rows(x, scale, shift, maps.slopes, tilt)
        if out is None:
            return values
        out[...] = values
        return out
    if out is None:
        out = np.empty_like(x)
    for part in _features(x, out):
        block = np.ascontiguousarray(x[:, part])
        in_place = out.flags.c_contiguous
        target = out[:, part] if in_place else np.empty(block.shape, out.dtype)
        _affine(
            block,
            cells.codes,
            cells.batch,
            maps.scale[:, part],
            maps.shift[:, part],
            maps.slopes,
            maps.tilt[:, :, part],
            target,
            out is x and in_place,
        )
        if not in_place:
            out[:, part] = target
    return out


@Kernel
def _any_infinite(x):
    found = 0
    for row in prange(x.shape[0]):
        for value in x[row]:
            found += np.isinf(value)
    return found > 0


@has_infinite.register(np.ndarray)
def _dense_has_infinite(x: NDArray[np.floating]) -> bool:
    return bool(np.isinf(x).any() if _is_small(x) else _any_infinite(x))


@sums_by_feature.register(np.ndarray)
def _dense_sums_by_feature(
    x: NDArray[np.floating], design: Design, weights: NDArray[np.float64] | None
) -> Moments:
    # few values as well: a column that varies in no batch leaves no rounding here
    return dense_sums_by_feature(x, design, weights)
