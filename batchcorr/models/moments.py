r"""Sufficient statistics of a location-scale model, additive over blocks of rows.

Per batch b, with x the values of a feature and z the design columns of a row,

    n_b,   x̄_b,   z̄_b,   M_b = Σ (x - x̄_b)²,   C_b = Σ (z - z̄_b)(x - x̄_b),
    S_b = Σ (z - z̄_b)(z - z̄_b)ᵀ

all centred, so that nothing cancels, and merged by the rule of Chan, Golub & LeVeque:

    M = Σ_k M_k + Σ_k n_k (x̄_k - x̄)²        (C and S likewise)

A batch is constant in a feature exactly when M_b = 0: the passes subtract a value of
the batch before they square, so that a constant batch gives an exact zero and any other
does not. Hence no minimum and maximum need to travel along.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.namespace import Array, Namespace, asarray_like, namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Centred first and second moments per batch, for B batches and G features.

    Where values are missing or weighted, every feature has its own n, z̄ and S, and the
    axes written 1|G are G long; else they are 1 long and are shared by all features.

    Attributes
    ----------
    rows
        Samples in each batch, missing values included: (B, 1).
    n
        Observed values, or the sum of their weights: (B, 1|G).
    mean
        x̄: (B, G).
    squares
        M: (B, G).
    columns
        z̄: (B, p, 1|G).
    cross
        C: (B, p, G).
    gram
        S: (B, p, p, 1|G).
    """

    rows: Array
    n: Array
    mean: Array
    squares: Array
    columns: Array
    cross: Array
    gram: Array

    @classmethod
    def of_values(
        cls,
        n: NDArray[np.integer],
        mean: NDArray[np.float64],
        squares: NDArray[np.float64],
    ) -> Moments:
        """Moments without columns of B groups, of n values each: (B, 1)."""
        rows = n.astype(np.float64)
        b, g = mean.shape
        none, no_products = np.zeros((b, 0, 1)), np.zeros((b, 0, 0, 1))
        return cls(rows, rows, mean, squares, none, np.zeros((b, 0, g)), no_products)

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return int(self.mean.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.mean.shape[1])

    @property
    def n_columns(self) -> int:
        """Number of design columns."""
        return int(self.cross.shape[1])

    @property
    def by_feature(self) -> bool:
        """Whether features differ in the samples or weights they were observed with."""
        return int(self.n.shape[1]) != 1 or self.n_features == 1

    def variance(self, ddof: int = 0) -> Array:
        """M / (n - ddof), the variance of each batch: (B, G).

        Where n is not above `ddof` it is not a number, or infinite.
        """
        variance: Array = self.squares / (self.n - ddof)
        return variance

    def map(self, change: Callable[[Array], Array]) -> Moments:
        """The moments whose arrays went through a function, each by itself."""
        return Moments(*(change(getattr(self, field.name)) for field in fields(self)))

    def concat(self, other: Moments) -> Moments:
        """Stack the batches of two sets of moments, without merging any."""
        xp = namespace(self.mean)
        parts = {}
        for field in fields(self):
            a, b = getattr(self, field.name), getattr(other, field.name)
            if a.shape[-1] != b.shape[-1]:
                width = max(a.shape[-1], b.shape[-1])
                a = xp.broadcast_to(a, (*a.shape[:-1], width))
                b = xp.broadcast_to(b, (*b.shape[:-1], width))
            parts[field.name] = xp.concat([a, b], axis=0)
        return Moments(**parts)

    def select(self, columns: list[int]) -> Moments:
        """The moments of some of the design columns only."""
        if columns == list(range(self.n_columns)):
            return self
        xp = namespace(self.mean)
        pick = xp.asarray(columns, dtype=xp.int64)
        rows = xp.take(self.gram, pick, axis=1)
        return replace(
            self,
            columns=xp.take(self.columns, pick, axis=1),
            cross=xp.take(self.cross, pick, axis=1),
            gram=xp.take(rows, pick, axis=2),
        )

    def select_features(self, features: Array) -> Moments:
        """Return the moments of some of the features only."""
        return self.map(
            lambda array: array[..., features] if array.shape[-1] > 1 else array
        )

    def collapse(self, parents: list[int], n_batches: int) -> Moments:
        """Merge groups into batches: group k belongs to batch `parents[k]`.

        Examples
        --------
        Two halves of one batch, merged, are the whole:

        >>> import numpy as np
        >>> from batchcorr.arrays import moments
        >>> from batchcorr.design.design import Design
        >>> x = np.arange(12.0).reshape(6, 2) ** 2
        >>> half = [moments(part, Design.of([0, 0, 0])) for part in (x[:3], x[3:])]
        >>> whole = half[0].concat(half[1]).collapse([0, 0], 1)
        >>> bool(np.allclose(whole.squares, 6 * x.var(axis=0)))
        True
        """
        xp = namespace(self.mean)
        members = np.argsort(np.asarray(parents, dtype=np.intp), kind="stable")
        sizes = np.bincount(np.asarray(parents, dtype=np.intp), minlength=n_batches)
        starts = np.cumsum(sizes) - sizes
        order, parts = [], []
        for size in np.unique(sizes):  # batches of as many groups are merged together
            batches = np.flatnonzero(sizes == size)
            order.append(batches)
            rows = members[starts[batches] + np.arange(size)[:, None]].ravel()
            groups = self._take(xp, rows, (int(size), len(batches)))
            parts.append(
                _merge(xp, groups) if size else self._nothing(xp, len(batches))
            )
        if len(parts) == 1:
            return parts[0]
        back = asarray_like(self.mean, np.argsort(np.concatenate(order)))
        joined = reduce(Moments.concat, parts)
        return joined.map(lambda array: xp.take(array, back, axis=0))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows together: batches must correspond."""
        batches = list(range(self.n_batches))
        return self.concat(other).collapse(batches * 2, self.n_batches)

    def decayed(self, factor: float | Array) -> Moments:
        """Return the moments as if every sample had counted `factor` times.

        Counts and sums shrink, `rows` as well as n; means stay. `factor` is one number,
        or one for each batch: (B, 1).
        """
        xp = namespace(self.mean)
        factor = xp.asarray(factor, dtype=self.mean.dtype)
        factor = xp.broadcast_to(factor, (self.n_batches, 1))
        return replace(
            self,
            rows=self.rows * factor,
            n=self.n * factor,
            squares=self.squares * factor,
            cross=self.cross * factor[:, :, None],
            gram=self.gram * factor[:, :, None, None],
        )

    def in_columns(self, factor: Array, offset: Array) -> Moments:
        """The moments of other columns: z = z' F + o_b for these z' and batch b.

        Parameters
        ----------
        factor
            F: (p, p).
        offset
            o: (B, p), 0 for a batch without rows.
        """
        xp = namespace(self.mean)
        turned = factor.T
        left = xp.tensordot(turned, self.gram, axes=((1,), (1,)))  # (p, B, p, 1|G)
        gram = xp.tensordot(turned, left, axes=((1,), (2,)))  # (p, p, B, 1|G)
        return replace(
            self,
            columns=xp.matmul(turned, self.columns) + offset[:, :, None],
            cross=xp.matmul(turned, self.cross),
            gram=xp.permute_dims(gram, (2, 1, 0, 3)),
        )

    def _take(
        self, xp: Namespace, rows: NDArray[np.intp], shape: tuple[int, int]
    ) -> Moments:
        """Some of the groups, in a grid: two axes in place of the first."""
        pick = asarray_like(self.mean, rows)
        return self.map(
            lambda array: xp.reshape(
                xp.take(array, pick, axis=0), (*shape, *array.shape[1:])
            )
        )

    def _nothing(self, xp: Namespace, n_batches: int) -> Moments:
        """The moments of batches without rows."""
        return self.map(
            lambda array: xp.stack([xp.zeros_like(array[0, ...])] * n_batches)
        )


def _merge(xp: Namespace, parts: Moments) -> Moments:
    """Merge groups (first axis) into batches (second): deviations from common means."""
    n = parts.n
    total = xp.sum(n, axis=0)
    share = n / xp.where(total > 0, total, xp.ones_like(total))
    # Measured from the first group observed: equal means give exactly that mean.
    base, columns_base = parts.mean[0, ...], parts.columns[0, ...]
    seen = n[0, ...] > 0
    for k in range(1, n.shape[0]):
        base = xp.where(seen, base, parts.mean[k, ...])
        columns_base = xp.where(seen[..., None, :], columns_base, parts.columns[k, ...])
        seen = seen | (n[k, ...] > 0)
        if k % 64 == 0 and bool(xp.all(seen)):
            break
    mean = base + xp.sum(share * (parts.mean - base), axis=0)
    columns = columns_base + xp.sum(
        share[..., None, :] * (parts.columns - columns_base), axis=0
    )
    dx = parts.mean - mean
    dz = parts.columns - columns
    weighted = n[..., None, :] * dz
    return Moments(
        rows=xp.sum(parts.rows, axis=0),
        n=total,
        mean=mean,
        squares=xp.sum(parts.squares + n * dx**2, axis=0),
        columns=columns,
        cross=xp.sum(parts.cross + weighted * dx[..., None, :], axis=0),
        gram=xp.sum(
            parts.gram + weighted[..., :, None, :] * dz[..., None, :, :], axis=0
        ),
    )
