"""Batches whose samples the covariates fit exactly: nothing is known of their variance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import BatchSizeWarning, DesignError

BATCH = np.array(["pilot"] * 4 + ["r1"] * 9 + ["r2"] * 11)
GROUP = pd.DataFrame({"group": list("ABCD" + "A" * 20)})
SCALING = [bc.ComBat(), bc.ComBat(parametric=False), bc.Standardize()]

pytestmark = pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")
scaling = pytest.mark.parametrize("method", SCALING, ids=str)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def x(rng):
    return (
        rng.normal(8, 1.5, (24, 60))
        + rng.normal(size=(3, 60))[[0] * 4 + [1] * 9 + [2] * 11]
    )


def fitted(method, x, group=GROUP):
    with pytest.warns(BatchSizeWarning, match="every sample of batch 'pilot'"):
        return method.fit(x, batch=BATCH, covariates=group)


@scaling
def test_it_is_named_moved_and_not_scaled(method, x):
    model = fitted(method, x)
    np.testing.assert_array_equal(model.correction_.scale[0], 1)
    assert np.isfinite(model.transform(x, batch=BATCH, covariates=GROUP)).all()


@scaling
def test_new_samples_of_it_are_not_blown_up(method, x, rng):
    new = rng.normal(8, 1.5, (4, 60))
    found = fitted(method, x).transform(new, batch=BATCH[:4], covariates=GROUP[:4])
    assert np.abs(found - new).max() < 10


@pytest.mark.parametrize(
    ("method", "name"), [(SCALING[0], "delta_hat"), (SCALING[2], "sd")]
)
def test_its_values_say_nothing_of_the_variances_of_others(method, name, x, rng):
    other = x.copy()
    other[:4] = rng.normal(0, 100, (4, 60))
    found = [fitted(method, values).details_[name][1:] for values in (x, other)]
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_combat_locates_it_as_a_batch_of_one_sample(x):
    found = fitted(bc.ComBat(), x).details_
    gamma = found["gamma_hat"][0]
    tau2 = gamma.var(ddof=1)
    expected = (tau2 * gamma + gamma.mean()) / (tau2 + 1)
    np.testing.assert_allclose(found["gamma_star"][0], expected, rtol=1e-12)
    np.testing.assert_array_equal(found["delta_star"][0], 1)


def test_standardize_pools_the_variance_of_the_others(x):
    """RSS / (n - B - p) with the explained batch left out: the same samples less."""
    model = fitted(bc.Standardize(), x)
    alone = bc.Standardize().fit(x[4:], batch=BATCH[4:])
    np.testing.assert_allclose(model.aim_.scale, alone.aim_.scale, rtol=1e-12)


@scaling
@pytest.mark.filterwarnings(
    "ignore:1 of 60 features .x49. keep part"
)  # 3.4 becomes 0.3
def test_with_missing_values_it_is_so_feature_by_feature(method, x):
    """A fifth sample of the pilot has a value of half of the features only."""
    x = np.vstack([x[:1] + np.random.default_rng(1).normal(size=60), x])
    x[0, ::2] = np.nan
    batch = np.concatenate([BATCH[:1], BATCH])
    group = pd.concat([GROUP[:1], GROUP], ignore_index=True)
    with pytest.warns(BatchSizeWarning, match=r"'pilot' \(50% of features\)"):
        model = method.fit(x, batch=batch, covariates=group)
    scale = model.correction_.scale[0]
    np.testing.assert_array_equal(scale[::2], 1)
    assert (scale[1::2] != 1).all()
    assert np.isfinite(model.correction_.shift).all()


@pytest.mark.parametrize("method", [bc.ComBat, bc.Standardize])
def test_it_cannot_be_the_reference(method, x):
    with pytest.raises(
        DesignError, match="every sample of the reference batch 'pilot'"
    ):
        method(reference="pilot").fit(x, batch=BATCH, covariates=GROUP)


def test_a_feature_fitted_to_rounding_in_one_batch_stays_as_it_is(x):
    age = np.linspace(20, 70, 24)
    x[:, 3] = 0.1 * age + np.where(
        BATCH == "r2", np.random.default_rng(0).normal(size=24), 0
    )
    x[13:, 3] -= (
        np.polyval(np.polyfit(age[13:], x[13:, 3], 1), age[13:]) - 0.1 * age[13:]
    )
    model = bc.ComBat().fit(x, batch=BATCH, covariates=pd.DataFrame({"age": age}))
    np.testing.assert_array_equal(np.flatnonzero(~model.aim_.adjustable), [3])


@pytest.mark.parametrize("parametric", [True, False])
def test_a_value_alone_in_an_added_batch_is_located(parametric):
    """It tells no variance: its feature is moved as in a batch of one sample."""
    rng = np.random.default_rng(3)
    x, batch = rng.normal(8, 1, (20, 40)), np.arange(20) % 2
    new = rng.normal(9, 1, (3, 40))
    new[:2, :5] = np.nan
    model = bc.ComBat(parametric=parametric).fit(x, batch=batch)
    grown = model.add_batches(new, batch=["new"] * 3)
    np.testing.assert_array_equal(grown.correction_.scale[2, :5], 1)
    assert (grown.correction_.scale[2, 5:] != 1).all()
    assert np.isfinite(grown.correction_.shift).all()
