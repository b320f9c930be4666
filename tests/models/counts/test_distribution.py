"""The negative binomial distribution against SciPy's, and its quantile map against R's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from batchcorr.models.counts import distribution


def test_quantile_map_is_that_of_r(golden):
    case = golden("match_quantiles")
    column = {
        key: case[key].astype(float)[:, None]
        for key in ("y", "old_mu", "old_phi", "new_mu")
    }
    out = np.empty_like(column["y"])
    distribution.match_quantiles(
        column["y"],
        column["old_mu"],
        column["old_phi"],
        column["new_mu"],
        case["new_phi"].astype(float),
        np.full_like(out, np.inf),
        out,
    )
    np.testing.assert_array_equal(out[:, 0], case["expected"])


def test_distribution_equals_scipys():
    rng = np.random.default_rng(0)
    mu, phi = 10 ** rng.uniform(-2, 4, 400), 10 ** rng.uniform(-4, 1.5, 400)
    k = np.floor(mu * rng.uniform(0, 3, 400))
    r = 1 / phi
    theirs = special.betainc(r, k + 1, r / (r + mu))
    ours = [distribution.cdf(*args) for args in zip(k, mu, phi, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    masses = [distribution.pmf(*args) for args in zip(k, mu, phi, strict=True)]
    np.testing.assert_allclose(masses, stats.nbinom.pmf(k, r, r / (r + mu)), rtol=1e-9)
    possible = (np.array(ours) > 1e-250) & (np.array(ours) < 1 - 1e-4)
    back = [
        distribution.quantile(p, m, f, guess)
        for guess in (0.0, 1e3, 1e6)
        for p, m, f in zip(
            np.array(ours)[possible], mu[possible], phi[possible], strict=True
        )
    ]
    np.testing.assert_array_equal(back, np.tile(k[possible], 3))


@pytest.mark.parametrize("mu", [0.3, 40.0, 2e4])
def test_small_dispersions_tend_to_poisson(mu):
    for k in np.floor(mu + np.sqrt(mu) * np.array([-2.0, 0.0, 1.5])):
        if k >= 0:
            found = distribution.cdf(k, mu, 1e-12)
            np.testing.assert_allclose(found, stats.poisson.cdf(k, mu), rtol=1e-7)


def test_without_batch_effects_counts_stay():
    """Equal distributions map onto themselves: no knife edge between y and y + 1."""
    rng = np.random.default_rng(2)
    mu, phi = rng.uniform(2, 500, (40, 1)), rng.uniform(0.01, 2, 40)
    counts = rng.negative_binomial(
        1 / phi[:, None], 1 / (1 + phi[:, None] * mu), (40, 9)
    )
    out = np.empty(counts.shape)
    distribution.match_quantiles(
        counts.astype(float),
        np.broadcast_to(mu, counts.shape).copy(),
        np.broadcast_to(phi[:, None], counts.shape).copy(),
        np.broadcast_to(mu, counts.shape).copy(),
        phi,
        np.full(counts.shape, np.inf),
        out,
    )
    np.testing.assert_array_equal(out, counts)
