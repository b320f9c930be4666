"""docs/agreement.md is true: every row of its tables is run, and must say what came.

The first table says how far results are from R's, and what difference is let pass: the
bound that stands there is the one that is held here. The others say what R does and
what batchcorr does with odd input; their cells are made from R's recorded outcome, where
there is one, and from running batchcorr.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.arrays.feature_counts import FeatureCounts
from batchcorr.errors import BatchCorrError, FeatureWarning, InputError
from batchcorr.estimators.metadata import Labels
from batchcorr.models.counts import dispersion, distribution
from batchcorr.models.counts.regression import fit_features
from batchcorr.models.quantiles import sorted_values, to_quantiles
from tests.conftest import GOLDEN
from tests.methods.test_combat_seq import CASES as COMBAT_SEQ
from tests.methods.test_combat_seq import covariates_of, estimator_of, load
from tests.methods.test_golden import (
    COMBAT,
    RBE,
    REFUSED,
    WHOLE,
    combat,
    in_level,
    missing_at,
    remove,
    single,
)
from tests.reference_combat import combat as by_the_formulas

PAGE = Path(__file__).resolve().parents[1] / "docs" / "agreement.md"
ROUNDING = 1e-10

pytestmark = pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")


def rows_under(heading):
    """Return the cells of the table under a heading, without its two head lines."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# -- how far from R ------------------------------------------------------------------


def apart(found, expected):
    """Return the largest difference; what is missing must be so in both."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    known = ~np.isnan(expected)  # R's NA is a signalling NaN: not to be subtracted
    return float(np.abs(found[known] - expected[known]).max(initial=0.0))


def relative(found, expected):
    return apart(np.asarray(found) / expected, np.ones_like(expected))


def combat_values(name):
    case = load(name)
    return apart(combat(name, case)[1], case["expected"])


def combat_single(name):
    case = load(name)
    return apart(combat(name, case, single(case["input"]))[1], case["expected"])


def combat_effects(name):
    case = load(name)
    details, kept = combat(name, case)[0].details_, case["kept_genes"]
    names = ("gamma_hat", "delta_hat", "gamma_star", "delta_star")
    return max(apart(details[key][:, kept], case[key]) for key in names)


def combat_rounds(name):
    case = load(name)
    iterated = case["batch_levels"] != str(COMBAT[name].get("reference"))
    found = np.array(combat(name, case)[0].details_["rounds"])
    return apart(found[iterated], case["itsol_rounds"][iterated])


def whole(name):
    """Return the largest differences of single values, and relative ones of sums."""
    method, options, kept = WHOLE[name]
    bladder = bc.datasets.bladder()
    y = method(**options).fit_transform(
        bladder.X,
        batch=bladder.obs["batch"],
        covariates=None if kept is None else bladder.obs[kept],
    )
    said = json.loads((GOLDEN / "bladder_full_summary.json").read_text("utf-8"))[name]
    values = [(y[e["sample0"], e["gene0"]], e["value"]) for e in said["entries"]]
    sums = [(y.sum(), said["sum"]), ((y**2).sum(), said["sum_sq"])]
    return apart(*np.transpose(values)), relative(*np.transpose(sums))


def limma_values(name):
    case = load(name)
    corrected = remove(case)
    return apart(corrected, in_level(case, corrected))


def standardized(scale):
    case = load("standardize_by_batch")
    found = bc.Standardize(target="unit", scale=scale).fit_transform(
        case["input"], batch=case["batch"]
    )
    expected = case["zscore" if scale else "centered"]
    defined = ~np.isnan(expected)  # R divides 0 by 0 where a batch is constant
    return apart(found[defined], expected[defined])


NORM = ("norm_01_bulk", "norm_02_sparse")
FACTORS = ("tmm", "tmmwsp", "rle", "upperquartile", "median_of_ratios", "poscounts")


def factors(name, method):
    case = load(name)
    return relative(bc.normalization_factors(case["counts"], method), case[method])


def log_cpm(name, method):
    case = load(name)
    expected = case["logcpm_prior2" if method == "total" else "logcpm_tmm_prior2"]
    step = bc.LogNormalize(method, prior_count=2)
    return apart(step.fit_transform(case["counts"].astype(float)), expected)


def between_lanes(which):
    case = load("edaseq_between_lane")
    counts = case["counts"].astype(float)
    if which == "full":
        target = np.median(sorted_values(counts), axis=0)
        return relative(to_quantiles(counts, target, ties=False) + 1, case["full"] + 1)
    upper = bc.normalization_factors(counts, "upperquartile") * counts.sum(axis=1)
    level = upper if which == "upper" else np.median(counts, axis=1)
    return relative(counts * (level.mean() / level)[:, None] + 1, case[which] + 1)


def quantiles(name, given, expected, *, ties=True):
    case = load(name)
    found = bc.QuantileNormalize(ties=ties).fit_transform(case[given])
    if ties:
        return apart(found, case[expected])
    return apart(np.sort(found, axis=1), np.sort(case[expected], axis=1))


@functools.cache
def combat_seq(name):
    """Return R's case, batchcorr's counts, its model and its means."""
    case = load(name)
    kept = covariates_of(case)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = estimator_of(case, patch)
        found = estimator.fit_transform(
            case["counts"], batch=case["batch"], covariates=kept
        )
    design = estimator._metadata.design(len(case["batch"]), Labels(case["batch"], kept))
    model = estimator.model_
    library = case["counts"][:, model.adjusted].sum(axis=1)
    means, _ = model.means(design, np.log(library), slice(None))
    return case, found, model, means


def seq_converged(name):
    case, found, _, _ = combat_seq(name)
    return apart(found, case["converged_expected"])


def seq_share(name):
    case, found, _, _ = combat_seq(name)
    return float((found != case["expected"]).mean())


def seq_largest(name):
    case, found, _, _ = combat_seq(name)
    return apart(found, case["expected"])


def seq_means(name):
    case, _, _, means = combat_seq(name)
    return relative(means[case["kept_genes"]].T + 1e-4, case["converged_mu_hat"] + 1e-4)


def seq_dispersions(name):
    case, _, model, _ = combat_seq(name)
    expected = case["converged_phi_hat"] + 1e-8
    return relative(model.phi[case["kept_genes"]].T + 1e-8, expected)


def gene_rows(counts):
    return np.ascontiguousarray(counts.T, dtype=float)


def dispersions(which):
    case = load("edger_dispersion_steps")
    z = np.ascontiguousarray(case["design"][:, 1:], dtype=float)
    counts = FeatureCounts.of(case["counts"])
    common, tagwise = dispersion.batch_dispersions(counts, z, case["offset"])
    if which == "common":
        return relative(common, case["disp_common"])
    return relative(tagwise, case["disp_tagwise"])


def coefficients(prior):
    case = load("edger_glmfit")
    codes = np.argmax(case["design"][:, :3], axis=1).astype(np.int32)
    z = np.ascontiguousarray(case["design"][:, 3:], dtype=float)
    offset = np.log(case["counts"].sum(axis=1))
    phi = np.stack([case["dispersion"][codes == b][0] for b in range(3)], axis=1)
    beta = fit_features(gene_rows(case["counts"]), codes, z, offset, phi, prior=prior)
    return apart(beta.T, case["coef_prior_1e4" if prior else "coef_unshrunk"])


def matched():
    case = load("match_quantiles")
    names = ("y", "old_mu", "old_phi", "new_mu")
    given = [case[key].astype(float)[:, None] for key in names]
    out = np.empty_like(given[0])
    unbounded = np.full_like(out, np.inf)
    new_phi = case["new_phi"].astype(float)
    distribution.match_quantiles(*given, new_phi, unbounded, out)
    return apart(out[:, 0], case["expected"])


def over(measure, *cases):
    """Return a measure over cases: arguments of `measure`, one or a tuple a case."""
    return [functools.partial(measure, *np.atleast_1d(case)) for case in cases]


FLOAT32 = sorted({*COMBAT} - {"combat_10_uniform_genes"})
ITERATED = [n for n in COMBAT if not re.search("nonparam|meanonly|single_sample", n)]

MEASURES = {  # first cells of a row: the cases that it is about
    ("sva::ComBat", "corrected values"): over(combat_values, *COMBAT),
    ("sva::ComBat", "γ̂, δ̂², γ*, δ*²"): over(combat_effects, *COMBAT),
    ("sva::ComBat", "rounds of the iteration"): over(combat_rounds, *ITERATED),
    ("sva::ComBat", "corrected values, float32"): over(combat_single, *FLOAT32),
    ("limma::removeBatchEffect", "corrected values"): over(limma_values, *RBE),
    ("both, 22,283 genes", "25 single values a case"): [
        lambda name=name: whole(name)[0] for name in WHOLE
    ],
    ("both, 22,283 genes", "sums and sums of squares, relative"): [
        lambda name=name: whole(name)[1] for name in WHOLE
    ],
    ("scale, batch by batch", "standardized, and centred, values"): [
        lambda scale=scale: standardized(scale) for scale in (True, False)
    ],
    ("edgeR::calcNormFactors and DESeq's formulas", "factors, relative"): over(
        factors, *((name, method) for name in NORM for method in FACTORS)
    ),
    ("edgeR::cpm(log=TRUE, prior.count=2)", "log2 CPM"): over(
        log_cpm, *((name, method) for name in NORM for method in ("total", "tmm"))
    ),
    ("EDASeq::betweenLaneNormalization", "counts + 1, relative"): over(
        between_lanes, "upper", "median", "full"
    ),
    ("limma::normalizeQuantiles", "values"): over(
        quantiles,
        ("quantile_01_small", "input", "ties_true"),
        ("quantile_01_small", "input_missing", "missing_ties_true"),
        ("quantile_02_bladder", "input", "expected"),
        ("quantile_02_bladder", "input_rounded", "expected_rounded"),
    ),
    ("limma::normalizeQuantiles(ties=FALSE)", "sorted values of a sample"): [
        functools.partial(quantiles, "quantile_01_small", *names, ties=False)
        for names in (("input", "ties_false"), ("input_missing", "missing_ties_false"))
    ],
    ("sva::ComBat_seq, fits run to the end", "counts"): over(
        seq_converged, *COMBAT_SEQ
    ),
    ("sva::ComBat_seq, fits run to the end", "means (+ 1e-4), relative"): over(
        seq_means, *COMBAT_SEQ
    ),
    ("sva::ComBat_seq, fits run to the end", "dispersions (+ 1e-8), relative"): over(
        seq_dispersions, *COMBAT_SEQ
    ),
    ("sva::ComBat_seq, as it is", "share of counts that differ"): over(
        seq_share, *COMBAT_SEQ
    ),
    ("sva::ComBat_seq, as it is", "counts"): over(seq_largest, *COMBAT_SEQ),
    ("edgeR::estimateGLMCommonDisp", "dispersion, relative"): over(
        dispersions, "common"
    ),
    ("edgeR::estimateGLMTagwiseDisp", "dispersions, relative"): over(
        dispersions, "tagwise"
    ),
    ("edgeR::glmFit", "coefficients"): [
        functools.partial(coefficients, prior) for prior in (0.0, 1e-4)
    ],
    ("sva:::match_quantiles", "counts"): [matched],
}


def figures():
    """Return the first table: cases, largest difference and bound by first cells."""
    return {
        (row[0].replace("`", ""), row[2]): (int(row[1]), float(row[3]), float(row[4]))
        for row in rows_under("How close")
    }


def test_every_family_has_its_row():
    assert [*figures()] == [*MEASURES]


@pytest.mark.parametrize("key", MEASURES, ids=" ".join)
def test_results_are_as_close_to_r_as_the_page_says(key):
    cases, said, held = figures()[key]
    assert cases == len(MEASURES[key])
    found = max(measure() for measure in MEASURES[key])
    assert said <= held
    # Rounding differs a little from machine to machine.
    assert found <= min(held, 10 * said)


def test_missing_values_count_only_in_genes_that_are_corrected():
    """sva divides by n - 1, not n, once a value is missing, but leaves genes first."""
    x = D.copy()
    x[:6, 0] = 5.0  # constant in a batch: it stays as it is
    whole_gene = bc.ComBat().fit_transform(x, batch=TWO)
    x[8, 0] = np.nan
    with_gap = bc.ComBat().fit_transform(x, batch=TWO)
    np.testing.assert_array_equal(with_gap[:, 0], x[:, 0])
    np.testing.assert_array_equal(with_gap[:, 1:], whole_gene[:, 1:])


# -- odd input -----------------------------------------------------------------------


class Outcome(NamedTuple):
    """What came of a call that did not fail."""

    before: np.ndarray
    after: np.ndarray
    like: str = ""
    wanted: np.ndarray | None = None


def told(outcome):
    """Return an outcome in words; no number may be missing that was not before."""
    before, after, like, wanted = outcome
    assert np.isfinite(after[np.isfinite(before)]).all()
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    still = np.flatnonzero(same.all(axis=0)) + 1
    if len(still) == before.shape[1]:
        return "all unchanged"
    words = "corrected"
    if len(still):
        genes = f"gene{'s' * (len(still) > 1)} {', '.join(map(str, still))}"
        words = f"{genes} unchanged, the others corrected"
    if wanted is not None:
        np.testing.assert_allclose(after, wanted, rtol=0, atol=ROUNDING)
        words += f", {like}"
    return words


def what_comes(call):
    """Return a cell: the error's first sentence, or what was done, and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            outcome = call()
        except BatchCorrError as error:
            first = re.split(r"(?<=[.?!])\s", str(error))[0]
            return f"`{type(error).__name__}`: {first}"
    words = outcome if isinstance(outcome, str) else told(outcome)
    names = dict.fromkeys(w.category.__name__ for w in caught)
    return words + "".join(f"; warns (`{name}`)" for name in names)


def what_r_did(case):
    """Return a cell: R's error (the last line, where it is wrapped), or that it ran."""
    if case["status"] == "ok":
        return "runs"
    return f"`{case['error'].strip().splitlines()[-1]}`"


ODD = json.loads((GOLDEN / "combat_errors.json").read_text("utf-8"))
D = np.array(ODD["input_samples_x_genes"])
TWO = np.array(ODD["batch"])


def recorded(name, key="value_samples_x_genes"):
    case = next(case for case in ODD["cases"] if case["name"] == name)
    return np.array(case[key], dtype=float)


def corrected(x, batch, like="", wanted=None, covariates=None, **options):
    found = bc.ComBat(**options).fit_transform(x, batch=batch, covariates=covariates)
    return Outcome(x, found, like, wanted)


def with_a_batch_of_one():
    name = "single_sample_batch_without_mean_only"
    x, batch = recorded(name, "input_samples_x_genes"), recorded(name, "batch")
    return corrected(x, batch.astype(int), "R's values", recorded(name))


def with_ones():
    z = np.array(ODD["z"])[:, None]
    alone = bc.ComBat().fit_transform(D, batch=TWO, covariates=z)
    both = np.hstack([np.ones_like(z), z])
    return corrected(D, TWO, "as without that column", alone, covariates=both)


COMBAT_CALLS = {
    **{name: functools.partial(call, D, ODD) for name, (_, _, call) in REFUSED.items()},
    "one_batch_only": lambda: corrected(D, np.ones(12, dtype=int)),
    "gene_missing_in_whole_batch": lambda: corrected(missing_at(D, slice(6), 0), TWO),
    "gene_all_missing": lambda: corrected(missing_at(D, slice(12), 0), TWO),
    "gene_one_value_in_batch": lambda: corrected(missing_at(D, slice(5), 0), TWO),
    "nan_value": lambda: corrected(
        missing_at(D, 1, 0), TWO, "R's values", recorded("nan_value")
    ),
    "identical_genes": lambda: corrected(np.repeat(D[:, :1], 3, axis=1), TWO),
    "single_sample_batch_without_mean_only": with_a_batch_of_one,
    "single_sample_ref_batch": lambda: corrected(
        D, np.repeat([1, 2, 3], [1, 6, 5]), reference=1
    ),
    "intercept_in_mod_is_dropped": with_ones,
}

# Sixty genes of 24 samples in batches of 8, as R had; its own counts are not kept.
COUNTS = load("combatseq_01_group")["counts"][:, :60]
THREE = np.repeat([1, 2, 3], 8)
GROUP, AGE = np.tile([0, 1], 12), np.arange(30.0, 54.0)


def counts_at(row, column, value):
    counts = COUNTS.astype(float)
    counts[row, column] = value
    return counts


def seq_of(counts, batch, columns=None, like="", wanted=None):
    table = None if columns is None else pd.DataFrame(columns)
    found = bc.ComBatSeq().fit_transform(counts, batch=batch, covariates=table)
    return Outcome(counts, found, like, wanted)


def seq_like(columns, like, other=None):
    return seq_of(COUNTS, THREE, columns, like, seq_of(COUNTS, THREE, other).after)


COMBAT_SEQ_CALLS = {
    "single_sample_batch": lambda: seq_of(COUNTS, [1] + [2] * 23),
    "one_batch_only": lambda: seq_of(COUNTS, [1] * 24),
    "group_equals_batch": lambda: seq_of(
        COUNTS[:16], THREE[:16], {"group": THREE[:16].astype(str)}
    ),
    "covar_collinear": lambda: seq_of(COUNTS, THREE, {"z": AGE, "twice": 2 * AGE}),
    "covar_equals_batch_beside_group": lambda: seq_of(
        COUNTS, THREE, {"group": GROUP.astype(str), "a": np.equal(THREE, 1) * 1.0}
    ),
    "missing_count": lambda: seq_of(counts_at(1, 2, np.nan), THREE),
    "negative_count": lambda: seq_of(counts_at(0, 0, -1), THREE),
    "fractional_counts": lambda: seq_of(COUNTS + 0.5, THREE),
    "empty_sample": lambda: seq_of(counts_at(2, slice(None), 0), THREE),
    "covar_dataframe_with_factor_of_three": lambda: seq_of(
        COUNTS, THREE, {"f": np.tile(list("abc"), 8)}
    ),
    "covar_one_column_matrix_constant": lambda: seq_like(
        {"one": np.ones(24)}, "as without that column"
    ),
    "group_given_as_numbers": lambda: seq_like(
        {"g": GROUP}, "as with words for groups", {"g": GROUP.astype(str)}
    ),
}

TABLES = {
    "Odd input to ComBat": ("combat_errors.json", COMBAT_CALLS),
    "Odd input to ComBat-seq": ("combatseq_errors.json", COMBAT_SEQ_CALLS),
}


def cases_of(file):
    return json.loads((GOLDEN / file).read_text("utf-8"))["cases"]


@pytest.mark.parametrize("heading", TABLES)
def test_every_case_of_r_has_its_row(heading):
    file, calls = TABLES[heading]
    names = [case["name"] for case in cases_of(file)]
    assert [row[0] for row in rows_under(heading)] == names
    assert sorted(calls) == sorted(names)


@pytest.mark.parametrize(
    ("heading", "case"),
    [(heading, case) for heading in TABLES for case in cases_of(TABLES[heading][0])],
    ids=lambda value: value["name"] if isinstance(value, dict) else value,
)
def test_the_page_says_what_r_and_batchcorr_do(heading, case):
    row = next(row for row in rows_under(heading) if row[0] == case["name"])
    call = TABLES[heading][1][case["name"]]
    assert row[1:4] == [f"`{case['call']}`", what_r_did(case), what_comes(call)]


# -- where batchcorr differs on purpose ----------------------------------------------

X = np.random.default_rng(0).normal(5, 1, (18, 8)) + np.repeat([0, 1, 3], 6)[:, None]
B = np.repeat([1, 2, 3], 6)
HALF = np.tile([0.0, 1.0], 9)[:, None]
SMALL = np.array([[5, 3, 0], [0, 2, 9], [1, 0, 1]])
ALONE = np.array([[5, 2, 3, 4], [np.nan, np.nan, np.nan, 7], [3, 4, 6, 8]])


def without(rows):
    return missing_at(X, rows, 0)


def removed(x, batch=B, covariates=None, like="", wanted=None, **others):
    found = bc.RemoveBatchEffect().fit_transform(
        x, batch=batch, covariates=covariates, **others
    )
    return Outcome(np.asarray(x), found, like, wanted)


def weights_of_samples():
    x, batch, weights = X[:8], B[:8], np.arange(1.0, 9.0)
    each = removed(x, batch, weights=np.tile(weights, (8, 1)).T).after
    assert np.abs(each - removed(x, batch).after).max() > 0.01
    return removed(
        x, batch, like="as with these for every gene", wanted=each, weights=weights
    )


def small_reference():
    batch = np.repeat([1, 2, 3], [2, 8, 8])
    oracle = by_the_formulas(X, batch, np.empty((18, 0)), reference=1)
    return corrected(X, batch, "as the formulas have it", oracle, reference=1)


def many_samples():
    most = ODD["nonparametric_large_batches"]
    assert (most["samples_per_batch"][-1], most["share_NaN"][-1]) == (600, 1)
    x = np.random.default_rng(22).normal(size=(1200, 5))
    return corrected(x, np.repeat([1, 2], 600), parametric=False)


def explained():
    x = X.copy()
    x[:, 0] = 2 * HALF[:, 0] + B
    return corrected(x, B, covariates=HALF)


def saturated():
    z = np.random.default_rng(1).normal(size=(18, 15))
    return corrected(X, B, covariates=z)


def confounded():
    case = load("rbe_08_confounded")
    assert "not estimable" in str(case["r_messages"])
    table = pd.DataFrame({"conf": case["conf"]})
    return removed(case["input"], case["batch"], table)


def off_centre():
    case = load("rbe_03_batch_covariates")
    moved = remove(case) - case["expected"]
    assert (np.abs(moved).max(axis=0) > 1e-6).all()
    assert (np.ptp(moved, axis=0) < ROUNDING).all()
    return "as R, but for one constant a gene"


def constant_in_a_batch():
    case = load("standardize_by_batch")
    assert np.isnan(case["zscore"]).any()
    found = bc.Standardize(target="unit").fit_transform(
        case["input"], batch=case["batch"]
    )
    assert (np.abs(found[np.isnan(case["zscore"])]) < ROUNDING).all()
    return "centred: 0"


def empty_sample(method):
    counts = np.array([[5, 3, 2, 8], [0, 0, 0, 0], [4, 1, 7, 2]])
    found = bc.normalization_factors(counts, method)
    alone = bc.normalization_factors(counts[[0, 2]], method)
    np.testing.assert_array_equal(found[[0, 2]], alone)
    return f"takes no part; its factor is {found[1]:g}"


def no_factors(counts, method):
    return str(bc.normalization_factors(counts, method))


def one_value():
    step = bc.QuantileNormalize().fit(ALONE)
    middle = step.target_[1:3].mean()
    np.testing.assert_allclose(step.transform(ALONE)[1], [np.nan] * 3 + [middle])
    return "it becomes the middle of the target"


def quantiles_of(value):
    return str(bc.QuantileNormalize().fit_transform(np.where(ALONE == 7, value, ALONE)))


POLICIES = {
    "`ComBat`: a gene missing throughout one of three batches": lambda: corrected(
        without(B == 1), B
    ),
    "`ComBat`: a gene whose covariate never varies among its values": lambda: corrected(
        without(HALF[:, 0] == 1), B, covariates=HALF
    ),
    "`ComBat`: a gene that batch and covariates explain to the last digit": explained,
    "`ComBat`: as many batches and covariates as samples": saturated,
    "`ComBat`: a reference batch of two samples": small_reference,
    "`ComBat(par.prior=FALSE)`: 600 samples in a batch": many_samples,
    "`ComBat(par.prior=FALSE)`: a gene with one value in a batch": lambda: corrected(
        without(slice(5)), B, parametric=False
    ),
    "`removeBatchEffect`: a kept covariate confounded with batch": confounded,
    "`removeBatchEffect`: a gene missing throughout one of three batches": (
        lambda: removed(without(B == 1))
    ),
    "`removeBatchEffect`: a batch without any weight": lambda: removed(
        X, weights=np.where(B == 1, 0.0, 1.0)
    ),
    "`removeBatchEffect`: weights of samples, as many as genes": weights_of_samples,
    "`removeBatchEffect`: a nuisance that is a batch": lambda: removed(
        X,
        nuisance=np.equal(B, 1)[:, None] * 1.0,
        like="as without it",
        wanted=removed(X).after,
    ),
    "`removeBatchEffect`: nuisances whose mean is not 0": off_centre,
    "`removeBatchEffect`: an infinite value": lambda: removed(
        missing_at(X, 0, 0, np.inf)
    ),
    "`removeBatchEffect`: one batch only": lambda: removed(X, np.ones(18, dtype=int)),
    "`removeBatchEffect`: a batch label is missing": lambda: removed(
        X, [*B[:17], None]
    ),
    "`scale` in each batch: a gene constant in a batch": constant_in_a_batch,
    '`calcNormFactors(method="TMM")`: a sample without counts': lambda: empty_sample(
        "tmm"
    ),
    '`calcNormFactors(method="RLE")`: the same': lambda: empty_sample("rle"),
    '`calcNormFactors(method="RLE")`: no gene has counts in all samples': lambda: (
        no_factors(SMALL, "rle")
    ),
    '`calcNormFactors(method="upperquartile")`: a quartile is 0': lambda: no_factors(
        np.array([[1, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]]), "upperquartile"
    ),
    "`calcNormFactors`: a negative count": lambda: no_factors(
        np.array([[-1, 3, 2], [1, 2, 3]]), "tmm"
    ),
    "`normalizeQuantiles`: a sample without values": lambda: quantiles_of(np.nan),
    "`normalizeQuantiles`: a sample of one value": one_value,
    "`normalizeQuantiles`: an infinite value": lambda: quantiles_of(np.inf),
}


def test_every_difference_has_its_row():
    assert [row[0] for row in rows_under("Different on purpose")] == [*POLICIES]


@pytest.mark.parametrize("name", POLICIES)
def test_the_page_says_what_batchcorr_does_instead(name):
    row = next(row for row in rows_under("Different on purpose") if row[0] == name)
    assert row[2] == what_comes(POLICIES[name])


# -- where it falls short ------------------------------------------------------------


@pytest.mark.parametrize("method", [bc.RemoveBatchEffect, bc.Standardize])
def test_without_any_gene_to_correct_all_comes_back_and_this_is_said(method):
    x = missing_at(X, B == 1, slice(None))
    with pytest.warns(FeatureWarning, match="8 of 8 features cannot be corrected"):
        model = method().fit(x, batch=B)
    assert not model.aim_.adjustable.any()
    assert told(Outcome(x, model.transform(x, batch=B))) == "all unchanged"
    refused = what_comes(lambda: corrected(x, B))
    assert refused == (
        "`DesignError`: 0 of 8 features can be corrected: every value of batch 1 is "
        "missing."
    )


def test_features_whose_squares_underflow_look_constant():
    """standardize aligns their means alone, and data of such features are refused."""
    usual, small = (
        bc.Standardize().fit_transform(X * unit, batch=B) / unit
        for unit in (1.0, 1e-140)
    )
    np.testing.assert_allclose(small, usual, rtol=1e-10)
    units = np.where(np.arange(X.shape[1]) == 0, 1e-200, 1.0)
    one_tiny = bc.Standardize().fit_transform(X * units, batch=B) / units
    centred = bc.Standardize(scale=False).fit_transform(X, batch=B)
    np.testing.assert_allclose(one_tiny[:, 0], centred[:, 0], rtol=1e-10)
    assert np.abs(centred[:, 0] - usual[:, 0]).max() > 0.1
    for method in (bc.ComBat, bc.Standardize):
        with pytest.raises(InputError, match="below the range of float64"):
            method().fit(X * 1e-200, batch=B)
