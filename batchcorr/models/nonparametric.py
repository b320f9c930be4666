r"""Non-parametric empirical Bayes: every other feature is a draw from the prior.

A feature g takes the average of the other features' (γ̂_h, δ̂²_h), each weighted by how
likely it makes the values of g:

    log L(g, h) = -n/2 log(2π δ̂²_h) - (SS_g + n (γ̂_g - γ̂_h)²) / (2 δ̂²_h),     h ≠ g

in logs throughout: the product of densities underflows from about 500 samples in a
batch, and R's sva then returns only missing values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchcorr.models.namespace import Array, namespace

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["average_likely"]

BLOCK = 1 << 17
"""Terms held at a time: a block of features by all features, small enough to cache."""


def average_likely(
    gamma: Array,
    delta2: Array,
    squares: Array,
    n: Array,
    progress: Callable[[int], None] | None = None,
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
    progress
        Called with the number of features done after every block.
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
        if progress is not None:
            progress(rows.stop - start)
    return xp.concat(new_gamma), xp.concat(new_delta2)
