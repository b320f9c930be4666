"""Sums of sites together are as rows together."""

from __future__ import annotations

from dataclasses import fields

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import FeatureWarning
from tests.sites.examples import KEPT, corrected, gathered, only, parts, same_moments


@pytest.mark.filterwarnings("ignore:.* keep part of their batch effects")
@pytest.mark.parametrize("kept", [[], ["cell_type"], KEPT], ids=" ".join)
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("combat", {}),
        ("combat", {"mean_only": True}),
        ("combat", {"parametric": False}),
        ("combat", {"reference": "c"}),
        ("standardize", {}),
        ("standardize", {"reference": "b"}),
        ("remove_batch_effect", {}),
    ],
)
def test_sites_are_as_one(pooled, method, parameters, kept):
    schema = only(pooled, kept)
    whole = bc.fit(pooled, "batch", method=method, covariates=kept, **parameters)
    for exact, tolerance in ((True, 1e-10), (False, 1e-5)):
        sites = gathered(pooled, schema, exact=exact)
        together = bc.fit_moments(sites, method=method, **parameters)
        assert together.batches_ == whole.batches_
        np.testing.assert_allclose(
            corrected(pooled, together),
            corrected(pooled, whole),
            rtol=0,
            atol=tolerance,
        )
        for field in fields(whole.correction_):
            np.testing.assert_allclose(
                getattr(together.correction_, field.name),
                getattr(whole.correction_, field.name),
                rtol=tolerance,
                atol=tolerance,
            )


def test_the_order_of_sites_and_their_storage_do_not_matter(pooled, schema, tmp_path):
    sites = parts(pooled)
    sites[1].X = sp.csr_matrix(sites[1].X)
    sites[2].X = sp.csc_matrix(sites[2].X)
    paths = []
    for k, site in enumerate(sites):
        paths.append(tmp_path / f"{k}.npz")
        bc.moments(site, schema, exact=True).save(paths[-1])
    whole = bc.fit(pooled, "batch", covariates=KEPT)
    for order in (paths, paths[::-1]):
        together = bc.fit_moments(order)
        np.testing.assert_allclose(
            corrected(pooled, together), corrected(pooled, whole), atol=1e-10
        )


def test_missing_values_are_as_in_the_whole(pooled):
    adata = pooled.copy()
    rng = np.random.default_rng(1)
    adata.X[rng.random(adata.shape) < 0.04] = np.nan
    adata.X[adata.obs["batch"] == "b", 3] = np.nan
    whole = bc.fit(adata, "batch", method="combat")
    together = bc.fit_moments(gathered(adata, only(adata)))
    np.testing.assert_allclose(
        corrected(adata, together), corrected(adata, whole), atol=1e-10
    )


def test_a_site_may_name_and_order_things_its_own_way(pooled, schema):
    site = parts(pooled)[0]
    other = site[:, ::-1].copy()
    other.obs["run"] = other.obs.pop("batch").astype("category")
    expected = bc.moments(site, schema)
    found = bc.moments(other, schema, batch_key="run")
    same_moments(found.moments, expected.moments)
    another = site[:, :1].copy()
    another.var_names = ["another"]
    extra = anndata.concat([site, another], axis=1)
    extra.obs = site.obs
    extra.layers["log"], extra.X = extra.X, None
    with pytest.warns(
        FeatureWarning,
        match="1 of 31 features is not known to the schema, and left out",
    ):
        found = bc.moments(extra, schema, layer="log")
    same_moments(found.moments, expected.moments)


def test_a_correction_from_sites_lives_like_any_other(pooled, schema, tmp_path):
    fitted = bc.fit_moments(gathered(pooled, schema))
    fitted.save(tmp_path / "correction.npz")
    loaded = bc.load(tmp_path / "correction.npz")
    expected = corrected(pooled, fitted)
    np.testing.assert_array_equal(corrected(pooled, loaded), expected)
    alone = corrected(pooled[60:61], loaded)
    np.testing.assert_array_equal(alone, expected[60:61])
    assert list(fitted.get_feature_names_out()) == list(pooled.var_names)
    more = pooled[pooled.obs["batch"] == "a"].copy()
    fitted.partial_fit(more.X, batch=more.obs["batch"], covariates=more.obs[KEPT])
    assert fitted.moments_.rows.sum() == pooled.n_obs + more.n_obs


def test_sites_may_differ_in_having_missing_values(pooled):
    adata = pooled.copy()
    adata.X[2, 5] = np.nan
    sites = gathered(adata, only(adata))
    assert sites[0].moments.n.shape != sites[1].moments.n.shape
    whole = bc.fit(adata, "batch", method="standardize")
    together = bc.fit_moments(sites[::-1], method="standardize")
    np.testing.assert_allclose(
        corrected(adata, together), corrected(adata, whole), atol=1e-10
    )


def test_what_is_left_out_is_as_missing(pooled):
    """At one site of two that hold the batch, and in a batch that no other site has."""
    adata = pooled.copy()
    adata.X[:, [4, 9]] = 0
    adata.X[::3, [4, 9]] = 3
    rows = np.flatnonzero(adata.obs["site"] == 2)
    adata.X[rows, 4] = np.arange(len(rows)) == 8
    rows_b = np.flatnonzero(adata.obs["batch"] == "b")
    adata.X[rows_b, 9] = np.arange(len(rows_b)) > 27
    with pytest.warns(FeatureWarning) as told:
        sites = gathered(adata, only(adata, KEPT))
    said = [str(warning.message) for warning in told]
    assert "batch 'b': 1 (g9) in" in said[0]
    assert "batch 'c': 1 (g4) in" in said[1]
    together = bc.fit_moments(sites)
    missing = adata.copy()
    missing.X[rows, 4] = missing.X[rows_b, 9] = np.nan
    whole = bc.fit(missing, "batch", covariates=KEPT)
    for field in fields(whole.correction_):
        np.testing.assert_allclose(
            getattr(together.correction_, field.name),
            getattr(whole.correction_, field.name),
            rtol=1e-9,
            atol=1e-9,
        )
    y = corrected(adata, together)
    np.testing.assert_array_equal(y[:, 9], adata.X[:, 9])
    assert not np.array_equal(y[:, 4], adata.X[:, 4])


def test_no_feature_need_be_complete():
    """Levels are counted in each feature's own samples."""
    rng = np.random.default_rng(0)
    held = ["f"] * 5 + ["x"] * 20 + ["y"] * 5 + ["f"] * 5 + ["x"] * 5 + ["y"] * 20
    obs = pd.DataFrame(
        {
            "level": held + ["f", "x", "y"] * 5,
            "batch": ["a"] * 60 + ["b"] * 15,
            "site": [1] * 30 + [2] * 30 + [3] * 15,
        },
        index=[f"s{k}" for k in range(75)],
    )
    adata = anndata.AnnData(rng.normal(size=(75, 2)), obs=obs)
    adata.X[:30, 0] = adata.X[30:60, 1] = np.nan
    schema = only(adata, ["level"], batches=["a", "b"])
    found = bc.fit_moments(gathered(adata, schema), method="standardize")
    whole = bc.fit(adata, "batch", method="standardize", covariates="level")
    np.testing.assert_allclose(corrected(adata, found), corrected(adata, whole))
