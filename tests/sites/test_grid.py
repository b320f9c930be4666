"""On what grid values lie, and how many bits they can hold."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from batchcorr.arrays.differing import differing
from batchcorr.sites.grid import MOST, bits_of_values, grid_of


def grid(x):
    codes = np.zeros(x.shape[0], np.int32)
    values = differing(x, codes, 1, 4)
    mean = np.asarray(x.mean(axis=0)).reshape(1, -1)
    return grid_of(x, codes, values, mean)[0], values


def counts(n=20, n_features=300):
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(1, 30, n_features) + 1, (n, n_features)).astype(float)


@pytest.mark.parametrize("decimals", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_decimals_are_a_grid(decimals, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(7, 1, (12, 30)).round(decimals).astype(dtype)
    np.testing.assert_allclose(grid(x)[0], 10.0**-decimals)
    if decimals:
        assert not grid(rng.normal(7, 1, (12, 30)).astype(dtype))[0].any()


LIBRARIES = np.random.default_rng(1).uniform(0.5, 2, (20, 1))
IN_THE_LOG = {
    "log2(count + 1)": (lambda c: np.log2(c + 1), 2, 1),
    "log1p of scaled counts": (lambda c: np.log1p(c * LIBRARIES), np.e, LIBRARIES),
    "log2 CPM of voom": (lambda c: np.log2((c + 0.5) * LIBRARIES), 2, LIBRARIES),
    "log2 CPM of edgeR": (lambda c: np.log2(c * LIBRARIES + 2), 2, LIBRARIES),
    "log10": (lambda c: np.log10(c * LIBRARIES + 1), 10, LIBRARIES),
}


@pytest.mark.parametrize("name", IN_THE_LOG)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_are_found_in_the_log(name, dtype):
    make, base, step = IN_THE_LOG[name]
    x = make(counts()).astype(dtype)
    found, _ = grid(x)
    expected = np.median(step) / (np.log(base) * base ** x.mean(axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_counts_are_found_in_sparse_matrices():
    x = np.log1p(
        counts() * LIBRARIES * (np.random.default_rng(0).random((20, 300)) < 0.3)
    )
    found, _ = grid(sp.csr_matrix(x))
    assert (found > 0).all()
    np.testing.assert_allclose(found, grid(x)[0], rtol=1e-12)


def test_bits_bound_what_values_hold():
    """Whole numbers from 0 to 7, each as often: three bits; normal ones to 0.01: 8.7."""
    rng = np.random.default_rng(0)
    x = np.stack([np.resize(np.arange(8.0), 8000), rng.normal(0, 1, 8000)], axis=1)
    x[:, 1] = x[:, 1].round(2)
    found, values = grid(x)
    n = np.full((1, 2), 8000)
    bits = bits_of_values(values, found[None], x.std(axis=0)[None], n).on_average
    probability = np.unique(x[:, 1], return_counts=True)[1] / 8000
    np.testing.assert_allclose(bits[0, 0], 3, atol=2e-3)
    np.testing.assert_allclose(
        bits[0, 1], np.log2(np.sqrt(2 * np.pi * np.e) / 0.01), atol=0.1
    )
    assert bits[0, 1] > -(probability * np.log2(probability)).sum()
    unknown = bits_of_values(values, 0 * found[None], x.std(axis=0)[None], n).on_average
    assert 0.99 * MOST < unknown[0, 1] <= MOST


def test_bits_of_few_values_are_of_what_differs_and_where():
    x = np.zeros((100, 1))
    x[:8, 0] = [1, 2, 3, 4, 5, 6, 7, 8]
    found, values = grid(x)
    bits = bits_of_values(
        values, found[None], x.std(axis=0)[None], np.full((1, 1), 100)
    )
    where = np.log2(186087894300)  # 100 over 8
    assert where / 100 < bits.on_average[0, 0] < (where + 8 * np.log2(9.1)) / 100
