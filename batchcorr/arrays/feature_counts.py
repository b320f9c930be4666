"""Counts, feature by feature: made dense and float64 in blocks of features, never whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchcorr._numba import threads
from batchcorr.arrays.counts import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchcorr.models.namespace import Matrix

__all__ = ["FeatureCounts"]

VALUES = 1 << 19
"""Counts in a block: 4 MiB in float64."""

WIDEST = 2048
"""Features in a block at most."""


@dataclass(frozen=True)
class FeatureCounts:
    """Counts of n samples, read a block of features at a time.

    Attributes
    ----------
    x
        The matrix, samples × features: NumPy, or SciPy CSC.
    features
        Which of its columns: (G,).
    rows
        Which of its rows, (n,), of a NumPy matrix; None: all.

    Examples
    --------
    >>> counts = FeatureCounts.of(np.array([[1, 2], [3, 4], [5, 6]]))
    >>> counts.shape
    (2, 3)
    >>> [block.tolist() for _, block in counts.take(features=[1]).blocks()]
    [[[2.0, 4.0, 6.0]]]
    """

    x: Matrix
    features: NDArray[np.intp]
    rows: NDArray[np.intp] | None = None

    @classmethod
    def of(cls, counts: Matrix) -> Self:
        """The counts of all samples and features: NumPy's, or SciPy's CSR or CSC."""
        dense = isinstance(counts, np.ndarray)
        x = counts if dense else canonical(counts).tocsc()
        return cls(x, np.arange(x.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Features × samples, (G, n)."""
        n_rows = self.x.shape[0] if self.rows is None else len(self.rows)
        return len(self.features), n_rows

    def take(self, *, features: Any = None, rows: Any = None) -> Self:
        """The counts of some features (positions or a mask), or of some samples."""
        if features is not None:
            return replace(self, features=self.features[features])
        if isinstance(self.x, np.ndarray):
            every = np.arange(self.x.shape[0]) if self.rows is None else self.rows
            return replace(self, rows=every[rows])
        return replace(self, x=self.x[rows])

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield which features are in each block, and their counts: (features, n)."""
        n_features, n_rows = self.shape
        step = min(WIDEST, max(16 * threads(), VALUES // max(n_rows, 1)))
        for first in range(0, n_features, step):
            part = slice(first, min(first + step, n_features))
            yield part, self._block(self.features[part])

    def whole(self) -> NDArray[np.float64]:
        """All of the counts, dense: (G, n)."""
        return np.concatenate([block for _, block in self.blocks()])

    def _block(self, features: NDArray[np.intp]) -> NDArray[np.float64]:
        if not isinstance(self.x, np.ndarray):
            block = self.x[:, features].toarray(order="F").T
        elif self.rows is None:
            block = self.x.T[features]
        else:
            block = self.x.T[np.ix_(features, self.rows)]
        return np.ascontiguousarray(block, dtype=np.float64)
