"""Shares of explained variance are those of plain least squares, one gene at a time."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from batchcorr.errors import DesignError, InputError, MissingKeyError
from batchcorr.metrics import variance_explained


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def data(rng):
    """60 samples × 30 genes with effects of batch, group and age."""
    batch = np.repeat(["a", "b", "c"], [25, 20, 15])
    obs = pd.DataFrame(
        {
            "batch": batch,
            "group": rng.choice(["x", "y", "z"], size=60),
            "age": rng.normal(50, 9, size=60),
        }
    )
    x = rng.normal(size=(60, 30)) + 1e4
    x += np.where(batch == "b", 1.5, 0)[:, None] * rng.normal(size=30)
    x += np.where(obs["group"] == "y", 1.0, 0)[:, None] * rng.normal(size=30)
    x += 0.05 * obs["age"].to_numpy()[:, None] * rng.normal(size=30)
    return x, obs


def columns_of(obs, names):
    parts = [
        pd.get_dummies(obs[name], drop_first=True, dtype=float)
        if not pd.api.types.is_numeric_dtype(obs[name])
        else obs[[name]]
        for name in names
    ]
    return np.column_stack([np.ones(len(obs)), *parts])


def rss_and_spare(y, obs, names):
    """Fit one gene by least squares; samples without a value take no part."""
    seen = ~np.isnan(y)
    design = columns_of(obs, names)[seen]
    beta, _, rank, _ = np.linalg.lstsq(design, y[seen])
    return ((y[seen] - design @ beta) ** 2).sum(), seen.sum() - rank


def expected(x, obs, covariates):
    """Return the three shares, each by its own formula."""

    def share(full, part):
        ratios = []
        for y in x.T:
            rss_full, df_full = rss_and_spare(y, obs, full)
            rss_part, df_part = rss_and_spare(y, obs, part)
            ratios.append(1 - (rss_full / df_full) / (rss_part / df_part))
        return np.mean(ratios)

    both = ["batch", *covariates]
    return share(["batch"], []), share(both, ["batch"]), share(both, covariates)


def shares(result):
    return result.batch, result.covariates, result.batch_beyond_covariates


@pytest.mark.parametrize(
    "covariates", [[], ["group"], ["age"], ["group", "age"]], ids=" + ".join
)
def test_equals_least_squares(data, covariates):
    x, obs = data
    table = obs[covariates] if covariates else None
    found = variance_explained(x, obs["batch"], covariates=table)
    np.testing.assert_allclose(shares(found), expected(x, obs, covariates), rtol=1e-7)
    assert found.n_features == 30


def test_equals_least_squares_where_values_are_missing(data, rng):
    x, obs = data
    x[rng.random(x.shape) < 0.1] = np.nan
    found = variance_explained(x, obs["batch"], covariates=obs[["group"]])
    np.testing.assert_allclose(shares(found), expected(x, obs, ["group"]), rtol=1e-7)


def test_without_covariates_batch_is_all_there_is(data):
    x, obs = data
    found = variance_explained(x, obs["batch"])
    assert found.covariates == 0
    assert found.batch_beyond_covariates == found.batch


def test_sparse_and_float32_are_the_same(data):
    x, obs = data
    x = np.where(x > 1e4, x - 1e4, 0)
    wanted = shares(variance_explained(x, obs["batch"], covariates=obs[["group"]]))
    for kind in (sp.csr_matrix, sp.csc_array, np.float32, np.asfortranarray):
        found = variance_explained(kind(x), obs["batch"], covariates=obs[["group"]])
        np.testing.assert_allclose(shares(found), wanted, rtol=1e-5)


def test_no_effect_reads_as_zero_and_is_not_clipped(rng):
    x = rng.normal(size=(40, 4000))
    batch, group = np.arange(40) % 8, (np.arange(40) // 8 % 3).astype(str)
    found = variance_explained(x, batch, covariates=pd.Series(group, name="group"))
    np.testing.assert_allclose(shares(found), 0, atol=0.01)
    single = [
        variance_explained(x[:, [gene]], batch).batch_beyond_covariates
        for gene in range(50)
    ]
    assert min(single) < 0 < max(single)


def test_an_effect_is_found_at_its_size(rng):
    n, batch = 20_000, np.arange(20_000) % 2
    x = rng.normal(size=(n, 5)) + 2 * batch[:, None]  # variance 1 of 2
    assert variance_explained(x, batch).batch == pytest.approx(0.5, abs=0.02)


def test_batch_that_says_all_is_one(rng):
    batch = np.repeat([0, 1, 2], 4)
    x = np.column_stack([batch, batch**2, rng.normal(size=12)]).astype(float)
    found = variance_explained(x[:, :2], batch, covariates=np.arange(12.0)[:, None])
    assert found.batch == 1
    assert np.isnan(found.covariates)  # nothing varies inside a batch


def test_constant_features_are_left_out(data):
    x, obs = data
    more = np.column_stack([x, np.full(60, 3.3), np.zeros(60)])
    found = variance_explained(more, obs["batch"], covariates=obs[["age"]])
    wanted = variance_explained(x, obs["batch"], covariates=obs[["age"]])
    assert found == wanted


def test_rows_may_come_in_any_order(data, rng):
    x, obs = data
    order = rng.permutation(60)
    one = variance_explained(x, obs["batch"], covariates=obs[["group"]])
    other = variance_explained(
        x[order], obs["batch"].iloc[order], covariates=obs[["group"]].iloc[order]
    )
    np.testing.assert_allclose(shares(other), shares(one), rtol=1e-9)


@pytest.mark.parametrize("covariates", ["group", ["group", "age"], "~ group + age"])
def test_an_anndata_and_its_layers(data, covariates):
    x, obs = data
    obs.index = obs.index.map(str)
    adata = anndata.AnnData(np.zeros_like(x), obs=obs, layers={"log": x})
    names = ["group"] if covariates == "group" else ["group", "age"]
    found = variance_explained(adata, "batch", covariates=covariates, layer="log")
    wanted = variance_explained(x, obs["batch"], covariates=obs[names])
    np.testing.assert_allclose(shares(found), shares(wanted), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"batch": "bach"}, MissingKeyError, "Did you mean 'batch'"),
        ({"batch": ["batch"]}, InputError, "name of one column"),
        ({"layer": "raw"}, MissingKeyError, "no layer 'raw'"),
        ({"covariates": "site"}, DesignError, "'site' is confounded with batch"),
        ({"covariates": "batch"}, DesignError, "cannot be a covariate"),
        ({"batch": "one"}, DesignError, "only one batch"),
    ],
)
def test_what_cannot_be_told_is_refused(data, change, error, match):
    x, obs = data
    obs.index = obs.index.map(str)
    obs["one"], obs["site"] = "same", np.where(obs["batch"] == "a", "here", "there")
    given = {"data": anndata.AnnData(x, obs=obs), "batch": "batch"} | change
    with pytest.raises(error, match=match):
        variance_explained(**given)


def test_a_matrix_has_no_layers(data):
    with pytest.raises(InputError, match="ndarray has no layers"):
        variance_explained(data[0], data[1]["batch"], layer="log")


def test_nothing_to_explain_is_refused():
    with pytest.raises(InputError, match="No feature varies"):
        variance_explained(np.ones((4, 3)), [1, 1, 2, 2])
    x = np.arange(8.0).reshape(4, 2) ** 2
    with pytest.raises(DesignError, match="too few samples"):
        variance_explained(x, [1, 1, 2, 2], covariates=np.eye(4)[:, [0, 3]])
    with pytest.raises(DesignError, match="leave nothing to compare"):
        variance_explained(x[:3], [1, 2, 3])
