"""Lattice attacks on the sums of a site: exact sums give all values away, released none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr import arrays
from batchcorr.arrays.differing import differing
from batchcorr.design.design import Design
from batchcorr.errors import DesignError
from batchcorr.sites.gather import gather
from batchcorr.sites.rounding import COARSEST, digits_of, rounded
from tests.sites.lattice import attack, others, short_vectors, told_by

FEATURES = 3


def people(n, p, decimals, seed=0):
    """Values with few decimals, and the numbers that somebody knows of each person."""
    rng = np.random.default_rng([seed, n, p])
    z = rng.uniform(20, 80, (n, p))
    return np.round(rng.normal(7, 1, (n, FEATURES)), decimals), z


def exact_and_released(x, z):
    """The moments of one batch, exact and rounded, without another guard; the digits."""
    design = Design.of(np.zeros(len(x)), 1, z)
    exact = arrays.moments(x, design)
    values = differing(x, design.codes, 1, 4)
    digits = digits_of(x, exact, values, design)
    return exact, rounded(exact, digits, design), digits[0]


def found(sums, x, z, digits, decimals):
    """Share of the values of each feature that an attack finds."""
    grid = 10.0**-decimals
    reduced = short_vectors(z, digits)
    guesses = [
        attack(reduced, z, told_by(sums, z, feature), grid)
        for feature in range(FEATURES)
    ]
    return [
        (abs(guess - own) < grid / 2).mean()
        for guess, own in zip(guesses, x.T, strict=True)
    ]


@pytest.mark.parametrize("decimals", [1, 2])
@pytest.mark.parametrize("p", [1, 2, 5])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_lattice_reduction_finds_values_in_exact_sums_only(n, p, decimals):
    """Where p + 1 equations hold more than the n values, all are found, to the last."""
    p = min(p, n - 2)
    x, z = people(n, p, decimals)
    exact, released, digits = exact_and_released(x, z)
    if 34 * p > 1.2 * n * (2 + np.log2(10) * decimals):
        assert found(exact, x, z, 50, decimals) == [1] * FEATURES
    told = digits >= COARSEST  # the others are left out of the sums
    assert told.all() or n == 5 or p == 5
    if told.any():
        right = found(released, x, z, digits.max(), decimals)
        assert np.mean(right, where=told) < 0.3


def test_what_is_released_is_that_of_many_data_sets():
    """Other values on the same grid, of which every number told is the same."""
    x, z = people(10, 1, 1)
    _, released, digits = exact_and_released(x, z)
    rng = np.random.default_rng(0)
    tries = others(short_vectors(z, digits[0]), x[:, 0], 0.1, rng)
    design = Design.of(np.zeros(10), 1, z)
    sums = arrays.moments(np.ascontiguousarray(tries.T), design)
    sums = rounded(sums, np.full(sums.mean.shape, digits[0]), design)
    same = np.isclose(sums.mean[0], released.mean[0, 0], rtol=1e-12)
    same &= np.isclose(sums.squares[0], released.squares[0, 0], rtol=1e-12)
    same &= np.isclose(sums.cross[0, 0], released.cross[0, 0, 0], rtol=1e-12)
    agreeing = np.unique(tries[same].round(1), axis=0)
    assert len(agreeing) > 50
    assert (agreeing.std(axis=0) > 0.1).all()


@pytest.mark.parametrize("decimals", [1, 2])
@pytest.mark.parametrize(("n", "p", "seed"), [(10, 1, 2), (20, 1, 0), (20, 2, 0)])
@pytest.mark.filterwarnings("ignore:Sums over few values are rounded")
def test_what_a_site_sends_resists(n, p, seed, decimals):
    x, z = people(n, p, decimals, seed)
    assert np.mean(found(sent(x, z), x, z, 20, decimals)) < 0.2


def sent(x, z, **options):
    columns = [f"z{k}" for k in range(z.shape[1])]
    features = [f"g{k}" for k in range(x.shape[1])]
    kept = dict.fromkeys(columns, "numeric")
    schema = bc.Schema(features, ["a"], units="log2", covariates=kept)
    table = pd.DataFrame(z, columns=columns)
    return gather(x, schema, ["a"] * len(x), table, **options).moments


@pytest.mark.parametrize(("n", "p"), [(5, 1), (5, 2), (10, 2), (10, 5), (20, 5)])
def test_where_exact_sums_would_tell_all_a_site_sends_none(n, p):
    """A batch with too few samples for its columns is refused before any rounding."""
    x, z = people(n, p, 2)
    with pytest.raises(DesignError, match="disclose values of single persons"):
        sent(x, z)


def test_exact_sums_are_sent_where_that_is_said():
    x, z = people(20, 1, 1)
    exact = arrays.moments(x, Design.of(np.zeros(20), 1, z))
    np.testing.assert_array_equal(sent(x, z, exact=True).cross, exact.cross)


def test_counts_in_the_log_of_known_libraries_are_values_on_a_grid():
    """Log CPM of genes with few counts hold few bits, whatever their decimals."""
    rng = np.random.default_rng(0)
    library = rng.uniform(5e5, 2e6, 12)
    counts = rng.poisson(np.linspace(3, 3000, 400), (12, 400))
    x = np.log2((counts + 0.5) / library[:, None] * 1e6)
    z = rng.uniform(20, 80, (12, 1))
    _, _, digits = exact_and_released(x, z)
    _, _, without = exact_and_released(x + rng.normal(0, 1e-3, x.shape), z)
    assert digits[:20].max() < digits[-20:].min() <= without.min()
