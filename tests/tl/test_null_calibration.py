"""Null calibration on AnnData: what is flagged, what is told, and what is refused."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    BatchCorrError,
    CountsWarning,
    DesignError,
    InputError,
    MissingKeyError,
    RepeatWarning,
)


def study(groups, n_features=150, seed=0, **columns):
    """Batches of samples, `groups` a list of (number of a, number of b)."""
    rng = np.random.default_rng(seed)
    group = np.concatenate([["a"] * a + ["b"] * b for a, b in groups])
    batch = np.repeat(
        [f"batch{k}" for k in range(len(groups))], [sum(g) for g in groups]
    )
    effects = rng.normal(size=(len(groups), n_features))
    x = rng.normal(8, 1, (len(group), n_features))
    x += effects[np.unique(batch, return_inverse=True)[1]]
    obs = pd.DataFrame({"batch": batch, "group": group} | columns)
    obs.index = [f"s{k}" for k in range(len(obs))]
    return ad.AnnData(x, obs=obs)


UNEVEN, EVEN = [(10, 2), (2, 10)], [(6, 6), (6, 6)]


def test_an_uneven_design_is_flagged_and_agrees_with_the_audit():
    adata = study(UNEVEN, n_features=400)
    result = bc.tl.null_calibration(
        adata, "batch", "group", method="remove_batch_effect"
    )
    rates = result.rates
    assert result.flagged
    assert rates.loc["one_step", "false_positive_rate"] == pytest.approx(0.05, abs=0.01)
    row = rates.loc["remove_batch_effect"]
    assert row["low"] < row["false_positive_rate"] < row["high"]
    assert row["false_positive_rate"] == pytest.approx(row["predicted"], abs=0.03)
    assert len(result.by_permutation) == 50
    assert json.loads(json.dumps(result.to_dict()))["flagged"] is True
    assert "tl.differential" in str(result)
    contrast = ("group", "b", "a")
    told = str(bc.tl.null_calibration(adata, "batch", contrast, n_permutations=4))
    assert f"tl.differential(adata, batch_key, {contrast!r})" in told
    assert "<table" in result._repr_html_()


@pytest.mark.parametrize("method", ["combat", "standardize"])
def test_an_even_design_is_not(method):
    result = bc.tl.null_calibration(study(EVEN), "batch", "group", method=method)
    assert not result.flagged
    assert "about the nominal false positive rate" in str(result)


def test_a_large_true_effect_changes_nothing():
    adata = study(UNEVEN)
    plain = bc.tl.null_calibration(adata, "batch", "group", n_permutations=10)
    adata.X[:, :75] += 9 * (adata.obs["group"] == "b").to_numpy()[:, None]
    strong = bc.tl.null_calibration(adata, "batch", "group", n_permutations=10)
    pd.testing.assert_frame_equal(strong.rates, plain.rates, atol=0.04)


def test_kinds_of_matrix_agree_and_nothing_is_written():
    adata = study(UNEVEN, n_features=30)
    adata.X[adata.X < 7.5] = 0
    found = bc.tl.null_calibration(adata, "batch", "group", n_permutations=5)
    before = adata.copy()
    sparse = ad.AnnData(sp.csr_matrix(adata.X), obs=adata.obs)
    again = bc.tl.null_calibration(sparse, "batch", "group", n_permutations=5)
    pd.testing.assert_frame_equal(found.rates, again.rates)
    assert (adata.X == before.X).all()
    assert adata.uns.keys() == before.uns.keys()


def test_several_levels_tell_the_worst_and_numbers_their_slope():
    adata = study([(10, 2), (2, 10)], age=np.linspace(20, 60, 24) ** 1.5)
    adata.obs["kind"] = adata.obs["group"].where(np.arange(24) % 5 > 0, "c")
    result = bc.tl.null_calibration(
        adata, "batch", "kind", covariates="age", n_permutations=4
    )
    assert list(result.rates.index) == ["combat", "one_step"]
    assert list(result.by_level.index) == ["b", "c", "any"]
    worst = result.by_level["combat"].max()
    assert result.rates.loc["combat", "false_positive_rate"] == pytest.approx(worst)
    slope = bc.tl.null_calibration(adata, "batch", "age", n_permutations=8)
    assert slope.flagged


def test_a_contrast_is_that_of_two_levels_alone():
    adata = study(UNEVEN, n_features=60)
    options = {"method": "standardize", "n_permutations": 6}
    column = bc.tl.null_calibration(adata, "batch", "group", **options)
    for test in ("group:b-a", ("group", "a", "b")):
        pair = bc.tl.null_calibration(adata, "batch", test, **options)
        pd.testing.assert_frame_equal(pair.rates, column.rates)


def test_f_of_several_levels_keeps_its_rate_in_one_step_only():
    adata = study([(12, 2), (2, 12)], n_features=300)
    kind = adata.obs["group"].to_numpy().astype(object)
    kind[[0, 13, 14, 15, 16, 17]] = "c"
    adata.obs["kind"] = kind
    result = bc.tl.null_calibration(adata, "batch", "kind", method="standardize")
    assert result.by_level.loc["any", "standardize"] > 0.08
    assert result.by_level.loc["any", "one_step"] == pytest.approx(0.05, abs=0.015)


def test_methods_that_are_run_as_a_whole():
    adata = study(UNEVEN, n_features=200)
    options = {"n_permutations": 10}
    covbat = bc.tl.null_calibration(adata, "batch", "group", method="covbat", **options)
    combat = bc.tl.null_calibration(adata, "batch", "group", **options)
    assert covbat.flagged
    rates = [r.rates["false_positive_rate"].iloc[0] for r in (covbat, combat)]
    assert rates[0] == pytest.approx(rates[1], abs=0.04)  # ComBat is its first step
    result = bc.tl.null_calibration(
        adata, "batch", "group", method="quantile_normalize", **options
    )
    assert result.flagged  # batch is still there, and goes with the group


def test_counts_are_corrected_as_counts():
    adata = study(UNEVEN, n_features=40)
    batch = (adata.obs["batch"] == "batch1").to_numpy()
    rng = np.random.default_rng(1)
    means = rng.gamma(4, 20, 40) * np.exp(batch[:, None] * rng.normal(0, 0.6, 40))
    adata.layers["counts"] = rng.poisson(rng.gamma(8, means / 8))
    result = bc.tl.null_calibration(
        adata, "batch", "group", method="combat_seq", layer="counts", n_permutations=6
    )
    rates = result.rates["false_positive_rate"]
    assert rates["combat_seq"] > 0.08 > rates["one_step"]
    assert np.isnan(result.rates.loc["combat_seq", "predicted"])


def test_the_one_step_test_alone():
    result = bc.tl.null_calibration(
        study(UNEVEN), "batch", "group", method="one_step", n_permutations=10
    )
    assert list(result.rates.index) == ["one_step"]
    assert not result.flagged
    assert "about the nominal false positive rate" in str(result)


def test_counts_and_corrected_values_are_warned_of():
    adata = study(UNEVEN, n_features=30)
    adata.layers["counts"] = np.random.default_rng(0).poisson(90, adata.shape)
    with pytest.warns(CountsWarning):
        bc.tl.null_calibration(
            adata, "batch", "group", layer="counts", n_permutations=2
        )
    bc.pp.remove_batch_effect(adata, "batch", key_added="corrected")
    with pytest.warns(RepeatWarning):
        bc.tl.null_calibration(
            adata, "batch", "group", layer="corrected", n_permutations=2
        )


REFUSED = {
    "an array": ({"adata": np.ones((3, 2))}, InputError, "must be an AnnData"),
    "no batch": ({"batch_key": None}, InputError, "batch_key must be"),
    "two batches": ({"batch_key": ["batch", "group"]}, InputError, "batch_key must be"),
    "unknown batch": ({"batch_key": "bach"}, MissingKeyError, "Did you mean 'batch'"),
    "no test": ({"test": None}, InputError, "test must be"),
    "no contrast": ({"test": ("group", "a", "a")}, InputError, "test must be"),
    "unknown level": ({"test": "group:a-c"}, MissingKeyError, "must be group:A-B"),
    "unknown test": ({"test": "grupp"}, MissingKeyError, "Did you mean 'group'"),
    "constant test": ({"test": "same"}, BatchCorrError, "same"),
    "confounded": ({"test": "centre"}, DesignError, "centre"),
    "identifier": ({"test": "name"}, DesignError, "name"),
    "missing label": ({"test": "gaps"}, DesignError, "gaps"),
    "batch tested": ({"test": "batch"}, DesignError, "batch"),
    "unknown method": ({"method": "combt"}, MissingKeyError, "Did you mean 'combat'"),
    "counts method": ({"method": "combat_seq"}, InputError, "counts"),
    "normalization": (
        {"method": "log_normalize"},
        InputError,
        "does not correct batches",
    ),
    "no parameter": ({"mean_onyl": True}, InputError, "mean_only"),
    "unknown layer": ({"layer": "log"}, MissingKeyError, "no layer 'log'"),
    "no permutations": ({"n_permutations": 0}, InputError, "n_permutations must be"),
    "a fraction": ({"n_permutations": 9.5}, InputError, "n_permutations must be"),
    "a flag": ({"n_permutations": True}, InputError, "n_permutations must be"),
    "a word": ({"n_permutations": "many"}, InputError, "n_permutations must be"),
    "alpha of 1": ({"alpha": 1}, InputError, "alpha.* must lie"),
    "alpha in words": ({"alpha": "5 %"}, InputError, "alpha.* must lie"),
    "negative seed": ({"random_state": -1}, InputError, "random_state must be"),
    "unknown covariate": ({"covariates": "aeg"}, MissingKeyError, "'aeg'"),
    "batch kept": ({"covariates": "batch"}, DesignError, "cannot be a covariate"),
}


@pytest.mark.filterwarnings("ignore:covariate 'same' has the same value")
@pytest.mark.filterwarnings("ignore::batchcorr.errors.LogScaleWarning")
@pytest.mark.parametrize(("given", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(given, kind, words):
    adata = study(UNEVEN, n_features=6)
    adata.obs["same"] = "one"
    adata.obs["centre"] = adata.obs["batch"].map({"batch0": "x", "batch1": "y"})
    adata.obs["name"] = adata.obs_names
    adata.obs["gaps"] = adata.obs["group"].where(np.arange(24) > 0, np.nan)
    arguments = {"adata": adata, "batch_key": "batch", "test": "group"} | given
    before = adata.obs.copy()
    with pytest.raises(kind, match=words):
        bc.tl.null_calibration(**arguments)
    pd.testing.assert_frame_equal(adata.obs, before)


def test_too_few_arrangements_are_refused():
    adata = study([(2, 1), (1, 2)], n_features=9)
    with pytest.raises(DesignError, match=r"only 9 different permutations .*predicted"):
        bc.tl.null_calibration(adata, "batch", "group")
