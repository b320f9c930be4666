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
hold (`grid`; of k, if all differ from the most common one): so at least 2^(k h/2) sets of values agree with what is told.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.sites.basis import Basis
from batchcorr.sites.grid import bits_of_values, grid_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.differing import Differing
    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

__all__ = ["COARSEST", "FINEST", "digits_of", "rounded"]

FINEST = 20
"""Binary digits of a standard deviation that are told at most: 1e-6 of it."""

COARSEST = -3
"""Digits that are told at least, of any feature that is told at all."""

USEFUL = 1 / 16
"""Standard deviations to which the mean of a feature is told, or nothing of it."""

TOLD = 0.5
"""Share of the bits of the values that the sums may tell."""

SEARCHED = 512
"""Samples of the highest leverage that are looked at."""


def digits_of(
    x: object, sums: Moments, values: Differing, design: Design
) -> NDArray[np.int64]:
    """Binary digits that the sums of each batch and feature may be told with: (B, G).

    Parameters
    ----------
    values
        Between what they lie, and how many differ from the most common value.

    Returns
    -------
    `FINEST` or fewer; less than `COARSEST` where no sum may be told.
    """
    bases = _bases(design)
    sd = _sd(sums, bases)
    n = np.broadcast_to(sums.n, sd.shape)
    grid = grid_of(x, design.codes, values, sums.mean)
    bits = bits_of_values(values, grid, sd, n)
    average = bits.on_average * n / np.maximum(sums.rows, 1)
    digits = np.full(sd.shape, FINEST)
    for batch in np.flatnonzero(design.counts):
        columns = design.columns[design.codes == batch]
        of_some, of_all = _bits_needed(columns, bases[batch])
        few = np.searchsorted(of_some, bits.of_one[batch], side="right")
        safe = np.searchsorted(of_all, average[batch], side="right")
        digits[batch] = np.minimum(few, safe) + COARSEST - 1
    useful = np.ceil(-np.log2(USEFUL * np.sqrt(np.maximum(n, 1))))
    digits = np.where(digits < useful, COARSEST - 1, digits)
    constant = (sums.squares == 0) | (n == 0)
    explained = ~constant & (sd == 0)
    return np.where(explained, COARSEST - 1, np.where(constant, FINEST, digits))


def rounded(sums: Moments, digits: NDArray[np.int64], design: Design) -> Moments:
    """The moments as they may leave: u and r of every feature as multiples of τ.

    Parameters
    ----------
    digits
        Binary digits of each batch and feature: (B, G).
    """
    bases = _bases(design)
    mean, squares, cross = sums.mean.copy(), sums.squares.copy(), sums.cross.copy()
    n = np.broadcast_to(sums.n, mean.shape)
    sd = _sd(sums, bases)
    for batch, basis in enumerate(bases):
        u, rest = _split(sums, batch, basis)
        pick = np.flatnonzero((sums.squares[batch] > 0) & (sd[batch] > 0))
        kept = np.maximum(digits[batch, pick], COARSEST)
        step = np.exp2(np.ceil(np.log2(sd[batch, pick])) - kept)
        u = np.rint(u[:, pick] / step) * step
        r = np.maximum(np.rint(np.sqrt(rest[pick]) / step), 1) * step
        root = np.sqrt(n[batch, pick])
        mean[batch, pick] = np.rint(root * mean[batch, pick] / step) * step / root
        squares[batch, pick] = r**2 + (u**2).sum(axis=0)
        cross[batch][:, pick] = basis.factor @ u
    return replace(sums, mean=mean, squares=squares, cross=cross)


def _bases(design: Design) -> list[Basis]:
    """The directions of the columns of each batch."""
    batches = range(len(design.counts))
    return [Basis.of(design.columns[design.codes == batch]) for batch in batches]


def _sd(sums: Moments, bases: list[Basis]) -> NDArray[np.float64]:
    """Standard deviation of each batch and feature about its columns: (B, G)."""
    n = np.broadcast_to(sums.n, sums.mean.shape)
    sd = np.zeros(sums.mean.shape)
    for batch, basis in enumerate(bases):
        free = np.maximum(n[batch] - 1 - basis.rank, 1)
        sd[batch] = np.sqrt(_split(sums, batch, basis)[1] / free)
    return sd


def _bits_needed(
    columns: NDArray[np.float64], basis: Basis
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bits that values must hold for `COARSEST` … `FINEST` digits to be safe.

    Each value of some samples, and of all on average.
    """
    q, n = basis.directions(columns), len(columns)
    leverage = (q**2).sum(axis=1)
    order = np.lexsort((*columns.T, -np.round(leverage, 9)))[: min(n - 1, SEARCHED)]
    first = q[order]
    others = np.eye(q.shape[1]) - np.cumsum(
        first[:, :, None] * first[:, None, :], axis=0
    )
    spectra = np.clip(np.linalg.eigvalsh(others), 0, None)
    k = np.arange(1, len(first) + 1)
    of_some, of_all = [0.0], [0.0]
    for digits in range(COARSEST, FINEST + 1):
        epsilon = min(2.0 ** (-2 * digits) / (2 * np.pi * math.e), 1.0)
        disclosed = -0.5 * np.log2(np.minimum(spectra + epsilon, 1)).sum(axis=1)
        of_some.append(max(of_some[-1], (disclosed / k).max(initial=0) / TOLD))
        of_all.append(-0.5 * np.log2(epsilon) * (q.shape[1] + 1) / n / TOLD)
    return np.array(of_some[1:]), np.array(of_all[1:])


def _split(
    sums: Moments, batch: int, basis: Basis
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates u but for the first, and r², of one batch; r² is 0 if only rounding."""
    u = basis.coordinates(sums.cross[batch])
    squares = sums.squares[batch]
    rest = squares - (u**2).sum(axis=0)
    return u, np.where(rest > 1e-12 * squares, rest, 0.0)
