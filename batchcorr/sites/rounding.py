r"""How finely the sums of a site leave it, so that no values can be computed back.

Whoever knows the covariates of a batch knows an orthonormal basis Q of a constant and
the columns z, and the moments tell of each feature

    u = Qᵀx     and     r = |x - Q u|:     x̄ = u₀/√n,   C = L u,   M = r² + Σu²,   S = L Lᵀ

to all digits: equations for n values that have one solution only if the values have few
decimals, and lattice reduction finds it. So u and r leave as multiples of

    τ = 2⁻ᵈ σ,     σ² = r²/(n - 1 - rank), up to a power of two,

and x̄, M and C are made of these: still the moments of some samples, and the same ones
in whatever order the rows are. With ε = (τ/σ)²/(2πe), they tell of k of the samples, the
others being unknown,

    I = ½ log2 1/det(Q_othersᵀ Q_others + ε 1)                                 bits,

and ½ log2 1/ε more of all together. d is the largest up to 20 for which, of all samples
and for any k of those with the highest leverage, I is at most half of what their values
hold (`grid`): so at least 2^(k h/2) sets of values agree with what is told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments

__all__ = ["COARSEST", "FINEST", "Basis", "digits_of", "rounded", "sd_of"]

FINEST = 20
"""Binary digits of a standard deviation that are told at most: 1e-6 of it."""

COARSEST = 3
"""Digits without which sums are of little use: an eighth of a standard deviation."""

TOLD = 0.5
"""Share of the bits of the values that the sums may tell."""

SEARCHED = 512
"""Samples of the highest leverage that are looked at."""


class Basis:
    """Orthonormal directions of the centred columns of one batch.

    Parameters
    ----------
    gram
        S of the batch: (p, p).
    """

    def __init__(self, gram: NDArray[np.float64]) -> None:
        p = len(gram)
        self.factor = np.zeros((p, p))
        for j in range(p):
            row = self.coordinates(gram[:j, j], j)
            left = gram[j, j] - (row**2).sum()
            self.factor[j, :j] = row
            self.factor[j, j] = np.sqrt(left) if left > 1e-9 * gram[j, j] else 0.0

    @property
    def rank(self) -> int:
        """Number of directions."""
        return int((np.diag(self.factor) > 0).sum())

    def coordinates(
        self, products: NDArray[np.float64], p: int | None = None
    ) -> NDArray[np.float64]:
        """L⁻¹ of products with the columns, 0 where a column depends on earlier ones."""
        p = len(self.factor) if p is None else p
        u = np.zeros_like(products, dtype=np.float64)
        for j in range(p):
            if self.factor[j, j] > 0:
                u[j] = (products[j] - self.factor[j, :j] @ u[:j]) / self.factor[j, j]
        return u


def sd_of(sums: Moments, bases: list[Basis]) -> NDArray[np.float64]:
    """Standard deviation of each batch and feature about its columns: (B, G)."""
    n = np.broadcast_to(sums.n, sums.mean.shape)
    sd = np.zeros(sums.mean.shape)
    for batch, basis in enumerate(bases):
        free = np.maximum(n[batch] - 1 - basis.rank, 1)
        sd[batch] = np.sqrt(_split(sums, batch, basis)[1] / free)
    return sd


def digits_of(
    columns: NDArray[np.float64], basis: Basis, held: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Binary digits that the sums of a batch may be told with.

    Parameters
    ----------
    columns
        Design columns of the samples of the batch: (n, p).
    basis
        Their directions.
    held
        Bits that one value of each feature holds: (G,).

    Returns
    -------
    `FINEST` or fewer for each feature, less than `COARSEST` if none are safe: (G,).
    """
    needed = _bits_needed(columns, basis)
    return COARSEST - 1 + np.searchsorted(needed, held, side="right")


def _bits_needed(columns: NDArray[np.float64], basis: Basis) -> NDArray[np.float64]:
    """Bits that values must hold for sums with `COARSEST` … `FINEST` digits to be safe."""
    n = len(columns)
    along = basis.coordinates((columns - columns.mean(axis=0)).T)
    q = np.vstack([np.full(n, n**-0.5), along[np.diag(basis.factor) > 0]]).T
    leverage = (q**2).sum(axis=1)
    order = np.lexsort((*columns.T, -np.round(leverage, 9)))[:SEARCHED]
    q = q[order]
    others = np.eye(q.shape[1]) - np.cumsum(q[:, :, None] * q[:, None, :], axis=0)
    k = np.arange(1, len(q) + 1)
    spectra = np.clip(np.linalg.eigvalsh(others), 0, None)
    needed = []
    for digits in range(COARSEST, FINEST + 1):
        epsilon = 2.0 ** (-2 * digits) / (2 * np.pi * np.e)
        told = -0.5 * np.log2(np.minimum(spectra + epsilon, 1)).sum(axis=1)
        if len(q) == n:
            told[-1] -= 0.5 * np.log2(epsilon)
        needed.append((told / k).max() / TOLD)
    return np.maximum.accumulate(needed)


def rounded(sums: Moments, bases: list[Basis], digits: NDArray[np.int64]) -> Moments:
    """The moments as they may leave: u and r of every feature as multiples of τ.

    Parameters
    ----------
    sums
        The exact moments.
    bases
        The directions of the columns of each batch.
    digits
        Binary digits of each batch and feature: (B, G).
    """
    mean, squares, cross = sums.mean.copy(), sums.squares.copy(), sums.cross.copy()
    n = np.broadcast_to(sums.n, mean.shape)
    sd = sd_of(sums, bases)
    for batch, basis in enumerate(bases):
        u, rest = _split(sums, batch, basis)
        some = np.flatnonzero((sums.squares[batch] > 0) & (sd[batch] > 0))
        power = np.ceil(np.log2(sd[batch, some])) - digits[batch, some]
        step = np.exp2(power)
        u = np.rint(u[:, some] / step) * step
        r = np.maximum(np.rint(np.sqrt(rest[some]) / step), 1) * step
        root = np.sqrt(n[batch, some])
        mean[batch, some] = np.rint(root * mean[batch, some] / step) * step / root
        squares[batch, some] = r**2 + (u**2).sum(axis=0)
        cross[batch][:, some] = basis.factor @ u
    return replace(sums, mean=mean, squares=squares, cross=cross)


def _split(
    sums: Moments, batch: int, basis: Basis
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates u but for the first, and r², of one batch; r² is 0 if only rounding."""
    u = basis.coordinates(sums.cross[batch])
    squares = sums.squares[batch]
    rest = squares - (u**2).sum(axis=0)
    return u, np.where(rest > 1e-12 * squares, rest, 0.0)
