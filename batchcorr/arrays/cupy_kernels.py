r"""The two passes by CUDA kernels: how rows are cut, what is launched, what comes back.

A matrix is read once by `sums` and once by `affine`; what it costs is bytes:

    dense           sums: w a value (w: 4 in float32), once more for every 4 slopes;
                    affine: 2 w a value, one read and one write, so a copy
    CSR             sums: w + 4 a stored value, and 64 of sums that the cache holds in part;
                    affine: w a value of the dense result, 2 w + 4 a stored value

Rows are taken in the order of their cells (8 bytes a row, sorted on the device), in
stripes of one cell, so that the scale and shift of a feature stay in a register. Sums
are float64, which data-centre cards add as fast as memory brings values; on cards with
few float64 units the additions are the limit. All that is as small as (C, G) is made on
the CPU and comes back to it.

Nothing here knows CuPy: arrays come from a namespace, kernels from a launcher. So the
kernels, compiled as C++, run through these very lines on a machine without a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.operations import Maps, Sums
from batchcorr.arrays.scipy_passes import canonical, with_zeros

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.arrays.cells import Cells
    from batchcorr.models.namespace import Array, Matrix

__all__ = ["SOURCE", "Device", "csr_affine", "csr_sums", "dense_affine", "dense_sums"]

SOURCE = Path(__file__).with_name("cupy_kernels.cu")

THREADS = 128
"""Threads of a block."""

ROW_THREADS = 512
"""Threads of a block that share the stored values of a row."""

BLOCKS = 1 << 20
"""Blocks of a launch at most: threads then take several tasks."""

TASKS = 1 << 19
"""Features × stripes of a dense pass: enough threads for the largest device."""

ROWS = 64
"""Rows of a stripe at least, if its cell has them: a chunk of the kernels."""

CSR_STRIPES = 128
"""CSR rows are summed in stripes of n / CSR_STRIPES rows at most, a block each."""

SLOPES = 4
"""Slopes whose products one read gathers, as in the kernels."""

CTYPES = {"float32": "float", "float64": "double", "int32": "int", "int64": "int64"}


@dataclass(frozen=True)
class Device:
    """Where passes run: a namespace of arrays, and what launches a kernel by its name.

    Attributes
    ----------
    xp
        CuPy; or NumPy, with the kernels compiled for the processor.
    launch
        Called with name, C types of values and indices, grid, block and arguments.
    """

    xp: Any
    launch: Callable[..., None]

    def rows(self, name: str, x: Matrix, blocks: int, *args: object) -> None:
        """Launch a kernel whose blocks have a row, or a stripe of rows, each."""
        self._run(name, x, blocks, ROW_THREADS, args)

    def each(self, name: str, x: Matrix, tasks: int, *args: object) -> None:
        """Launch a kernel with a thread for each task."""
        self._run(name, x, -(-tasks // THREADS), THREADS, args)

    def put(self, values: NDArray[Any], dtype: Any = np.int64) -> Array:
        """Return a small array on the device, C-contiguous."""
        return self.xp.asarray(np.ascontiguousarray(values, dtype=dtype))

    def _run(self, name: str, x: Matrix, blocks: int, threads: int, args: Any) -> None:
        types = (CTYPES[str(x.dtype)], "int")
        if hasattr(x, "indptr"):
            types = (types[0], CTYPES[str(x.indptr.dtype)])
        taken = [np.int64(arg) if isinstance(arg, int) else arg for arg in args]
        if blocks:
            grid = (min(blocks, BLOCKS),)
            self.launch(name, types, grid, (threads,), tuple(taken))


@dataclass(frozen=True)
class Stripes:
    """Runs of rows of one cell, on the device, and which belong together.

    `order` are rows; `bounds`, `cell` and `batch` are of stripes; those of cell c are
    `of_cell[c]` … `of_cell[c + 1]`, batches likewise.
    """

    n: int
    order: Array
    bounds: Array
    cell: Array
    batch: Array
    of_cell: Array
    of_batch: Array

    @classmethod
    def of(cls, device: Device, cells: Cells, length: int) -> Stripes:
        """Cut the rows into stripes; cells are in the order of their batches."""
        cell, bounds = cells.stripes(max(1, length))
        batch = cells.batch[cell]
        return cls(
            n=len(cell),
            order=device.xp.argsort(device.put(cells.codes, np.int32), kind="stable"),
            bounds=device.put(bounds),
            cell=device.put(cell),
            batch=device.put(batch),
            of_cell=device.put(np.searchsorted(cell, np.arange(cells.n_cells + 1))),
            of_batch=device.put(np.searchsorted(batch, np.arange(cells.n_batches + 1))),
        )

    @classmethod
    def dense(cls, device: Device, cells: Cells, n_features: int) -> Stripes:
        """Cut the rows so that features × stripes are enough tasks."""
        at_most = max(1, TASKS // max(n_features, 1))
        return cls.of(device, cells, max(ROWS, -(-len(cells.codes) // at_most)))


def dense_sums(
    device: Device, x: Array, cells: Cells, slopes: NDArray[np.float64]
) -> Sums:
    """Return mean and squares of each cell, cross of each batch: see `operations.sums`."""
    xp, n_features, n_slopes = device.xp, x.shape[1], slopes.shape[1]
    stripes = Stripes.dense(device, cells, n_features)
    mean, squares = (xp.empty((stripes.n, n_features)) for _ in range(2))
    columns, origin = device.put(slopes, np.float64), xp.zeros((0, n_features))
    if n_slopes:  # the first row of each batch; a batch without rows is not asked for
        first = xp.minimum(stripes.of_batch[:-1], stripes.n - 1)
        origin = x[stripes.order[stripes.bounds[first]]].astype(np.float64)
    totals = [xp.zeros((cells.n_batches, 0, n_features))]
    for start in range(0, max(n_slopes, 1), SLOPES):
        taken = min(SLOPES, n_slopes - start)
        cross = xp.empty((stripes.n, taken, n_features))
        device.each(
            *("sloped_sums" if taken else "sums", x, stripes.n * n_features),
            *(x, *_steps(x), n_features),
            *(stripes.order, stripes.bounds, stripes.batch, stripes.n),
            *(origin, columns[:, start:], n_slopes, taken),
            *(mean, squares, cross),
        )
        totals.append(_by_batch(device, x, stripes, cells.n_batches, cross))
    cell_mean, cell_squares = _merged(device, x, stripes, cells, mean, squares)
    return Sums(cell_mean, cell_squares, xp.concatenate(totals, axis=1))


def csr_sums(
    device: Device, x: Matrix, cells: Cells, slopes: NDArray[np.float64]
) -> Sums:
    """Return what `dense_sums` does, from the stored values of a CSR matrix."""
    xp, n_features, n_slopes = device.xp, x.shape[1], slopes.shape[1]
    x = canonical(x)
    stripes = Stripes.of(device, cells, -(-x.shape[0] // CSR_STRIPES))
    found = xp.zeros((stripes.n, n_features, 4))
    cross = xp.zeros((stripes.n, n_slopes, n_features))
    device.rows(
        *("csr_sums", x, stripes.n),
        *(x.data, x.indices, x.indptr, n_features),
        *(stripes.order, stripes.bounds, stripes.n),
        *(device.put(slopes, np.float64), n_slopes, found, cross),
    )
    rows = stripes.bounds[1:] - stripes.bounds[:-1]
    mean, squares = with_zeros(found, rows)
    merged = _merged(device, x, stripes, cells, mean, squares)
    return Sums(*merged, _by_batch(device, x, stripes, cells.n_batches, cross))


def _merged(
    device: Device,
    x: Matrix,
    stripes: Stripes,
    cells: Cells,
    mean: Array,
    squares: Array,
) -> tuple[Array, Array]:
    """Merge the moments of stripes into those of their cells."""
    n_cells, n_features = cells.n_cells, x.shape[1]
    found = device.xp.empty((2, n_cells, n_features))
    device.each(
        *("merge", x, n_cells * n_features),
        *(mean, squares, stripes.bounds, stripes.of_cell, n_cells, n_features),
        *(found[0], found[1]),
    )
    return found[0], found[1]


def _by_batch(
    device: Device, x: Matrix, stripes: Stripes, n_batches: int, cross: Array
) -> Array:
    """Add up the products of the stripes of each batch."""
    width = cross.shape[1] * cross.shape[2]
    totals = device.xp.empty((n_batches, *cross.shape[1:]))
    device.each(
        *("add", x, n_batches * width, cross),
        *(stripes.of_batch, n_batches, width, totals),
    )
    return totals


def dense_affine(
    device: Device, x: Array, cells: Cells, maps: Maps, out: Array | None
) -> Array:
    """Write scale x + shift + slopes tilt: into `out`, which may be x, or a new array."""
    out = device.xp.empty(x.shape, dtype=x.dtype) if out is None else out
    _affine(device, x, cells, maps, out)
    return out


def csr_affine(
    device: Device, x: Matrix, cells: Cells, maps: Maps, out: Array | None
) -> Array:
    """Return scale x + shift + slopes tilt of a CSR matrix, dense: first where x is 0."""
    x = canonical(x)
    out = device.xp.empty(x.shape, dtype=x.dtype) if out is None else out
    _affine(device, None, cells, maps, out)
    device.rows(
        *("csr_affine", x, x.shape[0]),
        *(x.data, x.indices, x.indptr, *x.shape),
        *(device.put(cells.codes), device.put(cells.batch)),
        *(device.put(values, np.float64) for values in maps[:3]),
        *(maps.slopes.shape[1], device.put(maps.tilt, np.float64), out, *_steps(out)),
    )
    return out


def _affine(
    device: Device, x: Array | None, cells: Cells, maps: Maps, out: Array
) -> None:
    """Write scale x + shift + slopes tilt into `out`; no x stands for zeros."""
    n_features = out.shape[1]
    stripes = Stripes.dense(device, cells, n_features)
    given = (np.uint64(0), 0, 0) if x is None else (x, *_steps(x))
    device.each(
        *("affine", out, stripes.n * n_features),
        *(*given, n_features),
        *(stripes.order, stripes.bounds, stripes.cell, stripes.batch, stripes.n),
        *(device.put(values, np.float64) for values in maps[:3]),
        *(maps.slopes.shape[1], device.put(maps.tilt, np.float64), out, *_steps(out)),
    )


def _steps(x: Array) -> tuple[int, int]:
    """Return from one row to the next, and from one feature to the next, in values."""
    rows, features = x.strides
    return rows // x.dtype.itemsize, features // x.dtype.itemsize
