r"""Non-parametric empirical Bayes: every other feature is a draw from the prior.

A feature g takes the average of the other features' (γ̂_h, δ̂²_h), each weighted by how
likely it makes the values of g:

    log L(g, h) = -n/2 log(2π δ̂²_h) - (SS_g + n (γ̂_g - γ̂_h)²) / (2 δ̂²_h),     h ≠ g

in logs throughout: the product of densities underflows from about 500 samples in a
batch, and R's sva then returns only missing values. Where no other feature is near, even
the likeliest one explains the values of g badly, and most of its batch effect stays:
`far_from_all` tells where.
"""

from __future__ import annotations

import math

from batchcorr.models.namespace import Array, namespace

__all__ = ["average_likely", "far_from_all"]

BLOCK = 1 << 17
"""Terms held at a time: a block of features by all features, small enough to cache."""

FAR = 5
"""Standard errors of γ̂ from which on γ* is not an estimate of it any more."""


def average_likely(
    gamma: Array, delta2: Array, squares: Array, n: Array
) -> tuple[Array, Array]:
    """Return γ* and δ²* of one batch, G² terms in blocks.

    Parameters
    ----------
    gamma, delta2
        γ̂ and δ̂² of each feature, which are also the draws: (G,).
    squares
        Σ(s - γ̂)² of each feature: (G,).
    n
        Observed values: (1,) or (G,).
    """
    xp = namespace(gamma)
    size = int(gamma.shape[0])
    shared = n.shape[0] == 1
    possible = delta2 > 0  # a feature without spread makes no other one likely
    variance = xp.where(possible, delta2, xp.ones_like(delta2))
    log_scale = xp.where(possible, 0.5 * xp.log(2 * math.pi * variance), math.inf)
    inverse = -0.5 / variance
    new_gamma, new_delta2 = [], []
    step = max(1, BLOCK // max(size, 1))
    for start in range(0, size, step):
        rows = slice(start, min(start + step, size))
        count = n if shared else n[rows, None]
        log_likelihood = gamma[rows, None] - gamma[None, :]
        log_likelihood *= log_likelihood
        log_likelihood *= count
        log_likelihood += squares[rows, None]
        log_likelihood *= inverse
        log_likelihood -= count * log_scale
        for g in range(start, rows.stop):  # no feature is its own prior
            log_likelihood[g - start, g] = -math.inf
        log_likelihood -= xp.max(log_likelihood, axis=1, keepdims=True)
        weight = xp.exp(log_likelihood)
        total = xp.sum(weight, axis=1)
        new_gamma.append((weight @ gamma) / total)
        new_delta2.append((weight @ delta2) / total)
    return xp.concat(new_gamma), xp.concat(new_delta2)


def far_from_all(
    gamma: Array, n: Array, gamma_star: Array, delta2_star: Array
) -> Array:
    """Whether γ̂ is more than 5 standard errors from γ*, √(δ²* / n) with δ²* of 1 or more.

    What other features say does not explain such a feature's values: none is near. A batch
    of few degrees of freedom has small δ² by chance, and 1 is that of all batches.

    Examples
    --------
    Nine features that batch moves by nearly 0, and one that it moves by 6:

    >>> import numpy as np
    >>> gamma, n = np.append(np.linspace(-0.4, 0.4, 9), 6.0), np.array([10.0])
    >>> found = average_likely(gamma, np.ones(10), np.full(10, 9.0), n)
    >>> far_from_all(gamma, n, *found).nonzero()[0].tolist()
    [9]
    """
    xp = namespace(gamma)
    variance = xp.maximum(delta2_star, xp.ones_like(delta2_star))
    return xp.abs(gamma - gamma_star) > FAR * xp.sqrt(variance / n)
