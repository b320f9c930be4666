"""What is known of each row: its batch, and the columns that are kept or removed.

A `Design` is the picture of the metadata that the passes read: integer batch codes and
one float64 matrix of columns, protected covariates first, nuisances after them. It
knows no names of levels and no tables; `labels` and `covariates` make it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Design"]


@dataclass(frozen=True)
class Design:
    """Batch codes and design columns of n rows.

    Attributes
    ----------
    codes
        Batch of each row, 0 … B-1: (n,) int32.
    n_batches
        B; a batch may have no rows here.
    columns
        Kept covariates, then nuisances: (n, p + q) float64.
    kept
        p, the number of columns that are kept.
    binary
        Columns of zeros and ones in the rows of `fit`: (p + q,). They split batches
        into cells; which they are is frozen, so that a row is computed in the same way
        whatever rows are beside it.
    """

    codes: NDArray[np.int32]
    n_batches: int
    columns: NDArray[np.float64]
    kept: int
    binary: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        codes: ArrayLike,
        n_batches: int | None = None,
        covariates: NDArray[np.float64] | None = None,
        nuisance: NDArray[np.float64] | None = None,
        binary: ArrayLike | None = None,
    ) -> Self:
        """Build a design from arrays; everything but the codes is optional.

        Examples
        --------
        >>> design = Design.of([0, 1, 1])
        >>> design.n_batches, design.counts.tolist()
        (2, [1, 2])
        """
        codes = np.ascontiguousarray(codes, dtype=np.int32)
        n = len(codes)
        blocks = [
            np.empty((n, 0)) if block is None else block
            for block in (covariates, nuisance)
        ]
        if n_batches is None:
            n_batches = int(codes.max()) + 1
        columns = np.ascontiguousarray(np.hstack(blocks))
        if binary is None:
            binary = ((columns == 0) | (columns == 1)).all(axis=0)
        return cls(
            codes, n_batches, columns, blocks[0].shape[1], np.asarray(binary, bool)
        )

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each batch: (B,)."""
        return np.bincount(self.codes, minlength=self.n_batches)

    def take(self, rows: Any) -> Self:
        """Return the design of some rows."""
        return replace(self, codes=self.codes[rows], columns=self.columns[rows])

    def without_kept(self) -> Self:
        """The design without the kept columns, for corrections that need none."""
        if not self.kept:
            return self
        columns = np.ascontiguousarray(self.columns[:, self.kept :])
        return replace(self, columns=columns, kept=0, binary=self.binary[self.kept :])

    @cached_property
    def centred(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The columns' means by batch (B, p), and the columns less those (n, p)."""
        codes, n_batches = self.codes, self.n_batches
        means = np.zeros((n_batches, self.columns.shape[1]))
        if not self.columns.size:
            return means, self.columns
        counts = self.counts
        origin = self.columns[0]  # far from 0, as dates are, sums would lose digits
        columns = self.columns - origin
        for k, column in enumerate(columns.T):
            sums = np.bincount(codes, weights=column, minlength=n_batches)
            means[:, k] = sums / np.maximum(counts, 1)
        whole = np.where(counts[:, None] > 0, means + origin, 0.0)
        return whole, columns - means[codes]
