"""Surrogate variables on AnnData: where they go, and that every face takes them by name."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    CountsWarning,
    CovariateWarning,
    InputError,
    MissingKeyError,
)
from tests.cli.commands import done


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    hidden, group = rng.permutation(np.repeat([0, 1], 12)), np.tile(["a", "b"], 12)
    x = rng.normal(6, 1, (24, 300))
    x[:, :120] += 2 * hidden[:, None]
    x[:, 100:140] += 1.5 * (group == "b")[:, None]
    obs = pd.DataFrame(
        {
            "group": group,
            "hidden": hidden.astype(str),
            "person": list("abcdefghijkl") * 2,
        },
        index=[f"s{i}" for i in range(24)],
    )
    var = pd.DataFrame(index=[f"g{j}" for j in range(300)])
    var["control"] = np.arange(300) < 60
    return ad.AnnData(x, obs=obs, var=var)


def test_columns_and_record(adata):
    found = bc.tl.surrogate_variables(adata, covariates="group", obs=True)
    columns = adata.obsm["X_sv"]
    assert columns.shape == (24, 1)
    hidden = (adata.obs["hidden"] == "1").to_numpy()
    assert np.corrcoef(columns[:, 0], hidden)[0, 1] ** 2 > 0.95
    np.testing.assert_array_equal(adata.obs["X_sv[1]"], columns[:, 0])
    record = json.loads(adata.uns["batchcorr"]["obsm X_sv"])
    assert record["method"] == "surrogate_variables"
    assert record["covariates"] == ["group"]
    assert record["variables"] == 1
    assert found.transform(adata[:3].X).shape == (3, 1)
    bc.tl.surrogate_variables(adata, covariates="group", n_variables=2, obs=True)
    bc.tl.surrogate_variables(adata, covariates="group", n_variables=1, obs=True)
    assert [name for name in adata.obs if name.startswith("X_sv")] == ["X_sv[1]"]


def test_they_are_nuisances_and_covariates_by_name(adata, tmp_path):
    bc.tl.surrogate_variables(adata, covariates="group", n_variables=2, obs=True)
    given = adata.obsm["X_sv"]
    by_name, by_table = (
        bc.pp.remove_batch_effect(
            adata, None, covariates="group", nuisance=nuisance, copy=True
        )
        for nuisance in ("X_sv", given)
    )
    np.testing.assert_array_equal(by_name.X, by_table.X)
    correction = bc.fit(
        adata, None, method="remove_batch_effect", nuisance=["X_sv"], covariates="group"
    )
    again = bc.pp.apply(adata, correction, copy=True)  # the key is known again
    np.testing.assert_allclose(again.X, by_name.X, atol=1e-12)

    tables = [
        bc.tl.differential(adata, None, "group", covariates=covariates)
        for covariates in ("X_sv", given)
    ]
    np.testing.assert_array_equal(*(table["t"] for table in tables))
    source, target = tmp_path / "in.h5ad", tmp_path / "out.csv"
    adata.obs["chip"] = ["x", "y", "y"] * 8
    adata.write_h5ad(source)
    expected = bc.tl.differential(adata, "chip", "group", covariates="X_sv")
    options = ["--batch", "chip", "--test", "group", "--covariate", "X_sv"]
    done("test", source, target, *options)
    written = pd.read_csv(target, index_col=0, float_precision="round_trip")
    np.testing.assert_array_equal(written["t"], expected["t"])
    done(
        "correct",
        source,
        tmp_path / "out.h5ad",
        "--batch",
        "chip",
        "--nuisance",
        "X_sv",
        "--method",
        "remove_batch_effect",
    )
    bc.pp.remove_batch_effect(adata, "chip", nuisance="X_sv")
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(written.X, adata.X)


def test_what_was_found_is_told(adata, caplog):
    adata.obs["date"] = np.linspace(0, 5, 24) ** 2
    adata.obs.loc["s3", "date"] = np.nan
    days = pd.to_timedelta(adata.obs["date"], "D")
    adata.obs["day"] = pd.to_datetime("2024-01-01") + days
    with caplog.at_level("INFO", "batchcorr"):
        found = bc.tl.surrogate_variables(adata, covariates="group")
    assert "1 surrogate variables (chosen by 20 shuffles)" in caplog.text
    assert "X_sv[1]: R² hidden 0.9" in caplog.text
    record = json.loads(adata.uns["batchcorr"]["obsm X_sv"])
    assert record["chosen_by"] == "20 shuffles"
    shares, v = record["explained_by"], found.columns_[:, 0]
    assert shares.keys() == {
        "group",
        "hidden",
        "date",
        "day",
    }  # each person has two samples
    by_hidden = [v[(adata.obs["hidden"] == k).to_numpy()] for k in "01"]
    inside = sum(((part - part.mean()) ** 2).sum() for part in by_hidden)
    total = ((v - v.mean()) ** 2).sum()
    assert shares["hidden"] == [pytest.approx(1 - inside / total, abs=1e-4)]
    date, dated = adata.obs["date"].to_numpy(), adata.obs["date"].notna().to_numpy()
    r = np.corrcoef(date[dated], v[dated])[0, 1]
    assert shares["date"] == shares["day"] == [pytest.approx(r**2, abs=1e-4)]
    assert repr(found).endswith(": 1 columns of 24 samples, from 300 features")
    bc.tl.surrogate_variables(adata, covariates="group", n_variables=2)
    record = json.loads(adata.uns["batchcorr"]["obsm X_sv"])
    assert record["chosen_by"] == "n_variables"


def test_nothing_found_is_left_out_of_the_next_step(adata, tmp_path):
    adata.X = np.random.default_rng(1).normal(6, 1, adata.shape)
    with pytest.warns(CovariateWarning, match="No surrogate variable"):
        found = bc.tl.surrogate_variables(adata, covariates="group")
    assert found.columns_.shape == (24, 0)
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").obsm["X_sv"].shape == (24, 0)
    adata.obs["chip"] = ["x", "y", "y"] * 8
    expected = bc.pp.remove_batch_effect(adata, "chip", copy=True)
    with pytest.warns(CovariateWarning, match=r"'X_sv'. has no columns and is ignored"):
        left = bc.pp.remove_batch_effect(adata, "chip", nuisance="X_sv", copy=True)
    np.testing.assert_array_equal(left.X, expected.X)
    expected = bc.tl.differential(adata, "chip", "group")
    with pytest.warns(CovariateWarning, match="is ignored"):
        table = bc.tl.differential(adata, "chip", "group", covariates=["X_sv"])
    np.testing.assert_array_equal(table["t"], expected["t"])
    with (
        pytest.warns(CovariateWarning, match="is ignored"),
        pytest.raises(InputError, match="nothing to remove"),
    ):
        bc.pp.remove_batch_effect(adata, None, nuisance="X_sv")


def test_what_is_refused_names_the_matrix(adata):
    adata.obsm["X_sv"] = np.ones((24, 1))
    with pytest.raises(MissingKeyError, match="batch key 'X_sv'"):
        bc.pp.combat(adata, "X_sv")
    with pytest.raises(
        InputError, match=r"a list of names, such as \['group', 'X_sv'\]"
    ):
        bc.pp.combat(adata, "hidden", covariates="~ group + X_sv")
    with pytest.raises(
        MissingKeyError, match=r"key of adata.obsm. Did you mean 'X_sv'"
    ):
        bc.pp.remove_batch_effect(adata, None, nuisance="X_sv[1]")
    adata.X = np.random.default_rng(0).poisson(50, adata.shape)
    with pytest.warns(CountsWarning, match=r"count \+ 1 as svaseq does"):
        bc.tl.surrogate_variables(adata, covariates="group", n_variables=1)


def test_controls_and_replicates_by_name(adata):
    adata.X = sp.csr_matrix(adata.X)
    options = {"n_variables": 1, "method": "ruvg"}
    names = list(adata.var_names[:60])
    for controls in ("control", names, np.arange(300) < 60):
        found = bc.tl.surrogate_variables(adata, controls=controls, **options)
        column = adata.obsm["X_sv"][:, 0]
        hidden = (adata.obs["hidden"] == "1").to_numpy()
        assert np.corrcoef(column, hidden)[0, 1] ** 2 > 0.9
    assert found.feature_names_[0] == "g0"
    bc.tl.surrogate_variables(
        adata, method="ruvs", replicates="person", n_variables=1, key_added="X_ruv"
    )
    assert np.corrcoef(adata.obsm["X_ruv"][:, 0], hidden)[0, 1] ** 2 > 0.9
    with pytest.raises(MissingKeyError, match="1 of 2 controls"):
        bc.tl.surrogate_variables(adata, controls=["g0", "gene1"], **options)


def test_they_correct_nothing(adata):
    found = bc.tl.surrogate_variables(adata, covariates="group", n_variables=1)
    with pytest.raises(InputError, match=r"batchcorr\.tl\.surrogate_variables"):
        bc.pp.correct(adata, "hidden", method="surrogate_variables")
    with pytest.raises(InputError, match="does not correct values"):
        bc.pp.apply(adata, found)
