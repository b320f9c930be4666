"""A matrix of obsm is corrected like any other, with its record."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import InputError, MissingKeyError, RepeatWarning

pytestmark = pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")


@pytest.fixture
def adata():
    adata = bc.datasets.bladder()[:, :200].copy()
    centred = adata.X - adata.X.mean(axis=0)
    adata.obsm["X_pca"] = np.linalg.svd(centred, full_matrices=False)[0][:, :8]
    return adata


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("combat", bc.ComBat, {"mean_only": True}),
        ("standardize", bc.Standardize, {}),
        ("remove_batch_effect", bc.RemoveBatchEffect, {}),
    ],
)
def test_it_is_what_the_estimator_makes_of_it(adata, name, method, options):
    before, x = adata.obsm["X_pca"].copy(), adata.X.copy()
    face = getattr(bc.pp, name)
    face(adata, "batch", obsm="X_pca", key_added="X_corrected", **options)
    expected = method(**options).fit_transform(before, batch=adata.obs["batch"])
    np.testing.assert_array_equal(adata.obsm["X_corrected"], expected)
    np.testing.assert_array_equal(adata.obsm["X_pca"], before)
    np.testing.assert_array_equal(adata.X, x)
    record = json.loads(adata.uns["batchcorr"]["obsm X_corrected"])
    assert (record["method"], record["n_vars"]) == (name, 8)
    assert record["source"] == "obsm X_pca"
    face(adata, "batch", obsm="X_pca", **options)
    np.testing.assert_array_equal(adata.obsm["X_pca"], expected)
    with pytest.warns(RepeatWarning, match="obsm 'X_pca' was corrected before"):
        face(adata, "batch", obsm="X_pca", **options)


def test_a_table_keeps_its_names_which_are_those_of_the_fit(adata):
    table = pd.DataFrame(adata.obsm["X_pca"][:, :3], adata.obs_names, ["CD3", "CD4", 8])
    labels = adata.obs["batch"]
    correction = bc.Standardize().fit(table, batch=labels)
    expected = correction.transform(table, batch=labels)
    adata.obsm["protein"] = table
    bc.pp.apply(adata, correction, batch_key="batch", obsm="protein", key_added="done")
    pd.testing.assert_frame_equal(
        adata.obsm["done"], pd.DataFrame(expected, table.index, table.columns)
    )
    bc.pp.standardize(adata, "batch", obsm="protein")
    np.testing.assert_allclose(adata.obsm["protein"], expected, atol=1e-12)
    adata.obsm["other"] = table[["CD4", "CD3", 8]]
    with pytest.raises(InputError, match="in another order"):
        bc.pp.apply(adata, correction, batch_key="batch", obsm="other")


def test_refusals(adata):
    with pytest.raises(MissingKeyError, match="Did you mean 'X_pca'"):
        bc.pp.combat(adata, "batch", obsm="X_pcb")
    adata.layers["log"] = adata.X.copy()
    with pytest.raises(InputError, match="not both"):
        bc.pp.combat(adata, "batch", obsm="X_pca", layer="log")
