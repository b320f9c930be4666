"""Features that ComBat leaves as they are are named, and counted in the record."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import batchcorr as bc
from batchcorr.errors import DesignError, FeatureWarning

BATCH = np.repeat(["a", "b"], 10)


@pytest.fixture
def x():
    x = np.random.default_rng(0).normal(8, 1, (20, 12))
    x[:10, [3, 7]] = 5.0
    return x


def test_constant_features_are_named_by_estimators(x):
    table = pd.DataFrame(x, columns=[f"g{k}" for k in range(12)])
    with pytest.warns(
        FeatureWarning, match=r"2 of 12 features \(g3, g7\) are constant"
    ):
        model = bc.ComBat().fit(table, batch=BATCH)
    assert model.summary()["features_unchanged"] == 2


def test_constant_features_are_named_by_the_functions_of_anndata(x):
    adata = AnnData(x)
    adata.obs["batch"], adata.var_names = BATCH, [f"gene{k}" for k in range(12)]
    with pytest.warns(FeatureWarning, match=r"\(gene3, gene7\) are constant"):
        bc.pp.combat(adata, "batch")
    assert '"features_unchanged": 2' in json.dumps(
        json.loads(adata.uns["batchcorr"]["X"])
    )


def test_values_all_alike_beside_a_missing_one_have_no_scale_unshrunk(x):
    x[0, [3, 7]] = np.nan
    with pytest.warns(FeatureWarning, match="2 of 12 features"):
        found = bc.ComBat(shrink=False).fit_transform(x, batch=BATCH)
    np.testing.assert_array_equal(found[:, [3, 7]], x[:, [3, 7]])
    assert np.isfinite(np.delete(found, [3, 7], axis=1)).all()


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_a_coefficient_that_is_0_but_for_rounding_scales_no_constant_batch():
    """The levels of the batch that is all alike differ in it by nothing."""
    batch = np.array([2, 0, 1, 0, 1, 0, 0, 0, 1, 0, 2, 1, 1, 2, 1, 1, 1, 1])
    level = np.array(list("bacabbacababaccaac"))
    x = [0.2, np.nan, 0.1, 0.2, 0, np.nan, 0.2, 0.2, 0.1, np.nan, 0.2, 0, np.nan, 0.3]
    x = np.array([[*x, np.nan, 0.1, np.nan, 0]]).T
    x = np.hstack([x, np.random.default_rng(0).normal(size=(18, 3))])
    table = pd.DataFrame({"level": level})
    found = bc.Standardize().fit(x, batch=batch, covariates=table)
    assert np.all(found.correction_.scale[:, 0] < 10)


def test_a_batch_that_is_missing_is_not_called_constant(x):
    x[:10] = np.nan
    with (
        pytest.warns(FeatureWarning, match="12 of 12 features cannot be corrected"),
        pytest.raises(DesignError, match="every value of batch a is missing"),
    ):
        bc.ComBat().fit(x, batch=BATCH)
