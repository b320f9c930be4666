"""The shrinkage at its edges, and of many batches at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from batchcorr.errors import ConvergenceWarning
from batchcorr.models import empirical_bayes
from batchcorr.models.empirical_bayes import prior_of, shrink

N = np.array([[4.0]])
GAMMA = np.array([[0.5, -1.0, 2.0, 0.1]])


def posterior(gamma, delta2):
    return shrink(gamma, delta2, delta2 * (N - 1), N, prior_of(gamma, delta2))


def test_no_spread_within_leaves_every_location_where_it_is():
    gamma, delta2, _ = posterior(GAMMA, np.zeros((1, 4)))
    np.testing.assert_array_equal(delta2, 0)
    np.testing.assert_allclose(gamma, GAMMA, rtol=1e-15)


def test_no_spread_at_all_is_the_one_location_there_is():
    gamma, delta2, _ = posterior(np.full((1, 4), 0.3), np.zeros((1, 4)))
    np.testing.assert_array_equal(delta2, 0)
    np.testing.assert_allclose(gamma, 0.3)


@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-12])
def test_a_little_spread_comes_near_to_none(size):
    delta2 = size * np.array([[1.0, 2.0, 0.5, 3.0]])
    gamma, shrunken, _ = posterior(GAMMA, delta2)
    np.testing.assert_allclose(gamma, GAMMA, atol=3 * size)
    assert (shrunken > 0).all()
    assert shrunken.max() < 3 * size


def many(seed=0, n_batches=7, n_features=30):
    """Effects of batches that differ in size and spread, and so in rounds."""
    rng = np.random.default_rng(seed)
    n = rng.integers(2, 12, (n_batches, 1)).astype(float)
    size = 10 ** rng.uniform(-2, 1, (n_batches, 1))
    gamma = size * rng.normal(0.3, 1, (n_batches, n_features))
    delta2 = size * rng.chisquare(n - 1, gamma.shape) / (n - 1)
    return gamma, delta2, delta2 * (n - 1), n


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_each_batch_stops_on_its_own(block, monkeypatch):
    """All batches together are as each alone, to the bit and the round."""
    monkeypatch.setattr(empirical_bayes, "BLOCK", block)
    effects = many()
    together = shrink(*effects, prior_of(*effects[:2]))
    rounds = []
    for b in range(7):
        own = [each[b : b + 1] for each in effects]
        alone = shrink(*own, prior_of(*own[:2]))
        rounds.append(alone[2].item())
        for all_of, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_of[b : b + 1], one)
    assert len(set(rounds)) > 3


def test_what_is_not_known_takes_no_part():
    """Neither in the prior of variances, nor in the iteration's end."""
    effects = many()
    rng = np.random.default_rng(1)
    known = rng.random(effects[0].shape) < 0.6
    effects[1][~known] = 1e3  # would move the prior, and hold the iteration up
    effects[2][~known] = 1e6
    found = shrink(*effects, prior_of(*effects[:2], known), known=known)
    for b in range(7):
        gamma, delta2, squares = (each[b : b + 1, known[b]] for each in effects[:3])
        location = prior_of(effects[0][b : b + 1], effects[0][b : b + 1])
        prior = replace(
            prior_of(gamma, delta2),
            location=location.location,
            location_variance=location.location_variance,
        )
        alone = shrink(gamma, delta2, squares, effects[3][b : b + 1], prior)
        np.testing.assert_allclose(found[0][b, known[b]], alone[0][0], rtol=1e-12)
        np.testing.assert_allclose(found[1][b, known[b]], alone[1][0], rtol=1e-12)
        assert found[2][b] == alone[2][0]


def test_batches_that_do_not_converge_are_counted(monkeypatch):
    effects = many()
    prior = prior_of(*effects[:2])
    rounds = shrink(*effects, prior)[2]
    most = int(np.sort(rounds)[3])
    monkeypatch.setattr(empirical_bayes, "MAX_ROUNDS", most)
    slow = int((rounds > most).sum())
    with pytest.warns(ConvergenceWarning, match=f"for {slow} of 7 batches"):
        found = shrink(*effects, prior)[2]
    np.testing.assert_array_equal(found, np.minimum(rounds, most + 1))
