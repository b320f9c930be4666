r"""Squares and products of design columns, within batches and in all.

W = Σ_b S_b within batches; T = W + Σ_b n_b (z̄_b - z̄)(z̄_b - z̄)ᵀ in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

__all__ = ["TOLERANCE", "ColumnProducts"]

TOLERANCE = 1e-9
"""Share of its squares that a column must have for itself, known by its products."""

FINE_TOLERANCE = 1e-14
"""The same where the columns are known."""

ILL = 1e-2
"""Smallest singular value of the scaled columns under which products lose digits."""


@dataclass(frozen=True)
class ColumnProducts:
    """Squares and products of p design columns, within batches and in all.

    Attributes
    ----------
    root
        A with AᵀA = W, which keeps twice the digits: (k, p).
    total
        T: (p, p).
    n, n_batches
        Rows and batches they were gathered over.
    tolerance
        Share of its squares that a column must have for itself.
    """

    root: NDArray[np.float64]
    total: NDArray[np.float64]
    n: float
    n_batches: int
    tolerance: float = TOLERANCE

    @classmethod
    def of(
        cls,
        n: NDArray[np.float64],
        means: NDArray[np.float64],
        gram: NDArray[np.float64],
    ) -> ColumnProducts:
        """Build from rows (B,), column means (B, p) and within-batch products (B,p,p)."""
        within = gram.sum(axis=0)
        norms = np.sqrt(np.diag(within))
        norms[norms == 0] = 1.0
        values, vectors = np.linalg.eigh(within / np.outer(norms, norms))
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T * norms
        total = within + _between(n, means)
        return cls(root, total, float(n.sum()), int((n > 0).sum()))

    @classmethod
    def of_moments(cls, moments: Moments) -> ColumnProducts:
        """Those of the fullest feature's rows."""
        k = int(np.argmax(moments.n.sum(axis=0)))
        return cls.of(
            moments.n[:, k], moments.columns[:, :, k], moments.gram[:, :, :, k]
        )

    @classmethod
    def of_design(cls, design: Design) -> ColumnProducts:
        """Build from the columns themselves."""
        means, centred = design.centred
        norms = np.linalg.norm(centred, axis=0)
        norms[norms == 0] = 1.0
        root = np.linalg.qr(centred / norms, mode="r") * norms
        n = design.counts.astype(np.float64)
        total = root.T @ root + _between(n, means)
        filled = int((n > 0).sum())
        return cls(root, total, float(n.sum()), filled, FINE_TOLERANCE)

    @cached_property
    def within(self) -> NDArray[np.float64]:
        """W: (p, p)."""
        products: NDArray[np.float64] = self.root.T @ self.root
        return products

    def condition(self, columns: Sequence[int]) -> float:
        """Condition number of the products of those columns that vary within batches."""
        norms = np.linalg.norm(self.root[:, columns], axis=0)
        part = self.root[:, columns][:, norms > 0] / norms[norms > 0]
        if part.shape[1] < 2:
            return 1.0
        values = np.linalg.svd(part, compute_uv=False)
        return float((values[0] / values[-1]) ** 2) if values[-1] > 0 else np.inf

    def is_ill(self, columns: Sequence[int]) -> bool:
        """Whether products of some columns lose digits that the columns have."""
        if not columns:
            return False
        scaled = self.root[:, columns] / np.sqrt(np.diag(self.total)[columns])
        return bool(np.linalg.svd(scaled, compute_uv=False)[-1] < ILL)


def _between(n: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of columns between batches, of their means: (p, p)."""
    centre = n @ means / max(n.sum(), 1.0)
    off = np.sqrt(n)[:, None] * (means - centre)
    products: NDArray[np.float64] = off.T @ off
    return products
