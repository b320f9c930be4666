"""Counts in Dask arrays: what is learned is merged up a tree, logarithms are lazy blocks.

    reads of `learn`:   totals, and with them what the method needs first
                        tmm: the quartiles of samples, over the features that were seen
                        the factors of samples, against what was found

The blocks are matrices of the other kinds, and go through the operations of these,
which look at the counts as well. A sample may be cut into chunks of features: its
pieces are then put together before it is measured.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import dask.array as da
import numpy as np
import scipy.sparse as sp
from dask.delayed import delayed

from batchcorr.arrays.counts import (
    CountRows,
    canonical,
    count_rows,
    effective_library_sizes,
)
from batchcorr.arrays.dask_passes import merge_tree, require_no_place, slices_of
from batchcorr.arrays.log_scale import log_scale, log_shifted

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.models.counts.samples import Merge, Work
    from batchcorr.models.counts.size_factors import Reference
    from batchcorr.models.namespace import Matrix

    First = tuple[
        NDArray[np.float64], float, "T"
    ]  # totals, `logged`, and what was found

__all__ = ["LazyCountRows"]

T = TypeVar("T")


class LazyCountRows:
    """The counts of samples in a Dask array; see `CountRows`.

    The first read also gives the totals, and tells whether these look like logarithms.

    Parameters
    ----------
    x
        The Dask array, with known chunks.
    """

    first = 0

    def __init__(self, x: Matrix) -> None:
        self.n_features = int(x.shape[1])
        self._strips = [
            (rows, list(blocks))
            for rows, blocks in zip(slices_of(x.chunks[0]), x.to_delayed(), strict=True)
            if rows.stop > rows.start  # filtering leaves empty blocks
        ]
        self._first: tuple[NDArray[np.float64], float] | None = None
        if not self._strips:
            self._first = np.zeros(0), 0.0

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sum of the counts of each sample: (n,)."""
        return self._measured()[0]

    @property
    def logged(self) -> float:
        """The largest of the first values if they look like logarithms, else 0."""
        return self._measured()[1]

    def __getitem__(self, i: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return where sample i has counts, in ascending order, and how many."""
        rows, blocks = next(s for s in self._strips if i < s[0].stop)
        found: tuple[NDArray[np.intp], NDArray[np.float64]]
        found = delayed(_sample, pure=False)(blocks, i - rows.start).compute()
        return found

    def gather(self, work: Work[T], merge: Merge[T]) -> T:
        """Work on every block, where it is, and merge the results of neighbours."""
        if self._first is not None:
            return self._compute(work, merge)
        both: First[T]
        both = self._compute(partial(_first, work), partial(_merge_first, merge))
        self._first = both[:2]
        return both[2]

    def _measured(self) -> tuple[NDArray[np.float64], float]:
        if self._first is None:
            self.gather(_nothing, _nothing)
        assert self._first is not None
        return self._first

    def _compute(self, work: Work[T], merge: Merge[T]) -> T:
        do, sent = delayed(_do, pure=False), delayed(work, pure=False, traverse=False)
        parts = [do(sent, blocks, rows.start) for rows, blocks in self._strips]
        found: T = merge_tree(parts, merge).compute()
        return found


count_rows.register(da.Array, LazyCountRows)


@effective_library_sizes.register(da.Array)
def _effective_library_sizes(x: Matrix, reference: Reference) -> Matrix:
    numbers = da.from_array(np.arange(x.shape[0]), chunks=(x.chunks[0],), name=False)
    return da.blockwise(
        _libraries_block,
        "i",
        x,
        "ij",
        numbers,
        "i",
        reference=delayed(reference, pure=False, traverse=False),
        concatenate=None,
        dtype=np.float64,
        meta=np.empty(0),
    )


@log_scale.register(da.Array)
def _log_scale(
    x: Matrix, scale: object, *, base: float = math.e, out: Matrix | None = None
) -> Matrix:
    require_no_place(out)
    options = {"base": base}
    meta = _log_scale_block(x._meta[:0, :0], np.zeros(0), **options)
    return _by_row(_log_scale_block, x, [scale], meta, options)


@log_shifted.register(da.Array)
def _log_shifted(
    x: Matrix,
    shift: object,
    scale: object,
    *,
    base: float = 2.0,
    out: Matrix | None = None,
) -> Matrix:
    require_no_place(out)
    options = {"base": base}
    meta = np.empty((0, 0), np.float64 if x.dtype == np.float64 else np.float32)
    return _by_row(_log_shifted_block, x, [shift, scale], meta, options)


def _by_row(
    work: Callable[..., Any],
    x: Matrix,
    by_row: list[Matrix],
    meta: Matrix,
    options: dict[str, float],
) -> Matrix:
    """Return an array whose blocks are made from those of `x` and a number a row."""
    given: list[Any] = []
    for numbers in by_row:
        known = isinstance(numbers, np.ndarray)
        lazy = da.from_array(numbers, name=False) if known else numbers
        given += [lazy.rechunk((x.chunks[0],)), "i"]
    return da.blockwise(
        work, "ij", x, "ij", *given, **options, dtype=meta.dtype, meta=meta
    )


# -- what is done with blocks, wherever they are -----------------------------------


def _do(work: Work[T], blocks: list[Matrix], first: int) -> T:
    return work(CountRows(_whole_rows(blocks), first=first))


def _sample(
    blocks: list[Matrix], i: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    x = _whole_rows(blocks)[i : i + 1]
    return CountRows(x)[0]


def _whole_rows(blocks: list[Matrix]) -> Matrix:
    """The blocks of some samples as one matrix, in canonical format."""
    if len(blocks) == 1:
        return canonical(blocks[0])
    if all(isinstance(block, np.ndarray) for block in blocks):
        return np.hstack(blocks)
    return canonical(sp.hstack(blocks, format="csr"))


def _first(work: Work[T], rows: CountRows) -> First[T]:
    return rows.totals, rows.logged, work(rows)


def _merge_first(merge: Merge[T], parts: list[First[T]]) -> First[T]:
    totals, logged, found = zip(*parts, strict=True)
    return np.concatenate(totals), logged[0], merge(list(found))


def _nothing(_: object) -> None:
    return None


def _libraries_block(
    blocks: list[Matrix], numbers: NDArray[np.intp], *, reference: Reference
) -> Matrix:
    if not len(numbers):
        return np.zeros(0)
    return effective_library_sizes(_whole_rows(blocks), reference, int(numbers[0]))


def _log_scale_block(x: Matrix, scale: NDArray[np.float64], *, base: float) -> Matrix:
    return log_scale(canonical(x), scale, base=base)


def _log_shifted_block(
    x: Matrix, shift: NDArray[np.float64], scale: NDArray[np.float64], *, base: float
) -> Matrix:
    return log_shifted(canonical(x), shift, scale, base=base)
