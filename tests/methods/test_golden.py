"""R's sva and limma say what is right: every case, its intermediates, its refusals."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    BatchSizeWarning,
    DesignError,
    InputError,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

# R's warnings and ours need not be the same: here it is values that are compared.
quiet = pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
pytestmark = quiet

COMBAT = {
    "combat_01_nocov": {},
    "combat_02_cancer": {},
    "combat_03_nonparametric_cancer": {"parametric": False},
    "combat_04_meanonly_cancer": {"mean_only": True},
    "combat_05_ref5_cancer": {"reference": 5},
    "combat_06_ref1_nocov": {"reference": 1},
    "combat_07_missing_cancer": {},
    "combat_08_missing_ref2_nocov": {"reference": 2},
    "combat_09_single_sample_batch": {},  # mean only by itself
    "combat_10_uniform_genes": {},
    "combat_11_cancer_and_age": {},
    "combat_12_nonparametric_meanonly": {"parametric": False, "mean_only": True},
    "combat_13_nonparametric_ref5": {"parametric": False, "reference": 5},
    "combat_14_tiny": {},
    "combat_15_sparse_lognorm": {},
    "combat_16_string_ref": {"reference": "donorC"},
}
RBE = [
    "rbe_01_batch",
    "rbe_02_batch_batch2",
    "rbe_03_batch_covariates",
    "rbe_04_design_cancer",
    "rbe_05_array_weights",
    "rbe_06_observation_weights",
    "rbe_07_missing",
    "rbe_09_covariates_only",
]
PRIORS = ["gamma_bar", "t2", "a_prior", "b_prior"]
FLOAT32 = {"rtol": 2e-6, "atol": 2e-6}  # a few roundings of values up to 14

combat_cases = pytest.mark.parametrize("name", COMBAT)
rbe_cases = pytest.mark.parametrize("name", RBE)


def combat(name, case, x=None):
    """Run a case as R ran it; return the fitted model and the corrected values."""
    model = bc.ComBat(**COMBAT[name])
    x = case["input"] if x is None else x
    return model, model.fit_transform(
        x, batch=case["batch"], covariates=case.get("mod")
    )


def remove(case, x=None):
    batch = case.get("batch")
    if "batch2" in case:
        batch = pd.DataFrame({"batch": batch, "batch2": case["batch2"]})
    return bc.RemoveBatchEffect().fit_transform(
        case["input"] if x is None else x,
        batch=batch,
        covariates=case.get("design"),
        nuisance=case.get("covariates"),
        weights=case.get("weights"),
    )


def test_no_golden_case_is_forgotten():
    files = {
        path.stem
        for path in GOLDEN.glob("*.npz")
        if re.match(r"(combat|rbe)_\d", path.stem)
    }
    assert files == {*COMBAT, *RBE, "rbe_08_confounded"}


# -- values --------------------------------------------------------------------------


@combat_cases
def test_combat_gives_r_s_values(golden, name):
    case = golden(name)
    _, corrected = combat(name, case)
    np.testing.assert_allclose(corrected, case["expected"], rtol=0, atol=1e-10)


@combat_cases
def test_combat_gives_r_s_values_in_other_layouts(golden, name):
    case = golden(name)
    for x in (
        np.asfortranarray(case["input"]),
        pd.DataFrame(case["input"]),
        case["input"][::-1][::-1],
    ):
        _, corrected = combat(name, case, x)
        np.testing.assert_allclose(corrected, case["expected"], rtol=0, atol=1e-10)


def single(x):
    """Return x in float32; R's NA is a signalling NaN, which a cast would warn of."""
    return np.where(np.isnan(x), np.nan, x).astype(np.float32)


# float32 cannot hold the gene of case 10 that varies by 1e-9.
@pytest.mark.parametrize("name", sorted({*COMBAT} - {"combat_10_uniform_genes"}))
def test_combat_of_float32_is_r_s_to_float32_s_rounding(golden, name):
    case = golden(name)
    _, corrected = combat(name, case, single(case["input"]))
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected, case["expected"], **FLOAT32)


@rbe_cases
def test_remove_batch_effect_gives_limma_s_values(golden, name):
    case = golden(name)
    for x in (case["input"], np.asfortranarray(case["input"])):
        corrected = remove(case, x)
        expected = in_level(case, corrected)
        np.testing.assert_allclose(corrected, expected, rtol=0, atol=1e-10)


def in_level(case, corrected):
    """R's values, moved by a constant a feature: limma 3.54 does not centre nuisances."""
    expected = np.asarray(case["expected"])
    if "covariates" not in case:
        return expected
    return expected + (corrected[0] - expected[0])


@pytest.mark.parametrize("name", ["rbe_03_batch_covariates", "rbe_09_covariates_only"])
def test_nuisances_are_removed_from_their_mean_on(golden, name):
    """The constant between limma 3.54 and us is the mean nuisance times its slope."""
    case = golden(name)
    batch, nuisance = case.get("batch"), case["covariates"]
    model = bc.RemoveBatchEffect().fit(case["input"], batch=batch, nuisance=nuisance)
    moved = remove(case) - case["expected"]
    constant = nuisance.mean(axis=0) @ model.correction_.nuisance
    assert np.abs(constant).min() > 1e-6
    np.testing.assert_allclose(moved, np.tile(constant, (len(moved), 1)), atol=1e-10)


@rbe_cases
def test_remove_batch_effect_of_float32_is_limma_s_to_rounding(golden, name):
    case = golden(name)
    corrected = remove(case, single(case["input"]))
    assert corrected.dtype == np.float32
    moved = in_level(case, remove(case))
    np.testing.assert_allclose(corrected, moved, **FLOAT32)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, sp.csr_array])
@pytest.mark.parametrize("name", ["combat_15_sparse_lognorm", "combat_16_string_ref"])
def test_sparse_combat_gives_r_s_values(golden, name, make):
    case = golden(name)
    _, corrected = combat(name, case, make(case["input"]))
    np.testing.assert_allclose(corrected, case["expected"], rtol=0, atol=1e-10)


def test_limma_drops_what_is_confounded_and_we_refuse_it(golden):
    case = golden("rbe_08_confounded")
    assert "not estimable" in str(case["r_messages"])
    with pytest.raises(DesignError, match="'conf' is confounded with batch"):
        bc.RemoveBatchEffect().fit(
            case["input"],
            batch=case["batch"],
            covariates=pd.DataFrame({"conf": case["conf"]}),
        )


def test_standardize_is_r_s_scale_within_each_batch(golden):
    case = golden("standardize_by_batch")
    model = bc.Standardize(target="unit")
    corrected = model.fit_transform(case["input"], batch=case["batch"])
    # Where a batch is constant R divides 0 by 0; ours is centred and not scaled.
    undefined = np.isnan(case["zscore"])
    expected = np.where(undefined, 0.0, case["zscore"])
    np.testing.assert_allclose(corrected, expected, rtol=0, atol=1e-10)


def test_standardize_without_scale_is_r_s_centering_within_each_batch(golden):
    case = golden("standardize_by_batch")
    model = bc.Standardize(target="unit", scale=False)
    corrected = model.fit_transform(case["input"], batch=case["batch"])
    np.testing.assert_allclose(corrected, case["centered"], rtol=0, atol=1e-10)


# -- intermediates -------------------------------------------------------------------


@combat_cases
def test_batches_and_adjusted_genes_are_r_s(golden, name):
    case = golden(name)
    model, corrected = combat(name, case)
    assert [str(level) for level in model.batches_] == list(case["batch_levels"])
    adjusted = ~np.isnan(model.details_["gamma_hat"]).any(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(adjusted), case["kept_genes"])
    np.testing.assert_array_equal(
        corrected[:, ~adjusted], np.asarray(case["input"])[:, ~adjusted]
    )


@combat_cases
def test_mean_and_variance_of_the_linear_model_are_r_s(golden, name):
    case = golden(name)
    model, _ = combat(name, case)
    kept = case["kept_genes"]
    np.testing.assert_allclose(
        model.aim_.location[kept], case["grand_mean"], rtol=1e-10
    )
    np.testing.assert_allclose(
        model.aim_.scale[kept] ** 2, case["var_pooled"], rtol=1e-10
    )


@combat_cases
@pytest.mark.parametrize(
    "quantity", ["gamma_hat", "delta_hat", "gamma_star", "delta_star"]
)
def test_effects_of_batches_are_r_s(golden, name, quantity):
    case = golden(name)
    model, _ = combat(name, case)
    found = model.details_[quantity][:, case["kept_genes"]]
    np.testing.assert_allclose(found, case[quantity], rtol=1e-10, atol=1e-11)


def assert_prior(found, expected):
    """Compare priors; a and b are infinite, or 1e31 of rounding, where not used."""
    used = expected < 1e20
    np.testing.assert_allclose(found[used], expected[used], rtol=1e-9, atol=1e-12)
    assert (found[~used] > 1e20).all()


@combat_cases
def test_priors_are_r_s(golden, name):
    case = golden(name)
    model, _ = combat(name, case)
    for quantity in PRIORS:
        assert_prior(model.details_[quantity], case[quantity])


@combat_cases
def test_coefficients_of_covariates_are_r_s(golden, name):
    case = golden(name)
    model, _ = combat(name, case)
    expected = case["B_hat"][len(case["batch_levels"]) :]
    found = model.correction_.coefficients[-len(expected) or len(expected) :]
    np.testing.assert_allclose(
        found[:, case["kept_genes"]], expected, rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in COMBAT
        if not re.search("nonparametric|meanonly|single_sample", name)
    ],
)
def test_iteration_stops_in_the_round_in_which_sva_stops(golden, name):
    case = golden(name)
    model, _ = combat(name, case)
    for level, rounds, ours in zip(
        case["batch_levels"],
        case["itsol_rounds"],
        model.details_["rounds"],
        strict=True,
    ):
        if level != str(COMBAT[name].get("reference")):  # it is not iterated here
            assert ours == rounds, level


def test_every_step_of_the_tiny_case(golden):
    """The case to debug with: s = (x - α̂ - zβ̂) / σ̂, and y from s, γ* and δ*."""
    case = golden("combat_14_tiny")
    model, corrected = combat("combat_14_tiny", case)
    aim, details = model.aim_, model.details_
    stand_mean = aim.location + case["mod"][:, 1:] @ model.correction_.coefficients
    np.testing.assert_allclose(stand_mean, case["stand_mean"], rtol=1e-12)
    s = (case["input"] - stand_mean) / aim.scale
    np.testing.assert_allclose(s, case["s_data"], rtol=1e-10, atol=1e-12)
    codes = np.searchsorted(case["batch_levels"], case["batch"].astype(str))
    y = (s - details["gamma_star"][codes]) / np.sqrt(details["delta_star"][codes])
    np.testing.assert_allclose(corrected, y * aim.scale + stand_mean, rtol=1e-12)


# -- what R refuses, and what it lets pass -------------------------------------------


@pytest.fixture(scope="module")
def odd(golden):
    return golden("combat_errors.json")


@pytest.fixture
def d(odd):
    return np.array(odd["input_samples_x_genes"])


def outcome(odd, name):
    return next(case for case in odd["cases"] if case["name"] == name)


def values(case, key="value_samples_x_genes"):
    return np.array(case[key], dtype=float)  # null becomes NaN


def combat_of(x, batch, columns=None, **options):
    table = None if columns is None else pd.DataFrame(columns)
    return bc.ComBat(**options).fit_transform(x, batch=batch, covariates=table)


def missing_at(x, rows, column, value=np.nan):
    x = x.copy()
    x[rows, column] = value
    return x


REFUSED = {  # name of R's case: error, what its message says, and the call
    "covariate_equals_batch": (
        DesignError,
        "'g' is confounded with batch",
        lambda d, o: combat_of(d, o["batch"], {"g": o["g"]}),
    ),
    "one_covariate_of_two_is_batch": (
        DesignError,
        "^'g' is confounded with batch: 'g' does",
        lambda d, o: combat_of(d, o["batch"], {"g": o["g"], "z": o["z"]}),
    ),
    "covariates_collinear": (
        DesignError,
        "'twice' and 'z' repeat each other",
        lambda d, o: combat_of(
            d, o["batch"], {"z": o["z"], "twice": 2 * np.array(o["z"])}
        ),
    ),
    "one_batch_only": (
        DesignError,
        "only one batch",
        lambda d, _: combat_of(d, np.ones(12)),
    ),
    "two_batch_columns": (
        InputError,
        "batch",
        lambda d, o: combat_of(d, np.c_[o["batch"], np.tile([1, 2], 6)]),
    ),
    "unknown_ref_batch": (
        InputError,
        "9 is not one of the batches.*'1', '2'",
        lambda d, o: combat_of(d, o["batch"], reference=9),
    ),
    "batch_too_short": (
        InputError,
        "11 labels for 12 rows",
        lambda d, o: combat_of(d, o["batch"][1:]),
    ),
    "batch_has_NA": (
        DesignError,
        "batch is missing for 1 of 12 samples",
        lambda d, o: combat_of(d, [*o["batch"][:11], None]),
    ),
    "mod_has_NA": (
        DesignError,
        "'z' is missing in 1 of 12 samples",
        lambda d, o: combat_of(d, o["batch"], {"z": [*o["z"][:11], np.nan]}),
    ),
    "infinite_value": (
        InputError,
        "infinite",
        lambda d, o: combat_of(missing_at(d, 1, 0, np.inf), o["batch"]),
    ),
    "one_gene": (
        DesignError,
        "1 of 1 features",
        lambda d, o: combat_of(d[:, :1], o["batch"]),
    ),
    "all_but_one_gene_uniform": (
        DesignError,
        "1 of 5 features",
        lambda d, o: combat_of(missing_at(d, slice(6), slice(4), 0.0), o["batch"]),
    ),
    "all_genes_uniform": (
        DesignError,
        "0 of 5 features",
        lambda d, o: combat_of(missing_at(d, slice(6), slice(5), 0.0), o["batch"]),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_r_refuses_is_refused_by_name(odd, d, name):
    assert outcome(odd, name)["status"] == "error"
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call(d, odd)


def test_one_missing_value_gives_r_s_values(odd, d):
    case = outcome(odd, "nan_value")
    assert np.isnan(values(case)[1, 0])
    corrected = combat_of(missing_at(d, 1, 0), odd["batch"])
    np.testing.assert_allclose(corrected, values(case), rtol=0, atol=1e-10)


def test_a_batch_of_one_makes_all_mean_only_with_a_warning(odd):
    case = outcome(odd, "single_sample_batch_without_mean_only")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        corrected = combat_of(values(case, "input_samples_x_genes"), case["batch"])
    np.testing.assert_allclose(corrected, values(case), rtol=0, atol=1e-10)
    told = [str(w.message) for w in caught if w.category is BatchSizeWarning]
    assert any("in all batches only the mean is corrected" in text for text in told)


def test_a_column_of_ones_among_covariates_changes_nothing(odd, d):
    assert values(outcome(odd, "intercept_in_mod_is_dropped")) == 1  # R: identical
    z = np.array(odd["z"])[:, None]
    with_ones, without = (
        bc.ComBat().fit_transform(d, batch=odd["batch"], covariates=columns)
        for columns in (np.hstack([np.ones((12, 1)), z]), z)
    )
    np.testing.assert_array_equal(with_ones, without)


# Where our policy differs from R's outcome: R stops in linear algebra, or gives noise.


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("gene_missing_in_whole_batch", slice(6)),
        ("gene_all_missing", slice(12)),
        ("gene_one_value_in_batch", slice(5)),
    ],
)
def test_a_gene_that_cannot_be_estimated_stays_where_r_fails(odd, d, name, rows):
    assert outcome(odd, name)["status"] == "error"
    x = missing_at(d, rows, 0)
    model = bc.ComBat()
    corrected = model.fit_transform(x, batch=odd["batch"])
    np.testing.assert_array_equal(corrected[:, 0], x[:, 0])
    np.testing.assert_array_equal(model.aim_.adjustable, [False] + [True] * 4)
    # The other genes are corrected as by R if one of *them* misses a value: the
    # divisor of the variance is then n - 1 instead of n for all.
    assert np.isfinite(corrected[:, 1:]).all()
    plain = bc.ComBat().fit(d[:, 1:], batch=odd["batch"])
    np.testing.assert_allclose(model.aim_.location[1:], plain.aim_.location)
    np.testing.assert_allclose(
        model.aim_.scale[1:] ** 2 * 11 / 12, plain.aim_.scale**2, rtol=1e-12
    )


def test_a_gene_constant_but_for_a_missing_value_is_adjusted_as_in_r(odd, d):
    """R sees a gene as uniform only in a batch without missing values."""
    x = missing_at(d, slice(6), 0, 5.0)
    for gap, adjusted in ((x, False), (missing_at(x, 3, 0), True)):
        model = bc.ComBat().fit(gap, batch=odd["batch"])
        assert model.aim_.adjustable[0] == adjusted
        assert np.isfinite(model.details_["delta_star"][0, 0]) == adjusted
    assert model.details_["delta_hat"][0, 0] == 0


def test_identical_genes_are_corrected_where_r_divides_0_by_0(odd, d):
    assert outcome(odd, "identical_genes")["status"] == "error"
    x = np.repeat(d[:, :1], 3, axis=1)
    corrected = combat_of(x, odd["batch"])
    # All genes agree on the batch effects, so nothing is shrunk: batch means become
    # the common mean, batch variances (n - 1) the pooled one (n).
    batch = np.array(odd["batch"])
    pooled = sum(x[batch == b].var(axis=0) for b in (1, 2)) / 2
    for b in (1, 2):
        np.testing.assert_allclose(corrected[batch == b].mean(axis=0), x.mean(axis=0))
        np.testing.assert_allclose(corrected[batch == b].var(axis=0, ddof=1), pooled)


def test_a_reference_of_one_sample_is_refused_where_r_gives_noise(odd, d):
    assert outcome(odd, "single_sample_ref_batch")["status"] == "ok"
    with pytest.raises(DesignError, match="reference batch 1 has only one sample"):
        combat_of(d, [1] + [2] * 6 + [3] * 5, reference=1)


def test_every_odd_case_of_r_is_tested(odd):
    here = Path(__file__).read_text(encoding="utf-8")
    for case in odd["cases"]:
        assert re.search(rf'"{case["name"]}"', here), case["name"]


# -- the whole bladder matrix --------------------------------------------------------


@pytest.fixture(scope="module")
def bladder():
    return bc.datasets.bladder()


WHOLE = {  # case: what is kept, and how
    "combat_nocov": (bc.ComBat, {}, None),
    "combat_cancer": (bc.ComBat, {}, ["cancer"]),
    "combat_meanonly_cancer": (bc.ComBat, {"mean_only": True}, ["cancer"]),
    "combat_ref5_cancer": (bc.ComBat, {"reference": "5"}, ["cancer"]),
    "removeBatchEffect_design_cancer": (bc.RemoveBatchEffect, {}, ["cancer"]),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_bladder_matrix_has_r_s_checksums(bladder, golden, name):
    summary = golden("bladder_full_summary.json")[name]
    method, options, kept = WHOLE[name]
    batch = bladder.obs["batch"].to_numpy()
    model = method(**options)
    y = model.fit_transform(
        bladder.X,
        batch=bladder.obs["batch"],
        covariates=None if kept is None else bladder.obs[kept],
    )
    assert list(y.shape) == summary["shape_samples_x_genes"]
    whole = {
        "mean": y.mean(),
        "sd": y.std(ddof=1),
        "min": y.min(),
        "max": y.max(),
        "sum": y.sum(),
        "sum_sq": (y**2).sum(),
        "mean_abs_row_sd": y.std(axis=0, ddof=1).mean(),
    }
    for key, value in whole.items():
        np.testing.assert_allclose(value, summary[key], rtol=1e-11, err_msg=key)
    for level, expected in summary["per_batch"].items():
        part = y[batch == level]
        found = [len(part), part.mean(), part.std(ddof=1), part.min(), part.max()]
        keys = ["n", "mean", "sd", "min", "max"]
        np.testing.assert_allclose(found, [expected[k] for k in keys], rtol=1e-11)
    assert len(summary["entries"]) == 25
    for entry in summary["entries"]:
        found = y[entry["sample0"], entry["gene0"]]
        np.testing.assert_allclose(found, entry["value"], rtol=0, atol=1e-10)
    if method is bc.ComBat:
        for key in PRIORS:
            expected = [np.inf if value is None else value for value in summary[key]]
            assert_prior(model.details_[key], np.array(expected))
        np.testing.assert_allclose(
            (model.aim_.scale**2).sum(), summary["sum_var_pooled"], rtol=1e-11
        )
