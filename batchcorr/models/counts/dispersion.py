r"""Dispersion of every feature in one batch, by adjusted profile likelihood.

    APL(φ) = log L(μ̂(φ), φ) - ½ log det Zᵀ W Z,      W = μ̂ / (1 + φ μ̂)

(Cox & Reid 1987; McCarthy, Chen & Smyth 2012, as R edgeR computes it). The common
dispersion maximizes the sum over features; a feature's own is the maximum of a cubic
spline through its APL at common × 2^t, t = -6 … 6 in 11 steps, with no shrinkage.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from scipy.optimize import minimize_scalar

from batchcorr._numba import Helper, Kernel, prange
from batchcorr.models.counts.regression import cells_of, fit_feature, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = [
    "FeatureBlocks",
    "batch_dispersions",
    "maximize_spline",
    "profile_likelihoods",
]

GRID = np.linspace(-6.0, 6.0, 11)
"""log2 multiples of the common dispersion at which features are profiled."""

FEWEST = 5
"""Counts a feature needs in a batch for a dispersion of its own."""

LARGEST = 4.0
"""Largest common dispersion looked for."""

TABLE = 4096
"""Counts up to which log Γ(y + r) - log Γ(r) - y log r is looked up."""

FLOOR = 1e-10
"""Pivots of the information under this count as this: groups with zeros only."""


class FeatureBlocks(Protocol):
    """Counts by feature that are read a block of features at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Features × samples, (G, n)."""

    def take(self, *, features: object = None, rows: object = None) -> Self:
        """The counts of some features, or of some samples."""

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield which features are in each block, and their counts: (features, n)."""


@Helper
def _rising(y, r, log_gamma_r):
    """Return log Γ(y + r) - log Γ(r) - y log r, without cancellation for large r."""
    if r == math.inf:
        return 0.0
    if r < 1e4:
        return math.lgamma(y + r) - log_gamma_r - y * math.log(r)
    total = (y + r - 0.5) * math.log1p(y / r) - y
    return total + 1 / (12 * (y + r)) - 1 / (12 * r)


@Helper
def _log_determinant(information, p):
    """Return the log determinant by the pivots of L D Lᵀ, floored."""
    total = 0.0
    for j in range(p):
        total += math.log(max(information[j, j], FLOOR))
        if information[j, j] <= 0:
            continue
        for i in range(j + 1, p):
            ratio = information[i, j] / information[j, j]
            for k in range(j + 1, i + 1):
                information[i, k] -= ratio * information[k, j]
    return total


@Kernel
def _profiles(counts, cells, offset, dispersions, rising, beta, result):
    n_features, n_rows = counts.shape
    cell, batch, z = cells
    p, n_cells = z.shape[1], len(batch)
    library = np.exp(offset)
    for g in prange(n_features):
        work, schur = np.empty((2 + p, 1 + p)), np.empty((p, p))
        information = np.empty((1 + p, 1 + p))
        phi, eta, weights = np.empty(1), np.empty(n_cells), np.empty(n_cells)
        rate, total_of = np.empty(n_cells), np.zeros(n_cells)
        y = counts[g]
        constant = 0.0
        for i in range(n_rows):
            constant += y[i] * offset[i]
            total_of[cell[i]] += y[i]
        if not np.isfinite(beta[g, 0]):
            start(y, library, cells, beta[g], 1)
        for t in range(len(dispersions)):
            phi[0] = dispersions[t]
            fit_feature(y, library, cells, phi, beta[g], work, schur)
            r = 1 / phi[0] if phi[0] > 0 else math.inf
            log_gamma_r = math.lgamma(r)
            total = constant
            for c in range(n_cells):
                eta[c] = beta[g, 0]
                for j in range(p):
                    eta[c] += z[c, j] * beta[g, 1 + j]
                total += total_of[c] * eta[c] if total_of[c] > 0 else 0.0
                rate[c] = math.exp(eta[c])
                weights[c] = 0.0
            for i in range(n_rows):
                mu = library[i] * rate[cell[i]]
                if y[i] < rising.shape[1]:
                    total += rising[t, int(y[i])]
                else:
                    total += _rising(y[i], r, log_gamma_r)
                if phi[0] > 0:
                    total -= (y[i] + r) * math.log1p(phi[0] * mu)
                else:
                    total -= mu
                weights[cell[i]] += mu / (1 + phi[0] * mu)
            information[:] = 0.0
            for c in range(n_cells):
                information[0, 0] += weights[c]
                for j in range(p):
                    information[1 + j, 0] += weights[c] * z[c, j]
                    for k in range(j + 1):
                        information[1 + j, 1 + k] += weights[c] * z[c, j] * z[c, k]
            result[g, t] = total - 0.5 * _log_determinant(information, 1 + p)


def profile_likelihoods(
    counts: NDArray[np.float64],
    z: NDArray[np.float64],
    offset: NDArray[np.float64],
    dispersions: NDArray[np.float64],
    beta: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """APL of every feature at every dispersion, (G, T), but for its constant, -Σ log y!.

    Parameters
    ----------
    counts
        Of one batch: (G, n).
    z, offset
        Covariates (n, p) and log library sizes (n,).
    dispersions
        (T,).
    beta
        Where to start from and where to leave the last fit, NaN where unknown:
        (G, 1 + p).
    """
    if beta is None:
        beta = np.full((len(counts), 1 + z.shape[1]), np.nan)
    result = np.empty((len(counts), len(dispersions)))
    size = int(min(TABLE, counts.max(initial=0) + 1))
    terms = np.log1p(np.arange(size - 1) * dispersions[:, None])
    rising = np.zeros((len(dispersions), size))
    np.cumsum(terms, axis=1, out=rising[:, 1:])
    cells = cells_of(np.zeros(len(offset), np.int32), z)
    _profiles(counts, cells, offset, dispersions, rising, beta, result)
    return result


@cache
def _spline_slopes() -> NDArray[np.float64]:
    """Return the matrix that takes values on the grid to the spline's second order.

    The spline of Forsythe, Malcolm & Moler: at both ends its third derivative is that
    of the cubic through the last four points. On a fixed grid it is linear in values.
    """
    n, h = len(GRID), GRID[1] - GRID[0]
    left, right = np.zeros((n, n)), np.zeros((n, n))
    for k in range(1, n - 1):
        left[k, k - 1 : k + 2] = h, 4 * h, h
        right[k, k - 1 : k + 2] = np.array([1.0, -2.0, 1.0]) / h
    left[0, :2] = -h, h
    left[-1, -2:] = h, -h
    third = np.array([-1.0, 3.0, -3.0, 1.0]) / (6 * h)
    right[0, :4] = third
    right[-1, -4:] = -third
    return np.asarray(np.linalg.solve(left, right), dtype=np.float64)


def maximize_spline(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the spline through values on the grid is highest: (G,).

    Looked for at the best grid point and inside the segments on either side of it.
    """
    h = GRID[1] - GRID[0]
    second = values @ _spline_slopes().T
    best = np.argmax(values, axis=1)
    rows = np.arange(len(values))
    place: NDArray[np.float64] = GRID[best]
    height = values[rows, best]
    for segment in (best - 1, best):
        inside = (segment >= 0) & (segment < len(GRID) - 1)
        k = np.clip(segment, 0, len(GRID) - 2)
        a, c = values[rows, k], second[rows, k]
        d = (second[rows, k + 1] - c) / h
        b = (values[rows, k + 1] - a) / h - h * (second[rows, k + 1] + 2 * c)
        # a + b x + 3 c x² + d x³ has slope b + 6 c x + 3 d x²; its maximum is the root
        # where the curvature is negative, written so that d = 0 is no special case.
        root = 9 * c**2 - 3 * b * d
        below = -3 * c + np.sqrt(np.maximum(root, 0))
        x = np.divide(b, below, out=np.full_like(b, -1.0), where=below != 0)
        top = a + x * (b + x * (3 * c + x * d))
        better = inside & (root >= 0) & (x > 0) & (x < h) & (top > height)
        place = np.where(better, GRID[k] + x, place)
        height = np.where(better, top, height)
    return place


def batch_dispersions(
    counts: FeatureBlocks,
    z: NDArray[np.float64],
    offset: NDArray[np.float64],
    progress: Callable[[int], None] | None = None,
) -> tuple[float, NDArray[np.float64]]:
    """Return the common dispersion of one batch and that of every feature, (G,).

    Parameters
    ----------
    counts
        Of the batch: (G, n).
    z, offset
        Covariates (n, p) and log library sizes (n,).
    progress
        Called with the number of features done.

    Notes
    -----
    Where the batch has no more samples than coefficients, or covariates that do not
    vary in it, all features get the common dispersion of the model without covariates.
    Features with fewer than 5 counts in the batch get the common one too.
    """
    n_features, n_rows = counts.shape
    design = np.column_stack([np.ones(n_rows), z])
    own = n_rows > design.shape[1]
    own = own and np.linalg.matrix_rank(design) == design.shape[1]
    if not own:
        z = z[:, :0]
    totals = np.concatenate([block.sum(axis=1) for _, block in counts.blocks()])
    enough = totals >= FEWEST
    counted = counts.take(features=enough)
    beta = np.full((counted.shape[0], 1 + z.shape[1]), np.nan)
    profile = np.empty(len(beta))

    def below(fourth_root: float) -> float:
        at = np.array([fourth_root**4])
        for part, block in counted.blocks():
            profile[part] = profile_likelihoods(block, z, offset, at, beta[part])[:, 0]
        return -float(profile.sum())

    found = minimize_scalar(
        below, bounds=(0.0, LARGEST**0.25), method="bounded", options={"xatol": 1e-5}
    )
    common = float(found.x) ** 4
    dispersions = np.full(n_features, common)
    if own:
        multiples = np.empty(len(beta))
        for part, block in counted.blocks():
            values = profile_likelihoods(block, z, offset, common * 2**GRID, beta[part])
            multiples[part] = 2 ** maximize_spline(values)
            if progress is not None:
                progress(len(values))
        dispersions[enough] = common * multiples
    return common, dispersions
