"""Matrices that lie in a file: read in blocks of rows, one in work and one on its way.

Dense arrays and CSR, in HDF5 files and zarr stores. To the estimators this is one more
kind of matrix: its `moments` are those of its blocks, merged. Blocks end where chunks
of the file end, so that no chunk is unpacked twice.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from batchcorr._files.damage import reading_or
from batchcorr.arrays import moments
from batchcorr.errors import FileError, TooLargeError
from batchcorr.estimators.matrix import as_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from batchcorr._files.chunks import Node
    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

__all__ = [
    "StoredMatrix",
    "block_limit",
    "close_file",
    "is_matrix",
    "open_file",
    "read_rows",
]

NUMBERS = "biuf"

SMALLEST = 8 << 20
COPIES = 4
"""Blocks in memory at a time, at most: read, corrected, being packed, being freed."""

SAMPLED = 100
"""Rows looked at to tell counts from logs."""

RESERVE = 160 << 20
"""For compiled code, small arrays and what libraries keep."""

TYPICAL = 400 << 20
"""What this process takes, where the system has no module that says it."""


def open_file(path: Path) -> Node:
    """Open a file to read: its groups and arrays are used like mappings and arrays."""
    if path.suffix.lower() == ".zarr":
        import zarr

        return zarr.open_group(str(path), mode="r")
    import h5py

    return h5py.File(path, "r")


def close_file(file: object) -> None:
    """Close a file, of a kind that is closed."""
    if hasattr(file, "close"):
        file.close()


def is_matrix(node: Node) -> bool:
    """Whether this is a dense or sparse matrix of numbers, as AnnData writes them."""
    if hasattr(node, "keys"):
        return "indptr" in node and node["data"].dtype.kind in NUMBERS
    return len(node.shape) == 2 and node.dtype.kind in NUMBERS


class StoredMatrix:
    """A matrix in an open file.

    Parameters
    ----------
    block_bytes, most_bytes
        How large a block of rows should be in memory, and may be if chunks are larger.

    Attributes
    ----------
    shape, ndim, dtype
        As of an array; the dtype is that of the blocks.
    sparse
        Whether it is stored as CSR.
    unit
        Rows in a chunk: blocks hold whole units.
    """

    ndim = 2

    def __init__(
        self,
        path: Path,
        name: str,
        file: Node,
        *,
        block_bytes: int = 1,
        most_bytes: int = 1,
        through: Callable[[Matrix], Matrix] = as_matrix,
    ) -> None:
        self.path, self.name, self.node = path, name, file[name]
        self.block_bytes, self.most_bytes = block_bytes, most_bytes
        self.through = through
        self.sparse = hasattr(self.node, "keys")
        self.unit = 1
        if self.sparse:
            self._open_sparse()
            values = self.node["data"]
        else:
            values = self.node
            self.shape: tuple[int, int] = tuple(map(int, values.shape))  # type: ignore[assignment]
            chunks = getattr(values, "shards", None) or values.chunks
            if chunks:
                self.unit = min(int(chunks[0]), max(1, self.shape[0]))
        self._stored = values.dtype
        self.dtype = through(np.zeros((1, 1), dtype=values.dtype)).dtype

    def seen(self, through: Callable[[Matrix], Matrix]) -> StoredMatrix:
        """Return the same matrix, with blocks that go through something else."""
        other = copy(self)
        other.through = through
        other.dtype = through(np.zeros((1, 1), dtype=self._stored)).dtype
        return other

    def head(self) -> Matrix:
        """Return the first rows, enough to tell counts from logs."""
        return self.read(slice(0, min(SAMPLED, self.shape[0])))

    def _open_sparse(self) -> None:
        attributes = self.node.attrs
        kind = str(attributes.get("encoding-type", attributes.get("h5sparse_format")))
        if not kind.startswith("csr"):
            msg = (
                f"{self.name} of {self.path} is stored as {kind}, which cannot be read "
                "by rows: save it as CSR first, or leave out --memory."
            )
            raise FileError(msg)
        shape = attributes.get("shape", attributes.get("h5sparse_shape"))
        self.shape = (int(shape[0]), int(shape[1]))
        self.indptr = np.asarray(self.node["indptr"][:], dtype=np.int64)

    def read(self, rows: slice) -> Matrix:
        """Return some rows: a new NumPy array or CSR matrix."""
        with reading_or(
            f"{self.path} cannot be read: {self.name} is damaged or incomplete "
            f"between the rows {rows.start:,} and {rows.stop:,}"
        ):
            block = self._read(rows)
        return self.through(block)

    def _read(self, rows: slice) -> Matrix:
        if not self.sparse:
            return np.ascontiguousarray(self.node[rows])
        starts = self.indptr[rows.start : rows.stop + 1]
        part = slice(int(starts[0]), int(starts[-1]))
        arrays = self.node["data"][part], self.node["indices"][part], starts - starts[0]
        block = sp.csr_matrix(arrays, shape=(len(starts) - 1, self.shape[1]))
        block.check_format(full_check=True)  # what is read here goes to compiled code
        return block

    def slices(self, *, dense: bool = False, unit: int = 1) -> list[slice]:
        """Cut the rows into blocks that are small enough, of whole units if they can be.

        Parameters
        ----------
        unit
            Rows that must stay together besides, as in the file that is written.
        """
        n = self.shape[0]
        unit = max(1, min(unit, n))
        together = int(np.lcm(self.unit, unit))
        limit = self._rows_in(self.block_bytes, dense=dense)
        if limit < together:  # larger blocks, before a chunk is unpacked twice
            highest = self._rows_in(self.most_bytes, dense=dense)
            limit = max(limit, min(together, highest))
        whole = next(rows for rows in (together, unit, 1) if rows <= limit)
        step = limit // whole * whole
        return [slice(k, min(k + step, n)) for k in range(0, n, step)]

    def _rows_in(self, size: int, *, dense: bool) -> int:
        """Return how many rows fit into some bytes, wherever in the matrix they are."""
        n, full = self.shape[0], 0
        if dense or not self.sparse:
            full = self.shape[1] * max(self.dtype.itemsize, self._stored.itemsize)
        if not self.sparse:
            return max(1, size // max(full, 1))
        stored = self._stored.itemsize + self.node["indices"].dtype.itemsize
        rows = n
        while rows > 1:
            densest = int((self.indptr[rows:] - self.indptr[:-rows]).max())
            needed = stored * densest + full * rows
            if needed <= size:
                break
            rows = max(1, min(rows - 1, rows * size // needed))
        return max(1, rows)

    def blocks(self, slices: list[slice]) -> Iterator[tuple[slice, Matrix]]:
        """Read blocks in order, the next one while the caller works on this one."""
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.read, slices[0])
            for rows, following in zip(slices, [*slices[1:], None], strict=True):
                block = coming.result()
                if following is not None:
                    coming = reader.submit(self.read, following)
                yield rows, block
                del block  # before the next but one is read


def read_rows(
    path: str, name: str, through: Callable[[Matrix], Matrix], start: int, stop: int
) -> Matrix:
    """Read some rows, in whatever process this is called."""
    file = open_file(Path(path))
    try:
        x = StoredMatrix(Path(path), name, file, through=through)
        return x.read(slice(start, stop))
    finally:
        close_file(file)


@moments.register(StoredMatrix)
def _moments(
    x: StoredMatrix, design: Design, *, weights: NDArray[np.float64] | None = None
) -> Moments:
    total: Moments | None = None
    for rows, block in x.blocks(x.slices()):
        of_block = None if weights is None else weights[rows]
        part = moments(block, design.take(rows), weights=of_block)
        total = part if total is None else total.merge(part)
    assert total is not None
    return total


def block_limit(memory: int, parallel: int) -> int:
    """Return how large a block may be, with what this process takes already."""
    taken = _taken()
    block = (memory - taken - RESERVE) // (COPIES * parallel)
    if block < SMALLEST:
        least = (taken + RESERVE + COPIES * parallel * SMALLEST) / 2**20
        msg = (
            f"{memory / 2**20:,.0f} MiB of memory are too few: correcting this file "
            f"needs at least {least:,.0f} MiB."
        )
        raise TooLargeError(msg)
    return block


def _taken() -> int:
    """The bytes this process takes; the kernel's peak begins with its parent's."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if find_spec("resource") is None:  # Windows
        return TYPICAL
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
