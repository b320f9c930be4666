r"""Empirical Bayes on counts: every other feature is a draw from the prior.

A feature g of a batch takes the average of the other features' (γ_h, φ_h), weighted by
how likely their own means and dispersion make the counts of g (Zhang, Parmigiani &
Johnson 2020):

    w(g, h) = Π_i NB(y_gi; μ_hi, φ_h),      h ≠ g

The products are taken in logs, but a weight that a plain product would lose (under
1e-323) counts as 0, and a feature that loses them all keeps its own estimate: R's sva
does so, and a feature that no other feature resembles has nothing to learn from them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from batchcorr._numba import Kernel, prange
from batchcorr.models.counts.distribution import log_pmf

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["average_likely_counts"]

LOST = -744.5
"""Logarithm of the smallest number above 0 that a double holds."""


@Kernel
def _average(counts, mu, gamma, phi, draws, new_gamma, new_phi):
    n_features, n_rows = counts.shape
    n_draws = draws.shape[1] if len(draws) else n_features - 1
    for g in prange(n_features):
        total = 0.0
        sum_gamma = 0.0
        sum_phi = 0.0
        for k in range(n_draws):
            h = draws[g, k] if len(draws) else k
            if h >= g:
                h += 1  # positions are those in the list of the other features
            log_weight = 0.0
            for i in range(n_rows):
                log_weight += log_pmf(counts[g, i], mu[h, i], phi[h])
                if log_weight < LOST:
                    break
            if log_weight >= LOST:
                weight = math.exp(log_weight)
                total += weight
                sum_gamma += weight * gamma[h]
                sum_phi += weight * phi[h]
        found = total > 0
        new_gamma[g] = sum_gamma / total if found else gamma[g]
        new_phi[g] = sum_phi / total if found else phi[g]


def average_likely_counts(
    counts: NDArray[np.float64],
    mu: NDArray[np.float64],
    gamma: NDArray[np.float64],
    phi: NDArray[np.float64],
    draws: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return γ* and φ* of one batch.

    Parameters
    ----------
    counts, mu
        Counts and fitted means of the batch's samples: (G, n).
    gamma, phi
        Batch effects and dispersions, which are also the draws: (G,).
    draws
        Which of the other features each feature looks at, as positions in the list of
        the others: (G, N). None: all, in O(G² n).
    """
    if draws is None:
        draws = np.empty((0, 0), dtype=np.intp)
    new_gamma, new_phi = np.empty_like(gamma), np.empty_like(phi)
    _average(counts, mu, gamma, phi, draws, new_gamma, new_phi)
    return new_gamma, new_phi
