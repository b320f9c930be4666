r"""Negative-binomial regression of every feature on batches and covariates.

    y ~ NB(μ, φ_b),      log μ = offset + α_b + z β,      b the batch of the sample

solved fully, by Newton's method with the observed information, which is positive
definite for this link: the log-likelihood is concave. The batch block of the normal
equations is diagonal and is eliminated first (Frisch & Waugh again), so that a step
costs O(n p²) however many batches there are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from batchcorr._numba import Helper, Kernel, prange

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["cells_of", "fit_feature", "fit_features", "prior_counts"]

DECREMENT = 1e-14
"""Newton's decrement, twice the gain in log-likelihood still to be had, at the end."""

MAX_STEPS = 200
LARGEST_STEP = 4.0
"""Largest change of a linear predictor in one step."""


@Helper
def solve_spd(a, b, p):
    """Solve a x = b in place of b, by Cholesky; directions without information stay 0."""
    for j in range(p):
        size = a[j, j]
        for k in range(j):
            a[j, j] -= a[j, k] * a[j, k]
        if a[j, j] <= 1e-13 * size or a[j, j] <= 0:
            a[j, j] = math.inf
        a[j, j] = math.sqrt(a[j, j])
        for i in range(j + 1, p):
            for k in range(j):
                a[i, j] -= a[i, k] * a[j, k]
            a[i, j] /= a[j, j]
        for k in range(j):
            b[j] -= a[j, k] * b[k]
        b[j] /= a[j, j]
    for j in range(p - 1, -1, -1):
        for k in range(j + 1, p):
            b[j] -= a[k, j] * b[k]
        b[j] /= a[j, j]


@Helper
def _gather(y, library, cells, at, phi, beta, n_batches, sums, work):
    """Sum score and information at beta: D, E, F and the gradient, laid out in `work`.

    Samples of a cell share their rate e^η, so that exponentials are taken by cell.
    """
    cell, batch, z = cells
    p = z.shape[1]
    sums[:] = 0.0
    for c in range(len(batch)):
        eta = beta[batch[c]]
        for j in range(p):
            eta += z[c, j] * beta[n_batches + j]
        at[c] = math.exp(eta)
    for i in range(len(y)):
        c = cell[i]
        mu = library[i] * at[c]
        dispersion = phi[batch[c]]
        q = 1 / (1 + dispersion * mu)
        sums[0, c] += (y[i] - mu) * q
        sums[1, c] += mu * (1 + dispersion * y[i]) * q * q
    work[:] = 0.0
    gradient = work[0]
    for c in range(len(batch)):
        b = batch[c]
        score, weight = sums[0, c], sums[1, c]
        gradient[b] += score
        work[1, b] += weight
        for j in range(p):
            gradient[n_batches + j] += score * z[c, j]
            work[2 + j, b] += weight * z[c, j]
            for k in range(j + 1):
                work[2 + j, n_batches + k] += weight * z[c, j] * z[c, k]


@Helper
def fit_feature(y, library, cells, phi, beta, work, schur):
    """Iterate beta (α of each batch, then β) of one feature to the maximum, in place.

    `work` is (2 + p, B + p), `schur` (p, p); a feature with zeros only in a group
    drifts towards minus infinity until what is left to gain is rounding.
    """
    _, batch, z = cells
    p = z.shape[1]
    n_batches = len(beta) - p
    step = np.empty(len(beta))
    at, sums = np.empty(len(batch)), np.empty((2, len(batch)))
    last = math.inf
    damping = 1.0
    for _ in range(MAX_STEPS):
        _gather(y, library, cells, at, phi, beta, n_batches, sums, work)
        gradient = work[0]
        for j in range(p):
            step[n_batches + j] = gradient[n_batches + j]
            for k in range(j + 1):
                schur[j, k] = work[2 + j, n_batches + k]
        for b in range(n_batches):
            d = max(work[1, b], 1e-300)
            for j in range(p):
                share = work[2 + j, b] / d
                step[n_batches + j] -= share * gradient[b]
                for k in range(j + 1):
                    schur[j, k] -= share * work[2 + k, b]
        solve_spd(schur, step[n_batches:], p)
        decrement = 0.0
        largest = 0.0
        for b in range(n_batches):
            step[b] = gradient[b]
            for j in range(p):
                step[b] -= work[2 + j, b] * step[n_batches + j]
            step[b] /= max(work[1, b], 1e-300)
        for j in range(len(beta)):
            decrement += gradient[j] * step[j]
        for c in range(len(batch)):
            change = step[batch[c]]
            for j in range(p):
                change += z[c, j] * step[n_batches + j]
            largest = max(largest, abs(change))
        before, last = last, decrement
        if decrement > before and damping > 1e-3:
            damping *= 0.5  # overshot: shorter steps from here
        scale = damping * min(1.0, LARGEST_STEP / max(largest, 1e-300))
        for j in range(len(beta)):
            beta[j] += scale * step[j]
        quadratic = decrement < 1e-8 and decrement < 1e-2 * before
        if decrement < DECREMENT or quadratic:  # the step just taken was the last
            break


@Helper
def start(y, library, cells, beta, n_batches):
    """Start from the rate of each batch, a little above 0, and no covariate effects."""
    total = np.zeros(n_batches)
    depth = np.zeros(n_batches)
    cell, batch, _ = cells
    for i in range(len(y)):
        total[batch[cell[i]]] += y[i]
        depth[batch[cell[i]]] += library[i]
    beta[:] = 0.0
    for b in range(n_batches):
        if depth[b] > 0:
            beta[b] = math.log(max(total[b], 0.1) / depth[b])


@Kernel
def _fit_all(counts, cells, library, phi, prior, doubled, shift, beta):
    n_features, n_rows = counts.shape
    p = cells[2].shape[1]
    for g in prange(n_features):
        n_batches = beta.shape[1] - p
        own = np.empty(n_rows)
        y = np.empty(n_rows)
        times = math.exp(shift[g])
        for i in range(n_rows):
            y[i] = counts[g, i] + prior[i]
            own[i] = library[i] * times + doubled[i]
        start(y, own, cells, beta[g], n_batches)
        work, schur = np.empty((2 + p, n_batches + p)), np.empty((p, p))
        fit_feature(y, own, cells, phi[g], beta[g], work, schur)


def cells_of(codes, z):
    """Return the cell of each sample, and batch and covariates of each cell."""
    rows = np.column_stack([codes, z])
    found, cell = np.unique(rows, axis=0, return_inverse=True)
    return (
        cell.ravel().astype(np.int32),
        found[:, 0].astype(np.int32),
        np.ascontiguousarray(found[:, 1:]),
    )


def fit_features(
    counts: NDArray[np.float64],
    codes: NDArray[np.int32],
    z: NDArray[np.float64],
    offset: NDArray[np.float64],
    phi: NDArray[np.float64],
    *,
    prior: float = 0.0,
    shift: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Fit every feature; return α of each batch and β: (G, B + p).

    Parameters
    ----------
    counts
        (G, n).
    codes, z, offset
        Batch (n,), covariates (n, p) and log library size (n,) of each sample.
    phi
        Dispersion of each batch: (G, B).
    prior
        Count added to every sample in proportion to its library, as edgeR does, so that
        coefficients stay finite where all counts are 0; 0: maximum likelihood.
    shift
        Added to the offset of each feature: (G,).

    Notes
    -----
    With a shift s the library is e^s times as large but the prior count is not, so that
    the prior weighs more: log(e^(offset + s) + 2 prior).
    """
    added = prior_counts(offset, prior)
    beta = np.zeros((len(counts), phi.shape[1] + z.shape[1]))
    moved = np.zeros(len(counts)) if shift is None else shift
    cells, library = cells_of(codes, z), np.exp(offset)
    _fit_all(counts, cells, library, phi, added, 2 * added, moved, beta)
    return beta


def prior_counts(offset: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Return the prior count of each sample: `prior` × library / mean library."""
    library = np.exp(offset - offset.max())
    added: NDArray[np.float64] = prior * library / library.mean()
    return added
