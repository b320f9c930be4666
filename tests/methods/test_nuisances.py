"""Nuisances are removed from their mean over the fitted samples on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, FeatureWarning

BATCH = np.repeat(["a", "b", "c"], 12)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def x(rng):
    return rng.normal(8, 1, (36, 20)) + rng.normal(size=(3, 20)).repeat(12, axis=0)


@pytest.fixture
def table(rng):
    kit = pd.Categorical(rng.permutation(["k1", "k2", "k3"] * 12))
    return pd.DataFrame({"year": rng.integers(2015, 2025, 36) * 1.0, "kit": kit})


def test_without_batches_every_feature_keeps_its_mean(x, table):
    y = bc.RemoveBatchEffect().fit_transform(x, nuisance=table)
    np.testing.assert_allclose(y.mean(axis=0), x.mean(axis=0), rtol=1e-12)


def test_with_batches_the_mean_of_batch_means_stays(x, table):
    """Each batch's mean is moved by its own effect; of the nuisance, by that of w - w̄."""
    model = bc.RemoveBatchEffect().fit(x, batch=BATCH, nuisance=table)
    y = model.transform(x, batch=BATCH, nuisance=table)
    np.testing.assert_allclose(y.mean(axis=0), x.mean(axis=0), rtol=1e-10)


def test_missing_values_keep_the_mean_of_what_was_observed(x, table, rng):
    x[rng.random(x.shape) < 0.1] = np.nan
    y = bc.RemoveBatchEffect().fit_transform(x, nuisance=table)
    np.testing.assert_allclose(np.nanmean(y, axis=0), np.nanmean(x, axis=0), rtol=1e-11)


@pytest.mark.parametrize("by_value", [False, True])
def test_weights_keep_the_weighted_mean(x, table, rng, by_value):
    weights = rng.uniform(0.2, 3, x.shape if by_value else len(x))
    y = bc.RemoveBatchEffect().fit_transform(x, nuisance=table, weights=weights)
    every = np.broadcast_to(weights.reshape(len(x), -1), x.shape)
    means = [np.average(values, axis=0, weights=every) for values in (x, y)]
    np.testing.assert_allclose(*means, rtol=1e-11)


def test_a_further_batch_factor_keeps_contrasts_that_sum_to_zero(x, table):
    factors = pd.DataFrame({"batch": BATCH, "kit": table["kit"].astype(str)})
    alone = bc.RemoveBatchEffect().fit(x, batch=factors)
    both = bc.RemoveBatchEffect().fit(x, batch=factors, nuisance=table[["year"]])
    eta = both.correction_.nuisance
    assert eta.shape == (3, 20)
    added = both.correction_.shift[0] + both.details_["effect"][0]
    np.testing.assert_allclose(added, table["year"].mean() * eta[-1], rtol=1e-9)
    level = alone.correction_.shift + alone.details_["effect"]
    np.testing.assert_allclose(level, 0, atol=1e-12)


def test_a_saved_correction_and_new_batches_hold_the_same_level(
    x, table, rng, tmp_path
):
    first = bc.RemoveBatchEffect().fit(x, batch=BATCH, nuisance=table)
    first.save(tmp_path / "c.npz")
    new = rng.normal(11, 1, (9, 20))
    more = table[:9].reset_index(drop=True)
    grown = bc.load(tmp_path / "c.npz").add_batches(new, batch=["d"] * 9, nuisance=more)
    y = grown.transform(new, batch=["d"] * 9, nuisance=more)
    np.testing.assert_allclose(y.mean(axis=0), first.aim_.location, rtol=1e-10)
    level = grown.details_["effect"] + grown.correction_.shift  # w̄ η
    np.testing.assert_allclose(level, np.tile(level[0], (4, 1)), atol=1e-10)


def test_a_nuisance_is_redundant_by_all_samples_not_by_those_of_one_feature():
    """Samples 3 and 8 alone tell run from batch, and no feature has both."""
    x = np.random.default_rng(0).normal(size=(9, 3))
    x[3], x[8, :2], x[[0, 5, 7], 2] = np.nan, np.nan, np.nan
    batch, run = list("aaaabbbba"), list("pppqqqqqq")
    correct = bc.RemoveBatchEffect()
    with pytest.raises(DesignError, match="No feature has enough observed values"):
        correct.fit(x[:, :2], batch=batch, nuisance=pd.DataFrame({"run": run}))
    with pytest.warns(FeatureWarning, match="2 of 3 features"):
        correct.fit(x, batch=batch, nuisance=pd.DataFrame({"run": run}))
    assert correct.aim_.adjustable.tolist() == [False, False, True]
