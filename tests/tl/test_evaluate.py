"""Evaluation on AnnData: what is looked at, what is told, and what is refused."""

from __future__ import annotations

import json

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import BatchCorrError, DesignError, InputError, MissingKeyError


def study(effect=2.0, n=120, n_features=40, seed=0):
    """Three batches whose features are moved by `effect`, and two kinds of samples."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {"batch": rng.choice(["u", "v", "w"], n), "kind": rng.choice(["B", "T"], n)},
        index=[f"s{k}" for k in range(n)],
    )
    x = rng.normal(5, 1, (n, n_features))
    codes = np.unique(obs["batch"], return_inverse=True)[1]
    x += effect * rng.normal(size=(3, n_features))[codes]
    x[:, :10] += 4 * (obs["kind"] == "T").to_numpy()[:, None]
    return ad.AnnData(x, obs=obs)


BATCH = [
    "batch_variance",
    "batch_beyond_covariates",
    "pc_regression",
    "batch_predicted",
]


@pytest.fixture(scope="module")
def evaluated():
    adata = study()
    bc.pp.combat(adata, "batch", covariates="kind", key_added="combat")
    bc.pp.remove_batch_effect(adata, "batch", covariates="kind", key_added="linear")
    adata.layers["scaled"] = adata.X * np.linspace(0.2, 3, 40)
    adata.obsm["X_flat"] = adata.layers["linear"][:, 12:15]
    return adata, bc.tl.evaluate(adata, "batch", labels="kind", embeddings=["X_flat"])


def test_corrected_layers_are_found_and_stand_in_one_frame(evaluated):
    _, found = evaluated
    assert list(found.scores.index) == ["X", "combat", "linear", "X_flat"]
    for frame in (found.low, found.high, found.chance):
        assert frame.axes[0].equals(found.scores.index)
        assert frame.axes[1].equals(found.scores.columns)
    assert found.n_obs == 120


def test_batch_is_there_before_and_at_chance_after(evaluated):
    _, found = evaluated
    scores, chance = found.scores, found.chance
    for score in BATCH:
        assert found.low.loc["X", score] > chance.loc["X", score] + 0.1, score
        for layer in ("combat", "linear"):
            assert scores.loc[layer, score] < chance.loc[layer, score] + 0.05, score
    assert scores.loc["X", "ilisi"] < 1.5
    assert scores.loc["linear", "ilisi"] == pytest.approx(
        chance.loc["linear", "ilisi"], abs=0.15
    )
    assert chance.loc["X", "ari"] == pytest.approx(0, abs=0.03)


def test_biology_is_there_after_and_absent_from_an_embedding_without_it(evaluated):
    _, found = evaluated
    scores = found.scores
    for layer in ("combat", "linear"):
        assert scores.loc[layer, "ari"] > 0.95
        assert scores.loc[layer, "clisi"] < 1.1
    assert scores.loc["X_flat", "ari"] < 0.1
    assert scores.loc["X_flat", "clisi"] == pytest.approx(
        found.chance.loc["X_flat", "clisi"], abs=0.15
    )
    assert scores.loc["X_flat", "structure_kept"] < 0.6
    assert scores.loc["linear", "structure_kept"] == pytest.approx(1)


def test_shares_of_variance_are_those_of_the_metric(evaluated):
    adata, found = evaluated
    for layer in ("X", "combat"):
        share = bc.metrics.variance_explained(
            adata, "batch", covariates="kind", layer=None if layer == "X" else layer
        )
        row = found.scores.loc[layer]
        assert row["batch_variance"] == pytest.approx(share.batch)
        assert row["batch_beyond_covariates"] == pytest.approx(
            share.batch_beyond_covariates
        )
        assert row["variance[kind]"] == pytest.approx(share.covariates)


def test_labels_that_are_numbers_are_labels():
    adata = study(n=90, n_features=20)
    adata.obs["words"] = np.random.default_rng(3).choice(["p", "q", "r", "s"], 90)
    adata.X[:, :5] += (adata.obs["words"] == "q").to_numpy()[:, None] * 3.0
    adata.obs["number"] = adata.obs["words"].map({"p": 0, "q": 1, "r": 2, "s": 7})
    words, numbers = (
        bc.tl.evaluate(adata, "batch", labels=labels).scores
        for labels in ("words", "number")
    )
    assert numbers.columns[5] == "variance[number]"
    np.testing.assert_allclose(words, numbers)


def test_a_covariate_has_a_column_of_its_own():
    adata = study()
    adata.obs["age"] = np.linspace(20, 60, 120)
    found = bc.tl.evaluate(adata, "batch", covariates=["kind", "age"])
    alone = bc.metrics.variance_explained(adata, "batch", covariates="age")
    assert found.scores.loc["X", "variance[age]"] == pytest.approx(alone.covariates)
    assert found.scores.loc["X", "variance[kind]"] > 0.1


def test_intervals_hold_scores_and_cover_the_truth():
    held = 0
    for seed in range(10):
        found = bc.tl.evaluate(study(effect=0.0, n=90, seed=seed), "batch")
        row = found.low.loc["X"], found.high.loc["X"]
        held += row[0]["batch_variance"] < 0 < row[1]["batch_variance"]
    assert held >= 8


def test_what_is_lost_within_batches_is_told():
    adata = study()
    rows = (adata.obs["batch"] == "u").to_numpy()
    changed = adata.X.copy()
    changed[np.ix_(rows, range(0, 40, 2))] *= 0.1
    adata.layers["changed"] = changed
    found = bc.tl.evaluate(adata, "batch", layers=[None, "changed"])
    assert found.structure.loc["changed"].idxmin() == "u"
    assert len(found.notes) == 1
    assert "batch 'u'" in found.notes[0]
    assert "remove_batch_effect" in str(found)
    adata.obsm["X_map"] = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    found = bc.tl.evaluate(adata, "batch", layers=[None], embeddings="X_map")
    assert found.notes[0].startswith("'X_map' changes differences")
    assert "remove_batch_effect" not in str(found)  # which leaves no map as it is
    found = bc.tl.evaluate(adata, "batch", layers=[None, "changed"])
    assert "<table" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["notes"] == found.notes


@pytest.mark.parametrize("kind", ["csr", "csc", "dask", "float32"])
def test_kinds_of_matrix_agree(kind):
    adata = study(n=60, n_features=20)
    adata.X[adata.X < 5] = 0
    make = {
        "csr": sp.csr_matrix,
        "csc": sp.csc_matrix,
        "dask": lambda x: da.from_array(x, chunks=(25, 20)),
        "float32": lambda x: x.astype(np.float32),
    }[kind]
    other = ad.AnnData(make(adata.X), obs=adata.obs)
    one, two = (bc.tl.evaluate(a, "batch", labels="kind") for a in (adata, other))
    pd.testing.assert_frame_equal(one.scores, two.scores, atol=1e-4, rtol=1e-4)


def test_views_and_embeddings_alone_are_evaluated():
    adata = study(n=90, n_features=20)
    view = adata[10:70, :15]
    found = bc.tl.evaluate(view, "batch", labels="kind")
    copy = bc.tl.evaluate(view.copy(), "batch", labels="kind")
    pd.testing.assert_frame_equal(found.scores, copy.scores)
    alone = ad.AnnData(obs=adata.obs, obsm={"z": adata.X[:, :4]})
    found = bc.tl.evaluate(alone, "batch", embeddings="z")
    assert list(found.scores.index) == ["z"]
    assert np.isfinite(found.scores.loc["z", "pc_regression"])


def test_missing_values_are_left_out_of_components():
    adata = study(n=60, n_features=20)
    adata.X[3, 4] = np.nan
    found = bc.tl.evaluate(adata, "batch", labels="kind")
    assert np.isfinite(
        found.scores.loc["X"].drop("structure_kept", errors="ignore")
    ).all()


def test_that_values_are_not_logged_is_noted():
    adata = study(n=60)
    adata.layers["counts"] = np.random.default_rng(0).poisson(np.exp(adata.X))
    found = bc.tl.evaluate(adata, "batch", layers=[None, "counts"])
    assert found.unlogged == ("counts",)
    assert "'counts' is not on a log scale" in found.notes[0]


def test_small_data_have_no_scores_of_neighbours():
    adata = study(n=14)
    adata.obs["batch"] = ["u"] * 7 + ["v"] * 6 + ["w"]
    found = bc.tl.evaluate(adata, "batch")
    assert found.scores.loc["X", ["ilisi", "batch_predicted"]].isna().all()
    assert np.isfinite(found.scores.loc["X", "batch_variance"])
    assert "–" in str(found)


def test_the_same_seed_gives_the_same_and_nothing_is_written():
    adata = study(n=60)
    before = adata.copy()
    one, two = (bc.tl.evaluate(adata, "batch", random_state=3) for _ in range(2))
    pd.testing.assert_frame_equal(one.low, two.low)
    assert (adata.X == before.X).all()
    assert adata.uns.keys() == before.uns.keys()
    assert adata.obsm.keys() == before.obsm.keys()


REFUSED = {
    "an array": ({"adata": np.ones((3, 2))}, InputError, "must be an AnnData"),
    "no batch": ({"batch_key": None}, InputError, "batch_key must be"),
    "two batches": ({"batch_key": ["batch", "kind"]}, InputError, "batch_key must be"),
    "unknown batch": ({"batch_key": "bach"}, MissingKeyError, "Did you mean 'batch'"),
    "one batch": ({"batch_key": "same"}, DesignError, "only one batch"),
    "a number": ({"batch_key": "age"}, DesignError, "age|batch"),
    "missing batch": ({"batch_key": "gaps"}, DesignError, "missing"),
    "unknown labels": ({"labels": "knd"}, MissingKeyError, "Did you mean 'kind'"),
    "two labels": ({"labels": ["kind", "batch"]}, InputError, "labels must be"),
    "missing labels": ({"labels": "gaps"}, DesignError, "missing"),
    "one label": ({"labels": "same"}, DesignError, "1 values"),
    "identifiers": ({"labels": "name"}, DesignError, "60 values"),
    "batch as label": ({"labels": "batch"}, DesignError, "'batch' is the batch"),
    "unknown covariate": ({"covariates": "aeg"}, MissingKeyError, "'aeg'"),
    "confounded": ({"covariates": "centre"}, DesignError, "centre"),
    "unknown layer": ({"layers": ["logs"]}, MissingKeyError, "Did you mean 'log'"),
    "layers by number": ({"layers": 3}, InputError, "layers must be"),
    "a layer by number": ({"layers": [3]}, InputError, "layers must be"),
    "unknown embedding": ({"embeddings": "X_pac"}, MissingKeyError, "mean 'X_pca'"),
    "embeddings by number": ({"embeddings": 1}, InputError, "embeddings must be"),
    "gaps in an embedding": ({"embeddings": "X_gaps"}, InputError, "missing or inf"),
    "words as embedding": ({"embeddings": "X_words"}, InputError, "matrix of numbers"),
    "negative seed": ({"random_state": -1}, InputError, "random_state must be"),
    "large seed": (
        {"random_state": 2**32},
        InputError,
        "of at most 4294967295, not 4294967296",
    ),
    "no seed": ({"random_state": None}, InputError, "random_state must be"),
    "infinite values": ({"layers": "infinite"}, InputError, "infinite"),
    "nothing": ({"layers": [], "embeddings": []}, InputError, "nothing to evaluate"),
    "nothing varies": ({"layers": "flat"}, BatchCorrError, "No feature varies"),
}


@pytest.mark.parametrize(("given", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(given, kind, words):
    adata = study(n=60, n_features=6)
    adata.obs["same"], adata.obs["name"] = "one", adata.obs_names
    adata.obs["age"] = np.random.default_rng(0).normal(50, 9, 60)
    adata.obs["gaps"] = adata.obs["kind"].where(np.arange(60) > 0, np.nan)
    adata.obs["centre"] = adata.obs["batch"].map({"u": "x", "v": "y", "w": "y"})
    adata.layers["log"], adata.layers["flat"] = adata.X.copy(), np.ones(adata.shape)
    adata.layers["infinite"] = np.where(adata.X > 6, np.inf, adata.X)
    adata.obsm["X_pca"] = adata.X[:, :2].copy()
    adata.obsm["X_gaps"] = np.full((60, 2), np.nan)
    adata.obsm["X_words"] = np.full((60, 2), "word")
    arguments = {"adata": adata, "batch_key": "batch"} | given
    with pytest.raises(kind, match=words):
        bc.tl.evaluate(**arguments)


def test_a_corrected_layer_is_compared_with_what_it_was_made_from():
    rng = np.random.default_rng(2)
    obs = pd.DataFrame({"run": np.resize(["a", "b"], 40)})
    counts = rng.poisson(rng.gamma(2, 20, 60), (40, 60)).astype(float)
    adata = ad.AnnData(counts, obs.set_axis([f"s{k}" for k in range(40)]))
    bc.pp.log_normalize(adata, key_added="logs")
    bc.pp.remove_batch_effect(adata, "run", layer="logs", key_added="centred")
    found = bc.tl.evaluate(adata, "run")
    assert list(found.scores.index) == ["logs", "centred"]
    assert found.structure.loc["centred"].min() > 1 - 1e-9
    del adata.layers["logs"]  # nothing is left to compare with
    assert list(bc.tl.evaluate(adata, "run").structure.index) == []


def test_what_was_corrected_is_compared_with_its_source_though_it_is_not_asked_for():
    adata = study(n=60)
    bc.pp.standardize(adata, "batch", key_added="scaled")
    bc.pp.remove_batch_effect(adata, "batch", key_added="linear")
    bc.tl.pca(adata, "batch", n_comps=4, key_added="X_made")
    some = bc.tl.evaluate(adata, "batch", layers=["scaled", "linear"], embeddings=())
    all_ = bc.tl.evaluate(
        adata, "batch", layers=[None, "scaled", "linear"], embeddings=()
    )
    assert list(some.scores.index) == ["scaled", "linear"]
    pd.testing.assert_frame_equal(some.structure, all_.structure)
    alone = bc.tl.evaluate(adata, "batch", layers=["scaled"], embeddings="X_made")
    both = bc.tl.evaluate(adata, "batch", layers=[None], embeddings="X_made")
    assert list(alone.scores.index) == ["scaled", "X_made"]
    pd.testing.assert_series_equal(
        alone.structure.loc["X_made"], both.structure.loc["X_made"]
    )


@pytest.mark.parametrize("part", ["rows", "features", "order"])
def test_a_part_of_the_data_knows_what_it_was_made_from(part):
    adata = study(n=60)
    bc.pp.remove_batch_effect(adata, "batch", key_added="linear")
    bc.tl.pca(adata, "batch", n_comps=4, key_added="X_made")
    taken = {
        "rows": adata[::2],
        "features": adata[:, 1:],
        "order": adata[np.argsort(adata.obs["batch"].to_numpy(), kind="stable")],
    }[part]
    found = bc.tl.evaluate(taken.copy(), "batch")
    assert list(found.scores.index) == ["X", "linear", "X_made"]
    assert found.structure.loc["linear"].min() > 1 - 1e-9
    assert not any("cannot be compared" in note for note in found.notes)


def test_an_embedding_whose_values_before_are_gone_is_compared_with_nothing():
    adata = study(n=60)
    adata.layers["log"] = adata.X.copy()
    bc.tl.pca(adata, "batch", layer="log", n_comps=4, key_added="X_made")
    adata.X = adata.X[::-1].copy()
    del adata.layers["log"]
    found = bc.tl.evaluate(adata, "batch", layers=[None], embeddings="X_made")
    assert "X_made" not in found.structure.index
    assert any("'X_made' cannot be compared" in note for note in found.notes)


def test_surrogate_variables_are_no_corrected_embedding():
    adata = study()
    bc.tl.surrogate_variables(adata, covariates="kind", n_variables=1)
    assert list(bc.tl.evaluate(adata, "batch").scores.index) == ["X"]
