"""Beside scanpy: a step of its pipelines."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError
from tests.pp.annotated import annotated, values


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_a_step_of_a_scanpy_pipeline(convert):
    rng = np.random.default_rng(6)
    depth = rng.lognormal(0, 0.3, (90, 1))
    batch = np.repeat(["x", "y", "z"], 30)
    effect = rng.lognormal(0, 0.4, (3, 40))[np.repeat([0, 1, 2], 30)]
    counts = rng.poisson(8 * depth * effect).astype(np.float32)
    adata = ad.AnnData(
        convert(counts),
        obs=pd.DataFrame(
            {"batch": pd.Categorical(batch)}, index=[f"c{i}" for i in range(90)]
        ),
        var=pd.DataFrame(index=[f"g{j}" for j in range(40)]),
    )
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    separate = spread_between(adata.X, batch)
    bc.pp.combat(adata, "batch", dense=True)
    assert adata.X.dtype == np.float32
    assert spread_between(adata.X, batch) < 0.05 * separate
    sc.pp.pca(adata, n_comps=5)
    assert adata.obsm["X_pca"].shape == (90, 5)
    assert np.isfinite(adata.obsm["X_pca"]).all()
    assert adata.uns["log1p"] is not None


def spread_between(x, batch):
    """Return the mean variance of batch means."""
    x = x.toarray() if sp.issparse(x) else x
    return np.var([x[batch == b].mean(axis=0) for b in "xyz"], axis=0).mean()


@pytest.mark.filterwarnings("ignore::UserWarning:scanpy.*")
def test_as_scanpy_s_combat():
    adata = annotated()
    expected = sc.pp.combat(adata, "batch", inplace=False)
    bc.pp.combat(adata, "batch")
    correlation = np.corrcoef(adata.X.ravel(), expected.ravel())[0, 1]
    assert correlation > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "batch"}, "no option key=: use batch_key="),
        ({"batch_key": "batch", "inplace": False}, "inplace=.*copy=True.*key_added="),
        ({"batch_key": "batch", "covariate": "sex"}, "Did you mean 'covariates'"),
        ({}, "batch_key must name the column"),
    ],
)
def test_options_of_scanpy_s_combat_are_translated(options, message):
    adata = annotated()
    with pytest.raises(InputError, match=message):
        bc.pp.combat(adata, **options)
    np.testing.assert_array_equal(adata.X, values())
