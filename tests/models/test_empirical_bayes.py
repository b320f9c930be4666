"""The shrinkage at its edges: where nothing varies there is nothing to divide by."""

from __future__ import annotations

import numpy as np
import pytest

from batchcorr.models.empirical_bayes import prior_of, shrink

N = np.array([4.0])
GAMMA = np.array([0.5, -1.0, 2.0, 0.1])


def posterior(gamma, delta2):
    return shrink(gamma, delta2, delta2 * (N - 1), N, prior_of(gamma, delta2))


def test_no_spread_within_leaves_every_location_where_it_is():
    gamma, delta2, _ = posterior(GAMMA, np.zeros(4))
    np.testing.assert_array_equal(delta2, 0)
    np.testing.assert_allclose(gamma, GAMMA, rtol=1e-15)


def test_no_spread_at_all_is_the_one_location_there_is():
    gamma, delta2, _ = posterior(np.full(4, 0.3), np.zeros(4))
    np.testing.assert_array_equal(delta2, 0)
    np.testing.assert_allclose(gamma, 0.3)


@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-12])
def test_a_little_spread_comes_near_to_none(size):
    delta2 = size * np.array([1.0, 2.0, 0.5, 3.0])
    gamma, shrunken, _ = posterior(GAMMA, delta2)
    np.testing.assert_allclose(gamma, GAMMA, atol=3 * size)
    assert (shrunken > 0).all()
    assert shrunken.max() < 3 * size
