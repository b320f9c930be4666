"""Rows that share batch and categories share one map and one set of sums: a cell.

Columns with two values (the dummies of categories) split batches into cells and cost
the passes nothing more; only columns with many values, the slopes, are multiplied out
row by row. Cells are kept few, so that their sums stay small beside the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design

__all__ = ["Cells", "order_of"]

ROWS_PER_CELL = 64
"""Cells may be as many as rows divided by this; or as the sums by column would be."""


class SortedRows(NamedTuple):
    """Rows in the order of their cells, as kernels take them.

    Attributes
    ----------
    order
        The rows: (n,).
    starts
        Where each cell starts among them, and where all end: (C + 1,).
    batch
        Batch of each cell: (C,).
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    batch: NDArray[np.int32]


@dataclass(frozen=True)
class Cells:
    """A partition of rows that refines batches.

    Attributes
    ----------
    codes
        Cell of each row: (n,) int32.
    n_cells
        C, the number of cells.
    batch
        Batch of each cell: (C,).
    n_batches
        B, batches without rows included.
    counts
        Rows of each cell: (C,).
    flat
        Columns of the design that are constant in every cell.
    values
        Their values: (C, len(flat)).
    sloped
        The other columns, binary ones first.
    """

    codes: NDArray[np.int32]
    n_cells: int
    batch: NDArray[np.int32]
    n_batches: int
    counts: NDArray[np.int64]
    flat: tuple[int, ...]
    values: NDArray[np.float64]
    sloped: tuple[int, ...]

    @classmethod
    def of(cls, design: Design) -> Self:
        """Split the batches of a design by its binary columns, while that pays.

        Binary columns come first, in their order, then the others: so that a sum over
        columns has the same order whether they are flat or sloped.
        """
        binary = np.flatnonzero(design.binary)
        n_rows = len(design.codes)
        one_category = design.n_batches * (len(binary) + 1)
        limit = max(one_category, n_rows // ROWS_PER_CELL)
        codes, n_cells = design.codes, design.n_batches
        flat: list[int] = []
        rest: list[int] = []
        for column in binary.tolist():
            split = _split(codes, n_cells, design.columns[:, column])
            if split is None or split[1] > limit:
                rest.append(column)
                continue
            codes, n_cells = split
            flat.append(column)
        sloped = [*rest, *np.flatnonzero(~design.binary).tolist()]
        batch, values = np.arange(n_cells, dtype=np.int32), np.empty((n_cells, 0))
        if flat:
            first = np.zeros(n_cells, dtype=np.intp)
            first[codes[::-1]] = np.arange(n_rows)[::-1]
            batch, values = design.codes[first], design.columns[first][:, flat]
        return cls(
            codes=codes,
            n_cells=n_cells,
            batch=batch,
            n_batches=design.n_batches,
            counts=np.bincount(codes, minlength=n_cells),
            flat=tuple(flat),
            values=np.ascontiguousarray(values),
            sloped=tuple(sloped),
        )

    def sorted_rows(self) -> SortedRows:
        """The rows in the order of their cells."""
        return SortedRows(order_of(self.codes, self.n_cells), self.starts(), self.batch)

    def starts(self) -> NDArray[np.intp]:
        """Return where each cell starts in the order of cells, and where all end."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def stripes(self, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Cut the rows, in the order of their cells, into runs of one cell each.

        Returns
        -------
        The cell of each stripe, (S,), and where stripes start and all end, (S + 1,); none
        is empty or has more than `length` rows.
        """
        starts = self.starts()
        cuts = [np.arange(start, stop, length) for start, stop in pairwise(starts)]
        cell = np.repeat(np.arange(self.n_cells), [len(cut) for cut in cuts])
        return cell, np.concatenate([*cuts, starts[-1:]]).astype(np.intp)


def order_of(codes: NDArray[np.integer], n_codes: int) -> NDArray[np.intp]:
    """Return the rows in the order of their codes, 0 … n - 1; few sort in linear time."""
    narrow = codes.astype(np.uint16) if n_codes <= 1 << 16 else codes
    return np.argsort(narrow, kind="stable")


def _split(
    codes: NDArray[np.int32], n_cells: int, values: NDArray[np.float64]
) -> tuple[NDArray[np.int32], int] | None:
    """Split each cell by a two-valued column; None where it has more values."""
    if not len(values):
        return None
    upper = values != values[0]
    if not np.all(values[upper] == values[upper][:1]):
        return None
    both = codes * np.int32(2) + upper
    seen = np.bincount(both, minlength=2 * n_cells) > 0
    rank = np.cumsum(seen, dtype=np.int32) - np.int32(1)
    return rank[both], int(rank[-1]) + 1
