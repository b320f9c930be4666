"""The test of uncorrected values on AnnData: limma's numbers, every kind of matrix."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import stats
from scipy.stats import false_discovery_control

import batchcorr as bc
from batchcorr.errors import (
    CountsWarning,
    DesignError,
    InputError,
    MissingKeyError,
    RepeatWarning,
    TooLargeError,
)
from batchcorr.estimators.voom import Voom
from tests.conftest import IN_MEMORY, LAZY


@pytest.fixture(scope="module")
def bladder(golden):
    r = golden("limma_00_bladder_input")
    obs = pd.DataFrame(
        {
            name: r[name].astype(str)
            for name in ("batch", "cancer", "run_date", "subject")
        },
        index=[f"s{k}" for k in range(57)],
    )
    obs["age"], obs["rin"], obs["weight"] = r["age"], r["rin"], r["weights_array"]
    return ad.AnnData(
        r["input"], obs=obs, var=pd.DataFrame(index=r["genes"].astype(str))
    )


def close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, rtol=tolerance)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")
@pytest.mark.parametrize("variant", ["ordinary", "trend", "trendrobust"])
def test_equal_to_limma(bladder, golden, variant):
    r = golden("limma_01_bladder_cancer")
    options = {"trend": "trend" in variant, "robust": "robust" in variant}
    table = bc.tl.differential(bladder, "batch", "cancer", **options)
    stem = f"{variant}_converged_" if "robust" in variant else f"{variant}_"
    for k, level in enumerate(["Cancer", "Normal"]):
        close(table[f"t[{level}]"], r[f"{stem}t"][k])
    if variant == "ordinary":
        close(table["f"], r["ordinary_F"])
        close(table["p_value"], r["ordinary_F_p_value"])
        close(table["p_adjusted"], r["ordinary_F_adj_p_value"], 1e-8)
        close(table["ci_low[Normal]"], r["ordinary_ci_low"][1], 1e-8)
        close(table["mean"], r["Amean"])
    assert list(table.index) == list(bladder.var_names)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_two_batch_factors_covariates_and_nuisances(bladder, golden):
    r = golden("limma_06_bladder_two_batches_covariates")
    part = bladder[:, r["genes0"]].copy()
    table = bc.tl.differential(
        part, ["batch", "run_date"], "cancer", covariates="age", nuisance="rin"
    )
    close(table["t[Cancer]"], r["ordinary_t"][0])
    close(table["f"], r["ordinary_F"])
    same = bc.tl.differential(
        part, ["batch", "run_date"], "cancer", covariates="~ cancer + age + rin"
    )
    close(same["f"], r["ordinary_F"])


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_weights_of_samples(bladder, golden):
    r = golden("limma_08_bladder_array_weights")
    part = bladder[:, r["genes0"]].copy()
    for weights in ("weight", part.obs["weight"].to_numpy()):
        table = bc.tl.differential(part, "batch", "cancer", weights=weights)
        close(table["t[Normal]"], r["ordinary_t"][1])


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_weights_of_values(bladder, golden):
    r = golden("limma_09_bladder_observation_weights")
    part = bladder[:, r["genes0"]].copy()
    given = np.maximum(r["weights"], 0)  # limma takes negative ones for missing
    part.layers["precision"] = given
    for weights in ("precision", given):
        table = bc.tl.differential(part, "batch", "cancer", weights=weights)
        close(table["t[Normal]"], r["ordinary_t"][1])


def repeated(golden, name):
    """The samples of a case with subjects, and its results."""
    r, source = golden(name), golden("limma_24_duplicate_correlation")
    obs = pd.DataFrame(
        {
            "batch": r["design"][:, 1].astype(int).astype(str),
            "time": r["design"][:, 2],
            "who": r["block"].astype(str),
            "weight": source["weights"],
        },
        index=[f"s{k}" for k in range(24)],
    )
    missing = "use_input_missing" in r
    return r, ad.AnnData(source["input_missing" if missing else "input"], obs=obs)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CovariateWarning")
@pytest.mark.parametrize(
    "name", ["25_block_fit", "26_block_missing_fit", "27_block_weights_fit"]
)
def test_samples_of_one_subject(golden, name):
    r, adata = repeated(golden, f"limma_{name}")
    options = {"weights": "weight"} if "weights" in r else {}
    table = bc.tl.differential(
        adata, "batch", "time", subject="who", key_added="de", **options
    )
    close(table["t"], r["ordinary_t"][0])
    close(table["p_value"], r["ordinary_p_value"][0])
    correlation = table.attrs["subject_correlation"]
    assert correlation == pytest.approx(float(r["correlation"]), rel=1e-10)
    assert adata.uns["de"]["params"]["subject_correlation"] == correlation


def test_subjects_that_are_not_independent_are_not_taken_for_it():
    """Null data, subjects of one group each: 5 % are found with them, more without."""
    rng = np.random.default_rng(2)
    who = np.repeat(np.arange(16), 3)
    obs = pd.DataFrame(
        {"who": [f"p{k}" for k in who], "group": np.where(who % 2, "a", "b")},
        index=[f"s{k}" for k in range(48)],
    )
    obs["batch"] = np.tile(["x", "y", "z"], 16)
    x = rng.normal(size=(48, 1500)) + rng.normal(size=(16, 1500))[who]
    adata = ad.AnnData(x, obs=obs)
    alike = bc.tl.differential(adata, "batch", "group", subject="who")
    assert (alike["p_value"] < 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert alike.attrs["subject_correlation"] == pytest.approx(0.5, abs=0.03)
    alone = bc.tl.differential(adata, "batch", "group")
    assert (alone["p_value"] < 0.05).mean() > 0.1


@pytest.fixture
def counted(golden):
    r = golden("limma_22_voom_fit")
    design = r["design"]
    obs = pd.DataFrame(
        {
            "batch": np.where(design[:, 1] == 1, "2", np.where(design[:, 2], "3", "1")),
            "group": np.where(design[:, 3] == 1, "b", "a"),
        },
        index=[f"s{k}" for k in range(24)],
    )
    return r, ad.AnnData(r["counts"].astype(np.float32), obs=obs)


def test_counts_are_weighed_by_their_precision(counted):
    r, adata = counted
    table = bc.tl.differential(adata, "batch", "group", voom=True)
    close(table["mean"], r["Amean"])
    seen = adata.X.any(
        axis=0
    )  # R tests what has no counts; it tells library sizes apart
    assert 0 < np.sum(~seen) < 5
    assert table.loc[~seen, ["t", "p_value", "p_adjusted"]].isna().all(axis=None)
    close(table["t"][seen], r["ordinary_t"][0][seen])
    close(table["p_value"][seen], r["ordinary_p_value"][0][seen])
    adjusted = false_discovery_control(r["ordinary_p_value"][0][seen])
    close(table["p_adjusted"][seen], adjusted)
    close(table["log2_fold_change"], table["coefficient"])
    by_tmm = bc.tl.differential(adata, "batch", "group", voom="tmm")
    factors = bc.normalization_factors(adata.X)
    assert np.abs(np.log(factors)).max() > 0.01
    sizes = adata.X.sum(axis=1, dtype=float) * factors
    logs = np.log2((adata.X + 0.5) / (sizes[:, None] + 1) * 1e6)
    close(by_tmm["mean"], logs.mean(axis=0))


def test_features_with_few_counts_are_left_out_as_edger_does(counted):
    """filterByExpr written out: counts per million, in as many as the smallest group."""
    _, adata = counted
    adata = adata.copy()
    adata.X = np.round(adata.X * np.linspace(0, 1, adata.n_vars) ** 3)
    adata.obs["score"] = np.arange(adata.n_obs) ** 2.0
    cpm = adata.X / adata.X.sum(axis=1, keepdims=True) * 1e6
    cutoff = 10 / np.median(adata.X.sum(axis=1)) * 1e6
    design = np.column_stack([np.ones(adata.n_obs), adata.obs["score"]])
    leverage = np.diag(design @ np.linalg.pinv(design))
    for column, least in (
        ("group", adata.obs["group"].value_counts().min()),
        ("score", 1 / leverage.max()),
    ):
        kept = ((cpm >= cutoff).sum(axis=0) >= least - 1e-9) & (
            adata.X.sum(axis=0) >= 15
        )
        assert 20 < kept.sum() < adata.n_vars - 20
        options = {"voom": True, "min_count": 10}
        weights = np.random.default_rng(0).uniform(0.5, 1, adata.shape)
        for given in (None, weights):
            table = bc.tl.differential(adata, "batch", column, weights=given, **options)
            np.testing.assert_array_equal(table["p_value"].notna(), kept)
            assert list(table.index) == list(adata.var_names)
        adjusted = false_discovery_control(table["p_value"][kept])
        close(table["p_adjusted"][kept], adjusted)


def test_one_sample_needs_more_counts_than_several():
    """A column that one sample decides: one is enough, if there are 1.5 times as many."""
    counts = np.full((8, 4), 500)
    counts[:, :3] = 0
    counts[0, :3] = 9, 12, 18
    score = pd.Series([100.0] + [0.0] * 7, name="score")
    np.testing.assert_array_equal(Voom.of(counts).expressed(10, score), [2, 3])


def test_what_varies_in_no_batch_is_not_tested(bladder):
    adata = bladder[:, :40].copy()
    adata.X[:, 3] = 7
    adata.X[:, 5] = np.where(adata.obs["batch"] == "1", 2, 7)  # differs by batch alone
    table = bc.tl.differential(adata, "batch", "cancer:Cancer-Normal")
    assert list(np.flatnonzero(table["p_value"].isna())) == [3, 5]
    others = table["p_value"].dropna()
    close(table["p_adjusted"].dropna(), false_discovery_control(others))
    with pytest.raises(InputError, match="min_count= needs raw counts"):
        bc.tl.differential(adata, "batch", "cancer", min_count=10)


def test_values_that_lost_their_record_are_known_by_their_batch_means(bladder):
    """ComBat, read elsewhere; and text of four decimals after linear removal."""
    adata = bladder[:, :300].copy()
    options = {"covariates": "cancer", "key_added": "corrected"}
    for correct, seen in (
        (bc.pp.combat, "less variance than expected by chance"),
        (bc.pp.remove_batch_effect, "batch means are equal"),
    ):
        with warnings.catch_warnings(action="ignore"):
            correct(adata, "batch", **options)
        copied = ad.AnnData(adata.layers["corrected"].round(4), obs=adata.obs)
        with pytest.warns(
            RepeatWarning, match=f"{seen}.*look as if batch was already corrected"
        ):
            bc.tl.differential(copied, "batch", "cancer")


def test_subjects_in_every_batch_are_not_taken_for_a_correction():
    rng = np.random.default_rng(2)
    who = np.tile(np.arange(8), 3)
    obs = pd.DataFrame(
        {"who": [f"p{k}" for k in who], "group": np.where(who % 2, "a", "b")}
    )
    obs["batch"] = np.repeat(["x", "y", "z"], 8)
    obs.index = obs.index.astype(str)
    x = rng.normal(size=(24, 300)) + 3 * rng.normal(size=(8, 300))[who]
    adata = ad.AnnData(x, obs=obs)
    bc.tl.differential(adata, "batch", "group", subject="who")  # warnings are errors
    with pytest.warns(RepeatWarning, match="subject="):
        bc.tl.differential(adata, "batch", "group")


def test_the_table_says_what_a_positive_coefficient_is(bladder):
    adata = bladder[:, :30].copy()
    with warnings.catch_warnings(action="ignore"):
        pair = bc.tl.differential(adata, "batch", "cancer:Cancer-Normal")
        same = bc.tl.differential(adata, "batch", ("cancer", "Cancer", "Normal"))
        every = bc.tl.differential(adata, "batch", "cancer")
        slope = bc.tl.differential(adata, "batch", "age")
    pd.testing.assert_frame_equal(pair, same)
    assert pair.attrs["contrast"] == "Cancer − Normal"
    assert "Cancer − Normal" in str(pair)
    assert every.attrs["contrast"] == "level − Biopsy"
    assert slope.attrs["contrast"] == "slope of age"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"subject": "whom"}, MissingKeyError, "subject 'whom'.*Did you mean 'who'"),
        ({"subject": "each"}, DesignError, "another subject each"),
        ({"subject": "all"}, DesignError, "All 24 samples are of one subject"),
        ({"subject": "batch"}, DesignError, "no subject has several samples"),
        ({"subject": "some"}, DesignError, "subject is missing for 1 of 24"),
        ({"voom": True}, InputError, "negative values"),
        ({"voom": "tmn"}, InputError, "no method 'tmn'. Did you mean 'tmm'"),
    ],
)
@pytest.mark.filterwarnings("ignore::batchcorr.errors.CovariateWarning")
def test_subjects_and_counts_that_cannot_be_used_are_told(golden, options, error, says):
    adata = repeated(golden, "limma_25_block_fit")[1]
    adata.X -= 20
    adata.obs["each"], adata.obs["all"] = list(map(str, range(24))), "one"
    adata.obs["some"] = [None, *adata.obs["who"][1:]]
    with pytest.raises(error, match=says):
        bc.tl.differential(adata, "batch", "time", **options)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CovariateWarning")
def test_too_many_subjects_are_refused_by_name(monkeypatch, golden):
    adata = repeated(golden, "limma_25_block_fit")[1]
    monkeypatch.setattr("batchcorr.estimators.within_subjects.SUBJECTS", 5)
    with pytest.raises(TooLargeError, match="9 subjects over 140 features"):
        bc.tl.differential(adata, "batch", "time", subject="who")


@pytest.fixture
def simulated():
    rng = np.random.default_rng(0)
    n, g = 60, 40
    group, batch = (
        np.resize(["a", "b"], n),
        np.resize(["x", "x", "y", "z", "z", "y"], n),
    )
    x = rng.gamma(3.0, 1.0, (n, g)) + (group == "b")[:, None] * (np.arange(g) < 8)
    x[rng.random((n, g)) < 0.4] = 0
    obs = pd.DataFrame(
        {"group": group, "batch": batch}, index=[f"s{k}" for k in range(n)]
    )
    return ad.AnnData(np.round(x * 1024) / 1024, obs=obs)


STORED = {"c", "fortran", "float32", "csr_matrix", "csc_array", "dask", "dask_csr"}


@pytest.mark.parametrize(
    "kind",
    [kind for kind in IN_MEMORY + LAZY if kind.name in STORED],
    ids=lambda kind: kind.name,
)
@pytest.mark.parametrize(
    "options", [{}, {"trend": True, "equal_variances": False}], ids=["plain", "more"]
)
def test_every_kind_of_matrix_gives_the_same(simulated, kind, options):
    expected = bc.tl.differential(simulated, "batch", "group", **options)
    simulated.X = kind.of(simulated.X)
    found = bc.tl.differential(simulated, "batch", "group", **options)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-10)


def test_missing_values_are_left_out(simulated):
    simulated.X[:7, 3] = np.nan
    simulated.X[:, 5] = np.nan  # says nothing, and is not warned of
    found = bc.tl.differential(simulated, "batch", "group")
    alone = bc.tl.differential(simulated[7:].copy(), "batch", "group")
    close(found["coefficient"].iloc[3], alone["coefficient"].iloc[3])
    assert found.index[found["p_value"].isna()].tolist() == ["5"]


def test_constant_features_do_not_tell_how_alike_samples_are(simulated):
    simulated.obs["who"] = [f"p{k // 2}" for k in range(60)]
    wide = ad.AnnData(np.hstack([simulated.X, np.full((60, 40), 3.3)]), simulated.obs)
    options = {"subject": "who", "equal_variances": False}
    both = [
        bc.tl.differential(x, "batch", "group", **options) for x in (simulated, wide)
    ]
    rho = [table.attrs["subject_correlation"] for table in both]
    assert rho[0] == pytest.approx(rho[1], rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"equal_variances": False}, {"voom": True}])
def test_weight_0_leaves_out(simulated, options):
    sd = np.where(simulated.obs["batch"] == simulated.obs["batch"].iloc[0], 9, 2)
    simulated.X = np.abs(np.round(simulated.X * sd[:, None] + 40))
    used = (simulated.obs["batch"] != simulated.obs["batch"].iloc[0]).to_numpy()
    with warnings.catch_warnings(action="ignore"):
        found = bc.tl.differential(
            simulated, "batch", "group", weights=used * 1.0, **options
        )
        alone = bc.tl.differential(simulated[used].copy(), "batch", "group", **options)
    close(found["t"], alone["t"])


def test_no_batches_is_the_two_sample_t_test_moderated(simulated):
    table = bc.tl.differential(simulated, None, "group")
    one, two = (simulated.X[simulated.obs.group == g] for g in "ab")
    close(table["coefficient"], two.mean(axis=0) - one.mean(axis=0))
    assert stats.spearmanr(table["t"], stats.ttest_ind(two, one).statistic)[0] > 0.97


def test_null_data_keep_their_rate():
    """An unbalanced design: the one-step test is at 5 %, that after ComBat above."""
    rng = np.random.default_rng(1)
    batch = np.repeat(["x", "y"], 20)
    group = np.array(["a"] * 17 + ["b"] * 3 + ["a"] * 3 + ["b"] * 17)
    obs = pd.DataFrame(
        {"batch": batch, "group": group}, index=[f"s{k}" for k in range(40)]
    )
    adata = ad.AnnData(rng.normal(size=(40, 3000)), obs=obs)
    with pytest.warns(bc.errors.AssociationWarning):
        bc.pp.combat(adata, "batch", covariates="group", key_added="combat")
    one_step = bc.tl.differential(adata, "batch", "group")["p_value"]
    after = adata.layers["combat"]
    naive = stats.ttest_ind(after[group == "b"], after[group == "a"]).pvalue
    assert (one_step < 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert (naive < 0.05).mean() > 0.08
    with pytest.raises(InputError, match=r"must not be tested.*here 'X'"):
        bc.tl.differential(adata, "batch", "group", layer="combat")


@pytest.mark.filterwarnings("ignore:.*inplace")  # of scanpy, under pandas 3
@pytest.mark.parametrize(
    ("test", "groups", "reference"),
    [
        ("group", ["b"], "a"),
        (("group", "a", "b"), ["a"], "b"),
        ("batch2", ["q", "r"], "p"),
        (("batch2", {"p": -1, "q": 0.5, "r": 0.5}), ["-1 p +0.5 q +0.5 r"], "rest"),
        ("age", ["age"], "rest"),
    ],
)
def test_scanpy_reads_it(simulated, tmp_path, test, groups, reference):
    rng = np.random.default_rng(0)
    simulated.layers["counts"] = rng.poisson(30, simulated.shape)
    simulated.obs["batch2"] = rng.permutation(np.resize(["p", "q", "r"], 60))
    simulated.obs["age"] = rng.normal(50, 9, 60)
    bc.pp.log_normalize(simulated, layer="counts", key_added="logs")
    options = {"layer": "logs", "key_added": "de"}
    table = bc.tl.differential(simulated, ["batch"], test, **options)
    simulated.write_h5ad(tmp_path / "kept.h5ad")
    kept = ad.read_h5ad(tmp_path / "kept.h5ad")
    assert kept.uns["de"]["params"]["reference"] == reference
    assert kept.uns["de"]["names"].dtype.names == tuple(groups)
    for group in groups:
        frame = sc.get.rank_genes_groups_df(kept, group=group, key="de")
        assert (np.diff(frame["scores"]) <= 0).all()
        frame = frame.set_index("names").loc[table.index]
        level = f"[{group}]" if len(groups) > 1 else ""
        close(frame["pvals"], table[f"p_value{level}"])
        close(frame["scores"], table[f"t{level}"])
        close(frame["logfoldchanges"], table[f"coefficient{level}"] / np.log(2))
        close(frame["logfoldchanges"], table[f"log2_fold_change{level}"])


def test_counts_are_told(simulated):
    simulated.X = np.random.default_rng(0).poisson(50, simulated.shape)
    with pytest.warns(CountsWarning, match="PyDESeq2"):
        bc.tl.differential(simulated, "batch", "group")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"test": "grupo"}, MissingKeyError, "Did you mean 'group'"),
        ({"test": ("group", "c", "a")}, InputError, "no level 'c'"),
        ({"test": 5}, InputError, "name of a column"),
        ({"test": "batch"}, DesignError, "batch"),
        ({"batch_key": "run"}, MissingKeyError, "'run'"),
        ({"layer": "logs"}, MissingKeyError, "no layer 'logs'"),
        ({"weights": np.ones(3)}, InputError, "one per sample"),
        ({"weights": np.r_[-1.0, np.ones(59)]}, InputError, "not be negative"),
        ({"weights": "w"}, MissingKeyError, "weights 'w'"),
        ({"covariates": "twin"}, DesignError, "repeat each other"),
        ({"test": "site"}, DesignError, "confounded with batch"),
    ],
)
def test_what_cannot_be_tested_is_told(simulated, change, error, says):
    simulated.obs["twin"] = simulated.obs["group"].map({"a": "u", "b": "v"})
    simulated.obs["site"] = simulated.obs["batch"].map({"x": "s", "y": "s", "z": "t"})
    before = simulated.copy()
    options = {"batch_key": "batch", "test": "group"} | change
    with pytest.raises(error, match=says):
        bc.tl.differential(simulated, **options)
    np.testing.assert_array_equal(simulated.X, before.X)
    assert dict(simulated.uns) == {}


def test_one_feature_alone_is_refused_as_many_are(simulated):
    simulated.obs["site"] = simulated.obs["batch"].map({"x": "s", "y": "s", "z": "t"})
    with pytest.raises(DesignError, match="'site' is confounded with batch"):
        bc.tl.differential(simulated[:, :1], "batch", "group", covariates="site")


@pytest.mark.parametrize("how", ["weights", "missing"])
def test_weights_and_missing_values_excuse_no_confounding(simulated, how):
    simulated.obs["site"] = simulated.obs["batch"].map({"x": "s", "y": "s", "z": "t"})
    options = {"weights": np.tile([1.0, 2.0], 30)} if how == "weights" else {}
    if how == "missing":
        simulated.X[np.arange(40), np.arange(40)] = np.nan
    with pytest.raises(DesignError, match="'site' is confounded with batch"):
        bc.tl.differential(simulated, "batch", "group", covariates="site", **options)


def test_what_no_feature_tells_is_refused(simulated):
    simulated.obs["site"] = simulated.obs["batch"].map({"x": "s", "y": "s", "z": "t"})
    simulated.obs.loc["s0", "site"] = "t"
    weights = np.arange(60) > 0  # site goes with batch in all that have any
    with pytest.raises(DesignError, match="'site' is confounded with batch"):
        bc.tl.differential(simulated, "batch", "site", weights=weights)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")
def test_corrected_values_are_refused_wherever_they_were_copied_to():
    adata = bc.datasets.bladder()[:, :60].copy()
    bc.pp.combat(adata, "batch", covariates=["cancer"], key_added="combat")
    adata.layers["copy"] = adata.layers["combat"].copy()
    bc.tl.differential(adata, "batch", "cancer")
    with pytest.raises(InputError, match="layer 'copy' was corrected by combat"):
        bc.tl.differential(adata, "batch", "cancer", layer="copy")
    adata.X = adata.layers["combat"]
    with pytest.raises(InputError, match="X was corrected by combat"):
        bc.tl.differential(adata, "batch", "cancer")
