"""The audit: what it finds, in whose words, and whether its rates are those of data."""

from __future__ import annotations

import json
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import batchcorr as bc
from batchcorr.errors import (
    AssociationWarning,
    DesignError,
    InputError,
    MissingKeyError,
)


def study(batch, group, n_features=30, seed=0, sd=1.0, **columns):
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame({"batch": batch, "group": group, **columns})
    obs.index = [f"s{k}" for k in range(len(obs))]
    x = rng.normal(8, 1, (len(obs), n_features)) * np.asarray(sd).reshape(-1, 1)
    return ad.AnnData(x, obs=obs)


BALANCED = (["x", "y"] * 12, ["a", "a", "b", "b"] * 6)
UNEVEN = (
    ["x"] * 12 + ["y"] * 12,
    ["a"] * 10 + ["b"] * 2 + ["a"] * 2 + ["b"] * 10,
)


def codes(audit):
    return [finding.code for finding in audit.findings]


def test_a_balanced_design_has_nothing_against_it():
    audit = bc.tl.audit(study(*BALANCED), "batch", test="group")
    assert codes(audit) == []
    assert not audit.blocks
    assert audit.association["group"] == pytest.approx(0, abs=0.1)
    rates = audit.predicted["false_positive_rate"]
    assert rates["one_step"] == pytest.approx(0.05, abs=0.002)
    kept = audit.predicted["effect_kept"]
    assert kept["combat"] == pytest.approx(np.sqrt(22 / 24), abs=0.01)  # σ² over n
    assert kept["remove_batch_effect"] == pytest.approx(1)


@pytest.mark.parametrize("verb", [bc.tl.audit, bc.tl.evaluate, bc.pp.combat])
def test_where_no_batch_is_known_it_is_said_where_one_is_looked_for(verb):
    with pytest.raises(
        InputError, match=r"estimate surrogate variables: batchcorr\.tl\.surrogate"
    ):
        verb(study(*BALANCED), None)


def test_that_there_is_no_batch_effect_is_told():
    adata = study(*UNEVEN, n_features=400)
    assert codes(bc.tl.audit(adata, "batch")) == ["no_batch_effect"]
    all_, few, group = adata.copy(), adata.copy(), adata.copy()
    away = np.array(adata.obs["batch"] == "y")
    rng = np.random.default_rng(1)
    all_.X[away] += rng.normal(0, 1, 400)
    few.X[away, :4] += 4
    group.X[np.array(adata.obs["group"] == "b")] += rng.normal(0, 1, 400)
    assert codes(bc.tl.audit(all_, "batch")) == codes(bc.tl.audit(few, "batch")) == []
    assert codes(bc.tl.audit(group, "batch")) == []  # of which batch holds a part
    kept = bc.tl.audit(group, "batch", covariates="group")
    assert "no_batch_effect" in codes(kept)


def test_a_contrast_is_told_as_its_levels_are():
    adata = study(*UNEVEN)
    adata.obs["group"] = pd.Categorical(adata.obs["group"], ["a", "b"])
    column = bc.tl.audit(adata, "batch", test="group").predicted
    for test in ("group:b-a", ("group", "a", "b"), ("group", {"a": 2, "b": -2})):
        contrast = bc.tl.audit(adata, "batch", test=test).predicted
        pd.testing.assert_frame_equal(contrast, column)
    adata.obs["kind"] = np.where(np.arange(24) % 5 == 0, "c", adata.obs["group"])
    adata.obs["other"] = pd.Categorical(adata.obs["kind"], ["b", "c", "a"])
    first = bc.tl.audit(adata, "batch", test="kind:b-c").predicted
    same = bc.tl.audit(adata, "batch", test="other:b-c").predicted  # b is the reference
    pd.testing.assert_frame_equal(first, same)


def test_what_is_kept_follows_the_scales_of_batches():
    """Standardized, the noisy batch counts for less: the share of an effect in the data."""
    sd = np.where(np.array(UNEVEN[0]) == "x", 0.5, 2.0)
    adata = study(*UNEVEN, n_features=2000, sd=sd)
    told = bc.tl.audit(adata, "batch", test="group").predicted["effect_kept"]
    group = (adata.obs["group"] == "b").to_numpy()
    moved = ad.AnnData(adata.X + 0.2 * group[:, None], obs=adata.obs)
    for method in ("combat", "standardize", "remove_batch_effect"):
        effects = []
        for data in (moved.copy(), adata.copy()):
            bc.pp.correct(data, "batch", method)
            effects.append(data.X[group].mean(axis=0) - data.X[~group].mean(axis=0))
        kept = (effects[0] - effects[1]).mean() / 0.2
        assert told[method] == pytest.approx(kept, abs=0.05)


@pytest.mark.parametrize("method", ["combat", "standardize", "remove_batch_effect"])
def test_corrected_values_are_known_without_a_record(method):
    rng = np.random.default_rng(1)
    adata = study(*BALANCED, n_features=100)
    adata.X += rng.normal(size=(2, 100))[(adata.obs["batch"] == "y").to_numpy() * 1]
    assert codes(bc.tl.audit(adata, "batch", test="group")) == []
    bc.pp.correct(adata, "batch", method, covariates=["group"])
    copied = ad.AnnData(adata.X, obs=adata.obs)
    for test in (None, "group"):
        assert "already_corrected" in codes(bc.tl.audit(copied, "batch", test=test))


def test_an_uneven_design_is_told_with_numbers():
    audit = bc.tl.audit(study(*UNEVEN), "batch", test="group")
    assert codes(audit) == ["associated", "inflated", "effect_lost"]
    assert audit.predicted.loc["remove_batch_effect", "effect_kept"] == pytest.approx(
        1
        - stats.pearsonr(*(np.unique(c, return_inverse=True)[1] for c in UNEVEN))[0]
        ** 2
    )
    assert audit.tables["group"].loc["x", "a"] == 10
    assert "tl.differential" in str(audit)
    assert "<table" in audit._repr_html_()
    json.dumps(audit.to_dict())


@pytest.mark.parametrize(
    ("change", "code", "level"),
    [
        ({"group": ["a"] * 12 + ["b"] * 12}, "confounded", "blocks"),
        ({"batch": ["x"] * 24}, "one_batch", "blocks"),
        ({"twin": [{"a": "u", "b": "v"}[g] for g in UNEVEN[1]]}, "repeated", "blocks"),
        ({"batch": ["x"] * 12 + ["y"] * 10 + ["z"] * 2}, "small_batch", "warns"),
        ({"age": [*range(12), *range(50, 62)]}, "ranges_apart", "warns"),
    ],
    ids=["confounded", "one_batch", "repeated", "small_batch", "ranges_apart"],
)
def test_what_is_found(change, code, level):
    columns = {"batch": UNEVEN[0], "group": UNEVEN[1]} | change
    adata = study(**columns)
    more = [name for name in columns if name not in {"batch", "group"}]
    audit = bc.tl.audit(adata, "batch", covariates=more, test="group")
    assert (code, level) in {(f.code, f.level) for f in audit.findings}
    assert audit.blocks == (level == "blocks")
    assert (len(audit.predicted) == 0) == audit.blocks


@pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")
def test_a_batch_explained_by_its_covariates():
    adata = study(["pilot"] * 2 + ["x", "y"] * 8, ["a", "b"] + ["a"] * 16)
    audit = bc.tl.audit(adata, "batch", test="group")
    assert "explained_batch" in codes(audit)
    text = next(f.text for f in audit.findings if f.code == "explained_batch")
    with pytest.warns(bc.errors.BatchSizeWarning) as caught:
        bc.pp.combat(adata, "batch", covariates="group")
    assert text in {str(w.message) for w in caught}


def test_a_fit_and_the_audit_use_the_same_words():
    adata = study(*UNEVEN)
    audit = bc.tl.audit(adata, "batch", covariates="group")
    told = {f.text for f in audit.findings if f.code == "associated"}
    with pytest.warns(AssociationWarning) as caught:
        bc.pp.combat(adata, "batch", covariates="group", key_added="new")
    assert {str(w.message) for w in caught} == told
    confounded = study(["x"] * 12 + ["y"] * 12, ["a"] * 12 + ["b"] * 12)
    blocking = bc.tl.audit(confounded, "batch", covariates="group").findings[0]
    with pytest.raises(DesignError) as refused:
        bc.pp.combat(confounded, "batch", covariates="group")
    assert str(refused.value) == blocking.text


def test_counts_libraries_and_features():
    rng = np.random.default_rng(0)
    adata = study(*BALANCED)
    depth = np.where(adata.obs["batch"] == "x", 10, 100)[:, None]
    adata.X = rng.poisson(depth, adata.shape).astype(float)
    adata.X[adata.obs["batch"] == "x", 0] = 0
    audit = bc.tl.audit(adata, "batch")
    assert {"counts", "library_sizes", "private_features"} <= set(codes(audit))
    assert "'0'" in str(audit) or " 0 " in str(audit)
    sizes = audit.batches["mean_library_size"]
    assert sizes["y"] / sizes["x"] == pytest.approx(10, rel=0.1)


def test_values_that_every_feature_misses_somewhere_are_looked_at():
    adata = study(*UNEVEN)
    for feature in range(adata.n_vars):
        adata.X[feature % adata.n_obs, feature] = np.nan
    found = bc.tl.audit(adata, "batch", test="group")
    of_design = bc.tl.audit(ad.AnnData(obs=adata.obs), "batch", test="group")
    pd.testing.assert_frame_equal(found.predicted, of_design.predicted)
    with pytest.raises(InputError, match="Every feature has missing values"):
        bc.tl.differential(adata, "batch", "group", equal_variances=False)


def test_without_values_the_design_alone_is_looked_at():
    adata = study(*UNEVEN)
    bare = ad.AnnData(obs=adata.obs)
    audit = bc.tl.audit(bare, "batch", test="group")
    assert codes(audit) == ["associated", "inflated", "effect_lost"]
    whole = bc.tl.audit(adata, "batch", test="group").predicted
    np.testing.assert_allclose(
        audit.predicted["false_positive_rate"], whole["false_positive_rate"], atol=0.03
    )


@pytest.mark.parametrize("seed", range(4))
def test_predicted_rates_are_those_of_simulated_data(seed):
    rng = np.random.default_rng(seed)
    n_batches, n = int(rng.integers(2, 5)), int(rng.integers(30, 60))
    batch = rng.integers(0, n_batches, n)
    batch[: 4 * n_batches] = np.tile(np.arange(n_batches), 4)
    group = rng.random(n) < rng.uniform(0.2, 0.8, n_batches)[batch]
    for b in range(n_batches):
        group[np.flatnonzero(batch == b)[:2]] = [False, True]
    sd = rng.uniform(0.6, 1.7, n_batches)[batch]
    names = [f"b{b}" for b in batch]
    adata = study(names, np.where(group, "u", "v"), 3000, seed, sd=sd)
    adata.X -= adata.X.mean(axis=0)
    adata.X[:] = rng.normal(size=adata.shape) * sd[:, None]
    audit = bc.tl.audit(adata, "batch", test="group")
    for analysis in ("combat", "standardize", "remove_batch_effect"):
        with warnings.catch_warnings(action="ignore"):
            bc.pp.correct(
                adata, "batch", analysis, covariates="group", key_added=analysis
            )
        y = adata.layers[analysis]
        found = (stats.ttest_ind(y[group], y[~group]).pvalue < 0.05).mean()
        expected = audit.predicted.loc[analysis, "false_positive_rate"]
        assert found == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"batch_key": "run"}, MissingKeyError, "'run'"),
        ({"batch_key": ["batch", "group"]}, InputError, "one column"),
        ({"test": "grupo"}, MissingKeyError, "Did you mean 'group'"),
        ({"alpha": 5}, InputError, "between 0 and 1"),
        ({"layer": "logs"}, MissingKeyError, "no layer 'logs'"),
        ({"covariates": "sex"}, MissingKeyError, "'sex'"),
    ],
    ids=["batch", "batches", "test", "alpha", "layer", "covariate"],
)
def test_bad_input_is_told(options, error, says):
    adata = study(*BALANCED)
    with pytest.raises(error, match=says):
        bc.tl.audit(adata, **({"batch_key": "batch"} | options))
