"""Rounded sums: of which precision, still the moments of samples, in whatever order."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

import batchcorr as bc
from batchcorr import arrays
from batchcorr.arrays.differing import differing
from batchcorr.design.design import Design
from batchcorr.errors import DesignError, FeatureWarning
from batchcorr.models.moments import Moments
from batchcorr.sites.basis import Basis
from batchcorr.sites.rounding import FINEST, digits_of, rounded
from tests.sites.examples import PEOPLE, UNITS, only, people, schema_of


def released(x, columns, codes=None):
    codes = np.zeros(len(x), int) if codes is None else codes
    design = Design.of(codes, int(codes.max()) + 1, columns)
    sums = arrays.moments(x, design)
    values = differing(x, design.codes, len(design.counts), 4)
    digits = digits_of(x, sums, values, design)
    return sums, rounded(sums, digits, design), digits


def columns_of(n, rng):
    """A level, a number, and a column that depends on both."""
    level, number = np.resize([0.0, 1], n), rng.uniform(20, 80, n)
    return np.column_stack([level, number, 3 * number - 50 * level])


def test_sums_are_told_to_a_millionth_and_no_finer():
    rng = np.random.default_rng(0)
    x = rng.normal(7, rng.uniform(0.1, 10, 200), (60, 200))
    columns = columns_of(60, rng)
    exact, given, digits = released(x, columns)
    assert (digits == FINEST).all()
    q = Basis.of(columns).directions(columns)
    assert q.shape == (60, 3)
    sd = np.sqrt(((x - q @ (q.T @ x)) ** 2).sum(axis=0) / 57)
    step = 2.0 ** (np.ceil(np.log2(sd)) - FINEST)
    assert (step < 2e-6 * sd).all()
    told = np.sqrt(60) * given.mean[0] / step
    np.testing.assert_allclose(told, np.rint(told), rtol=0, atol=1e-3)
    u = Basis.of(columns).coordinates(given.cross[0])[:2]
    np.testing.assert_allclose(u / step, np.rint(u / step), rtol=0, atol=1e-3)
    assert (np.abs(u - q[:, 1:].T @ x) < 0.51 * step).all()
    assert not np.array_equal(exact.squares, given.squares)
    np.testing.assert_allclose(exact.squares, given.squares, rtol=1e-5)
    np.testing.assert_array_equal(exact.gram, given.gram)
    np.testing.assert_array_equal(exact.columns, given.columns)


@pytest.mark.parametrize("n", [8, 20])
def test_rounded_sums_are_those_of_some_samples(n):
    """[S C; Cᵀ M] stays positive semidefinite, however coarse the rounding."""
    rng = np.random.default_rng(n)
    columns = columns_of(n, rng)
    x = columns[:, :2] @ rng.normal(size=(2, 50)) * 100 + rng.normal(size=(n, 50))
    _, given, digits = released(np.round(x, 1), columns)
    assert (digits < FINEST).any() or n == 20
    for feature in range(50):
        c = given.cross[0, :, feature]
        whole = np.block(
            [[given.gram[0, :, :, 0], c[:, None]], [c, given.squares[0, feature]]]
        )
        size = np.sqrt(np.diag(whole))
        assert np.linalg.eigvalsh(whole / np.outer(size, size)).min() > -1e-9


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(1)
    columns, codes = columns_of(60, rng), np.repeat([0, 1], 30)
    x = rng.normal(7, 1, (60, 100)).round(2)
    order = np.concatenate([rng.permutation(30), 30 + rng.permutation(30)])
    _, one, digits = released(x, columns, codes)
    _, two, again = released(x[order], columns[order], codes[order])
    np.testing.assert_array_equal(digits, again)
    for field in fields(Moments):
        np.testing.assert_allclose(
            getattr(one, field.name), getattr(two, field.name), rtol=1e-12, atol=1e-9
        )


def test_constant_features_stay_constant():
    """Their variance is 0 and their mean is exact: sites of one value merge to one."""
    x = np.random.default_rng(0).normal(size=(30, 3))
    x[:, 1] = 1 / 3
    _, given, _ = released(x, np.zeros((30, 0)))
    assert given.squares[0, 1] == 0
    assert given.mean[0, 1] == 1 / 3
    assert given.merge(given).squares[0, 1] == 0


def test_fewer_samples_decimals_or_values_are_told_to_fewer_digits():
    rng = np.random.default_rng(0)

    def fewest(x, p=1):
        return released(x, rng.uniform(20, 80, (len(x), p)))[2].min()

    normal = rng.normal(7, 1, (100, 20))
    assert fewest(normal) == fewest(normal[:40]) == FINEST
    assert fewest(normal[:12]) > fewest(normal[:8]) > fewest(normal[:8].round(1))
    assert fewest(normal[:20], p=2) > fewest(normal[:20], p=5)
    assert fewest(normal[:20].round(), p=2) < fewest(normal[:20].round(1), p=2)
    few = np.where(np.arange(100)[:, None] < 5, normal, 0)
    assert fewest(few) < FINEST


def test_numbers_of_few_samples_coarsen_even_in_a_large_batch():
    """A level and a dose that is 0 for all others tell of the treated alone."""
    rng = np.random.default_rng(0)
    treated = np.arange(100) < 6
    dose = np.where(treated, rng.uniform(1, 1.3, 100), 0)
    x = rng.normal(7, 1, (100, 10)).round(2)
    alone = released(x, rng.uniform(20, 80, (100, 2)))[2]
    nested = released(x, np.column_stack([treated, dose]).astype(float))[2]
    assert (alone == FINEST).all()
    assert (nested < FINEST - 4).all()


def test_whole_numbers_of_few_samples_are_left_out():
    adata = people(20)
    adata.X[:, 1] = np.arange(20) % 2
    message = r"batch 'a': 1 \(1\) with values or digits so few"
    with pytest.warns(FeatureWarning, match=message):
        sums = bc.sites.moments(adata, schema_of(adata, PEOPLE)).moments
    assert np.flatnonzero(sums.n[0] == 0).tolist() == [1]
    adata.X = (people(20).X > 5).astype(float)
    with pytest.raises(DesignError, match="every feature could disclose"):
        bc.sites.moments(adata, schema_of(adata, PEOPLE))


def test_features_that_covariates_explain_are_left_out():
    adata = people(60)
    adata.X[:, 3] = 2 + 0.1 * adata.obs["age"]
    with pytest.warns(FeatureWarning, match=r"1 \(3\) with values or digits so few"):
        sums = bc.sites.moments(adata, schema_of(adata, PEOPLE)).moments
    assert np.flatnonzero(sums.n[0] == 0).tolist() == [3]


def test_small_batches_of_sites_fit_to_what_the_warning_says():
    rng = np.random.default_rng(0)
    adata = people(24)
    adata.obs["batch"] = np.repeat(["a", "b"], 12)
    adata.X += rng.normal(size=(2, 8))[np.repeat([0, 1], 12)]
    adata.X = adata.X.round(2)
    schema = only(adata, ["sex"], units=UNITS, batches=["a", "b"])
    sites = [bc.sites.moments(adata[k : k + 12], schema) for k in (0, 12)]
    found = bc.pp.apply(adata, bc.sites.fit(sites), copy=True).X
    pooled = bc.pp.apply(adata, bc.fit(adata, "batch", covariates="sex"), copy=True).X
    assert 1e-6 < np.abs(found - pooled).max() < 1e-3
