"""Shrinkage of batch effects against its formula."""

from __future__ import annotations

import numpy as np
from scipy import stats

from batchcorr.models.counts.shrinkage import average_likely_counts


def test_shrinkage_is_the_weighted_mean_of_the_others():
    rng = np.random.default_rng(1)
    mu = rng.uniform(3, 8, (6, 4))
    counts = rng.poisson(mu).astype(float)
    gamma, phi = rng.normal(size=6), rng.uniform(0.05, 0.5, 6)
    new_gamma, new_phi = average_likely_counts(counts, mu, gamma, phi)
    for g in range(6):
        others = [h for h in range(6) if h != g]
        weights = [
            stats.nbinom.pmf(counts[g], 1 / phi[h], 1 / (1 + phi[h] * mu[h])).prod()
            for h in others
        ]
        np.testing.assert_allclose(
            new_gamma[g], np.average(gamma[others], weights=weights), rtol=1e-9
        )
        np.testing.assert_allclose(
            new_phi[g], np.average(phi[others], weights=weights), rtol=1e-9
        )
