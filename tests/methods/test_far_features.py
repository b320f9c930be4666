"""Non-parametric priors are made of other features: one that is alone has none."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import FeatureWarning

BATCH = np.repeat(["a", "b"], 15)


def alone(effect, seed=0):
    """Genes that batch moves by about half a standard deviation; one by `effect`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 80))
    x[BATCH == "b"] += rng.normal(0.5, 0.3, 80)
    x[BATCH == "b", 7] += effect
    return pd.DataFrame(
        x, index=[f"s{i}" for i in range(30)], columns=[f"gene{g}" for g in range(80)]
    )


def left(y):
    """What is left of the effect on gene7, in standard deviations."""
    gene = y["gene7"].to_numpy()
    off = gene[BATCH == "b"].mean() - gene[BATCH == "a"].mean()
    return abs(off) / gene[BATCH == "a"].std(ddof=1)


def test_a_gene_that_no_other_is_near_is_named_and_counted():
    x = alone(20.0)
    model = bc.ComBat(parametric=False).set_output(transform="pandas")
    with pytest.warns(FeatureWarning, match=r"1 of 80 features \(gene7\) keep part"):
        model.fit(x, batch=BATCH)
    assert left(model.transform(x, batch=BATCH)) > 0.5 * left(x)
    assert model.summary()["features_partly_corrected"] == 1
    assert np.argwhere(model.details_["far"]).tolist() == [[0, 7], [1, 7]]


def test_parametric_priors_leave_less_of_it():
    x = alone(20.0)
    model = bc.ComBat().set_output(transform="pandas").fit(x, batch=BATCH)
    assert left(model.transform(x, batch=BATCH)) < 0.1 * left(x)
    assert "features_partly_corrected" not in model.summary()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"mean_only": True}, {"reference": "a"}])
def test_genes_like_others_are_not_named(seed, options):
    model = bc.ComBat(parametric=False, **options).fit(alone(0.0, seed), batch=BATCH)
    assert model.summary()["features_partly_corrected"] == 0


def test_a_batch_that_is_added_is_looked_at_as_well():
    x = alone(0.0)
    model = bc.ComBat(parametric=False).fit(x, batch=BATCH)
    new = alone(20.0, seed=1)[BATCH == "b"]
    with pytest.warns(FeatureWarning, match=r"\(gene7\) keep part"):
        grown = model.add_batches(new, batch=["c"] * 15)
    assert grown.details_["far"].any(axis=1).tolist() == [False, False, True]


def test_it_is_kept_in_files_and_records(tmp_path):
    from anndata import AnnData

    data = AnnData(alone(20.0))
    data.obs["batch"] = pd.Categorical(BATCH)
    with pytest.warns(FeatureWarning, match="gene7"):
        model = bc.fit(data, "batch", parametric=False)
    model.save(tmp_path / "model.npz")
    assert bc.load(tmp_path / "model.npz").summary() == model.summary()
    with pytest.warns(FeatureWarning, match="gene7"):
        bc.pp.combat(data, "batch", parametric=False)
    record = json.loads(data.uns["batchcorr"]["X"])
    assert "features_partly_corrected" in json.dumps(record)
    assert any("gene7" in text for text in record["warnings"])
