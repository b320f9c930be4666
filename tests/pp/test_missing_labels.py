"""Missing labels: refused, or a level of their own that is counted."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, InputError
from tests.cli.commands import done


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "day": ["mon"] * 8 + ["tue"] * 8 + [None] * 8,
            "sex": pd.Categorical(["f", "m", None, "f"] * 6),
            "age": rng.normal(50, 9, 24).round(1),
        },
        index=[f"s{i}" for i in range(24)],
    )
    x = rng.normal(8, 1, (24, 20)) + np.repeat([0, 1, 2], 8)[:, None]
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(20)]))


def filled(adata):
    named = adata.copy()
    for column in ("day", "sex"):
        labels = named.obs[column].astype(object)
        named.obs[column] = labels.where(labels.notna(), "missing")
    return named


@pytest.mark.parametrize("name", ["combat", "standardize", "remove_batch_effect"])
def test_they_are_a_level(adata, name):
    face, named = getattr(bc.pp, name), filled(adata)
    adata.obs["age"] = named.obs["age"] = np.tile([40.5, 61.0, 55.5, 48.0], 6)
    obs = adata.obs.copy()
    found = face(adata, "day", covariates=["sex", "age"], missing="level", copy=True)
    expected = face(named, "day", covariates=["sex", "age"], copy=True)
    np.testing.assert_allclose(found.X, expected.X, atol=1e-12)
    record = json.loads(found.uns["batchcorr"]["X"])
    assert record["missing"] == {"day": 8, "sex": 6}
    pd.testing.assert_frame_equal(adata.obs, obs)
    with pytest.raises(DesignError, match="is missing for"):
        face(adata, "day", covariates=["sex", "age"])


def test_a_fitted_correction_knows_the_level(adata, tmp_path):
    correction = bc.fit(adata, "day", method="standardize", missing="level")
    assert correction.batches_ == ("missing", "mon", "tue")
    correction.save(tmp_path / "c.npz")
    expected = bc.pp.standardize(adata, "day", missing="level", copy=True)
    found = bc.pp.apply(adata, bc.load(tmp_path / "c.npz"), copy=True)
    np.testing.assert_allclose(found.X, expected.X, atol=1e-12)


def test_what_is_refused(adata):
    with pytest.raises(InputError, match="'error' or 'level'"):
        bc.pp.combat(adata, "day", missing="drop")
    adata.obs["day"] = ["missing"] * 8 + ["tue"] * 8 + [None] * 8
    with pytest.raises(DesignError, match="rename that label"):
        bc.pp.combat(adata, "day", missing="level")
    adata.obs.loc["s3", "age"] = np.nan  # numbers have no level
    with pytest.raises(DesignError, match="'age' is missing"):
        bc.pp.combat(adata, "sex", covariates="age", missing="level")


def test_the_command_line_drops_them(adata, tmp_path):
    source, target = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    adata.write_h5ad(source)
    options = ["--batch", "day", "--covariate", "sex", "--method", "standardize"]
    said = done("correct", source, target, *options, "--missing", "drop").stdout
    assert "12 of 24 samples left out" in " ".join(said.split())
    kept = adata[adata.obs[["day", "sex"]].notna().all(axis=1)].copy()
    expected = bc.pp.standardize(kept, "day", covariates="sex", copy=True)
    found = ad.read_h5ad(target)
    np.testing.assert_array_equal(found.X, expected.X)
    record = json.loads(found.uns["batchcorr"]["X"])
    assert record["samples_left_out"] == 12
    done("correct", source, target, *options, "--missing", "level", "--force")
    expected = bc.pp.standardize(
        adata, "day", covariates="sex", missing="level", copy=True
    )
    np.testing.assert_array_equal(ad.read_h5ad(target).X, expected.X)
