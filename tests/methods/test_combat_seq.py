"""ComBat-seq against R, and what users rely on. Its parts: tests/models/counts.

R's edgeR stops its fits early (see golden/README.md); `converged_*` are the same
results with the fits run to the end, which is what batchcorr does.
"""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.arrays import feature_counts
from batchcorr.arrays.feature_counts import FeatureCounts
from batchcorr.errors import CappedWarning, DesignError, InputError
from batchcorr.estimators import count_model, count_shrinkage
from batchcorr.estimators.metadata import Labels
from tests.conftest import GOLDEN

CASES = sorted(path.stem for path in GOLDEN.glob("combatseq_*.npz"))


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def covariates_of(case):
    n_batches = len(np.unique(case["batch"]))
    kept = case["design"][:, n_batches:]
    return kept if kept.shape[1] else None


def estimator_of(case, monkeypatch):
    call = str(case["r_call"])
    options = {
        "shrink": "shrink=TRUE" in call,
        "shrink_dispersion": "shrink.disp=TRUE" in call,
    }
    if "mc_draws" in case:  # R's random choice of genes, batch after batch
        options["gene_subset"] = case["mc_draws"].shape[1]
        drawn = iter(np.split(case["mc_draws"].astype(np.intp), 3))
        monkeypatch.setattr(count_shrinkage, "_draws", lambda *_: next(drawn))
    return bc.ComBatSeq(**options)


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_r(name, monkeypatch):
    case = load(name)
    estimator = estimator_of(case, monkeypatch)
    found = estimator.fit_transform(
        case["counts"], batch=case["batch"], covariates=covariates_of(case)
    )
    np.testing.assert_array_equal(found, case["converged_expected"])
    # And within what R's early stop makes of it: 0.3 % of counts, mostly by 1.
    off = np.abs(found - case["expected"])
    assert (off > 0).mean() < 0.004
    assert off.max() <= 2


@pytest.mark.parametrize("name", CASES)
def test_means_dispersions_and_effects_are_those_of_r(name, monkeypatch):
    case = load(name)
    estimator = estimator_of(case, monkeypatch)
    kept_columns = covariates_of(case)
    estimator.fit(case["counts"], batch=case["batch"], covariates=kept_columns)
    model, kept = estimator.model_, case["kept_genes"]
    assert np.flatnonzero(model.adjusted).tolist() == kept.tolist()
    np.testing.assert_allclose(
        model.phi[kept].T, case["converged_phi_hat"], rtol=1e-4, atol=1e-12
    )
    design = estimator._metadata.design(
        len(case["batch"]), Labels(case["batch"], kept_columns)
    )
    by_feature = FeatureCounts.of(case["counts"])
    offset = np.log(count_model.total_counts(by_feature, model.adjusted))
    old, _ = model.means(design, offset, slice(None))
    np.testing.assert_allclose(
        old[kept].T, case["converged_mu_hat"], rtol=1e-5, atol=1e-9
    )
    if "shrink=TRUE" not in str(case["r_call"]):
        np.testing.assert_allclose(
            model.gamma_star[kept].T, case["converged_gamma_hat"], atol=5e-6
        )


# -- what users rely on -----------------------------------------------------------


@pytest.fixture(scope="module")
def simulated():
    rng = np.random.default_rng(7)
    batch = np.repeat(["a", "b", "c"], [8, 7, 9])
    group = np.resize(["control", "treated"], 24)
    mean = np.exp(rng.normal(3, 1.2, 80))
    effect = {level: np.exp(rng.normal(0, 0.6, 80)) for level in "abc"}
    mu = np.stack([mean * effect[level] for level in batch])
    counts = rng.poisson(rng.gamma(5, 1 / 5, mu.shape) * mu)
    counts[batch == "b", 3] = 0  # absent from a batch
    return counts, batch, pd.DataFrame({"group": group})


KINDS = [np.asarray, np.asfortranarray, sp.csr_matrix, sp.csc_array]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_dtype_storage_and_zeros_stay(simulated, kind, dtype):
    counts, batch, table = simulated
    whole = bc.ComBatSeq().fit_transform(counts, batch=batch, covariates=table)
    given = kind(counts.astype(dtype))
    before = given.copy()
    found = bc.ComBatSeq().fit_transform(given, batch=batch, covariates=table)
    assert type(found) is type(given)
    assert found.dtype == dtype
    dense = found.toarray() if sp.issparse(found) else found
    np.testing.assert_array_equal(dense, whole)
    assert ((counts == 0) <= (dense == 0)).all()
    assert (whole[:, 3] == counts[:, 3]).all()
    assert abs(given - before).sum() == 0


def up_to(top):
    """Counts up to the edge of a dtype, in the batch whose counts are raised."""
    rng = np.random.default_rng(3)
    share = rng.uniform(0.4, 0.9, (20, 12))
    share[10:, ::2] *= 0.4
    share[10:] *= np.linspace(0.5, 1.1 / 0.9, 10)[:, None]
    counts = np.floor(top * np.minimum(share, 1))
    batch = np.arange(20) // 10
    return counts, batch


@pytest.mark.parametrize(
    ("dtype", "wider"),
    [
        (np.uint8, np.uint16),
        (np.int8, np.int16),
        (np.uint16, np.uint32),
        (np.int16, np.int32),
        (np.float16, np.float32),
        (np.float32, np.float64),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_counts_that_do_not_fit_widen_the_dtype(kind, dtype, wider):
    if kind in KINDS[2:] and dtype == np.float16:
        pytest.skip("SciPy has no matrices in float16")
    integer = np.dtype(dtype).kind != "f"
    top = np.iinfo(dtype).max if integer else 2 ** (np.finfo(dtype).nmant + 1)
    counts, batch = up_to(top)
    exact = bc.ComBatSeq().fit_transform(counts.astype(np.int64), batch=batch)
    assert top < exact.max() < 2 * top
    given = kind(counts.astype(dtype))
    found = bc.ComBatSeq().fit_transform(given, batch=batch)
    assert found.dtype == wider
    dense = found.toarray() if sp.issparse(found) else found
    np.testing.assert_array_equal(dense, exact)


def test_wider_counts_are_read_back_from_a_file(tmp_path):
    counts, batch = up_to(255)
    obs = pd.DataFrame({"batch": batch}, index=map(str, range(20)))
    adata = ad.AnnData(sp.csr_matrix(counts.astype(np.uint8)), obs=obs)
    exact = bc.ComBatSeq().fit_transform(counts, batch=batch)
    assert exact.max() > 255
    bc.pp.combat_seq(adata, "batch")
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").X
    np.testing.assert_array_equal(again.toarray(), exact)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_entries_stored_twice_are_one_count(simulated, kind):
    counts, batch, _ = simulated
    once = kind(counts)
    twice = once.copy()
    twice.data, twice.indices = np.repeat(once.data, 2), np.repeat(once.indices, 2)
    twice.data[1::2] = 1
    twice.data[::2] -= 1
    twice.indptr = once.indptr * 2
    np.testing.assert_array_equal(
        bc.ComBatSeq().fit_transform(twice, batch=batch).toarray(),
        bc.ComBatSeq().fit_transform(once, batch=batch).toarray(),
    )


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_blocks_of_features_do_not_matter(simulated, monkeypatch, kind):
    counts, batch, table = simulated
    whole = bc.ComBatSeq().fit(kind(counts), batch=batch, covariates=table)
    monkeypatch.setattr(feature_counts, "WIDEST", 30)
    parts = bc.ComBatSeq().fit(kind(counts), batch=batch, covariates=table)
    for name, values in whole.model_.to_arrays().items():
        np.testing.assert_array_equal(values, parts.model_.to_arrays()[name])
    np.testing.assert_array_equal(
        parts.transform(counts, batch=batch, covariates=table),
        whole.transform(counts, batch=batch, covariates=table),
    )


def test_only_capped_features_are_named():
    rng, n, g = np.random.default_rng(0), 29, 300
    mu = (
        np.exp(rng.uniform(0, np.log(200), g))
        * np.exp(rng.normal(0, 0.5, (2, g)))[np.arange(n) % 2]
    )
    mu *= np.exp(rng.normal(0, 0.3, n))[:, None]
    counts = rng.negative_binomial(5, 5 / (5 + mu))
    group = np.repeat(["gfp", "her2", "gfp", "egfr"], [12, 5, 6, 6])
    with pytest.warns(
        CappedWarning, match=r"1 corrected counts of 1 features \(x119\)"
    ):
        bc.ComBatSeq().fit_transform(
            counts,
            batch=np.repeat([1, 2], [17, 12]),
            covariates=pd.DataFrame({"group": group}),
        )


def test_where_a_covariate_has_its_zero_does_not_matter():
    """Far from 0 its intercept is in the thousands, and exp of that infinite."""
    rng = np.random.default_rng(0)
    counts, batch = rng.negative_binomial(5, 0.1, (16, 20)), np.repeat([1, 2], 8)
    z = rng.normal(size=(16, 1))
    near, far = (
        bc.ComBatSeq().fit_transform(counts, batch=batch, covariates=each)
        for each in (z, 5000 + z / 100)
    )
    assert np.abs(far - near).max() <= 1
    assert (far != near).mean() < 0.01


def test_a_covariate_far_from_those_of_fit_overflows_nothing():
    rng = np.random.default_rng(0)
    counts, batch = rng.negative_binomial(5, 0.05, (20, 10)), np.repeat([0, 1], 10)
    model = bc.ComBatSeq().fit(counts, batch=batch, covariates=np.arange(20.0)[:, None])
    found = model.transform(counts[:2], batch=[0, 0], covariates=[[1e6], [-1e6]])
    assert found.dtype == counts.dtype  # and no RuntimeWarning
    assert (found >= 0).all()


def test_counts_cannot_explode():
    """A feature nearly absent from one batch: sva turns such counts into 1e11."""
    capped = []
    batch, group = np.repeat(["a", "b"], 12), np.resize([0.0, 1.0], 24)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counts = rng.negative_binomial(3, 0.02, (24, 60))
        for g in range(20):
            counts[:, g] = 0
            counts[rng.integers(0, 12), g] = rng.integers(2, 40)
            rows = 12 + rng.choice(12, rng.integers(1, 12), replace=False)
            counts[rows, g] = rng.integers(1, 10 ** rng.integers(1, 5), len(rows))
        estimator = bc.ComBatSeq()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = estimator.fit_transform(
                counts, batch=batch, covariates=group[:, None]
            )
        adjusted = estimator.model_.adjusted
        library = counts[:, adjusted].sum(axis=1, keepdims=True)
        bound = np.ceil(10 * (counts / library).max(axis=0) * library * (1 + 1e-12))
        assert (found <= np.maximum(bound, counts))[:, adjusted].all()
        capped += [w.category for w in caught]
    assert set(capped) == {CappedWarning}


def test_face_keeps_counts_and_record(simulated, tmp_path):
    counts, batch, table = simulated
    obs = table.assign(batch=batch)
    obs.index = [f"s{i}" for i in range(len(obs))]
    adata = ad.AnnData(sp.csr_matrix(counts), obs=obs)
    bc.pp.combat_seq(adata, "batch", covariates="group", key_added="corrected")
    assert adata.layers["corrected"].format == "csr"
    assert adata.layers["corrected"].dtype == counts.dtype
    expected = bc.ComBatSeq().fit_transform(counts, batch=batch, covariates=table)
    np.testing.assert_array_equal(adata.layers["corrected"].toarray(), expected)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert '"combat_seq"' in again.uns["batchcorr"]["corrected"]


BATCH = np.repeat([1, 2, 3], 8)


def _counts():
    return np.random.default_rng(0).negative_binomial(4, 0.05, (24, 30))


def _with(value, dtype=float):
    counts = _counts().astype(dtype)
    counts[2, 3] = value
    return counts


@pytest.mark.parametrize(
    ("counts", "options", "error", "says"),
    [
        (_counts(), {"batch": [1] + [2] * 23}, DesignError, "one sample: 1"),
        (_counts(), {"batch": [1] * 24}, DesignError, "only one batch"),
        (
            _counts(),
            {"batch": BATCH, "covariates": pd.DataFrame({"group": BATCH > 1})},
            DesignError,
            "'group' is confounded with batch",
        ),
        (
            _counts(),
            {"batch": BATCH, "covariates": np.outer(np.arange(24.0), [1, 2])},
            DesignError,
            "repeat each other",
        ),
        (_with(-1), {"batch": BATCH}, InputError, "negative"),
        (_with(0.5), {"batch": BATCH}, InputError, r"fractions \(0.5\)"),
        (_with(np.nan), {"batch": BATCH}, InputError, "missing or infinite"),
        (_with(np.inf), {"batch": BATCH}, InputError, "missing or infinite"),
        (sp.csr_matrix(_with(np.inf)), {"batch": BATCH}, InputError, "infinite"),
        (
            _counts() * (np.arange(24) != 5)[:, None],
            {"batch": BATCH},
            InputError,
            r"1 of 24 samples \(row 5\) have no counts",
        ),
        (
            _counts() * (np.arange(24) % 7 > 0)[:, None],
            {"batch": pd.Series(BATCH, index=[f"s{i}" for i in range(24)])},
            InputError,
            r"4 of 24 samples \(s0, s7, s14, s21\)",
        ),
        (
            _counts() * (np.arange(24) > 7)[:, None],
            {"batch": BATCH},
            DesignError,
            "every",
        ),
        (_counts(), {"batch": None}, InputError, "needs the batch"),
        (_counts().astype(str), {"batch": BATCH}, InputError, "real numbers"),
        (_counts()[:, :0], {"batch": BATCH}, InputError, "no counts"),
    ],
)
def test_refuses(counts, options, error, says):
    held = counts.data if sp.issparse(counts) else counts
    before = held.tobytes()
    with pytest.raises(error, match=says):
        bc.ComBatSeq().fit(counts, **options)
    assert held.tobytes() == before


def test_refuses_options_that_contradict():
    with pytest.raises(InputError, match="shrink_dispersion=True needs shrink=True"):
        bc.ComBatSeq(shrink_dispersion=True).fit(_counts(), batch=BATCH)
    with pytest.raises(InputError, match="gene_subset"):
        bc.ComBatSeq(shrink=True, gene_subset=0).fit(_counts(), batch=BATCH)


def test_large_counts_and_categories():
    """Counts over 2^31 fit int64, and numbers as categories are not made ordinal."""
    counts = _counts().astype(np.int64)
    counts[:, 0] *= 2**33
    table = pd.DataFrame({"group": pd.Categorical(np.resize([0, 1, 2], 24))})
    estimator = bc.ComBatSeq().fit(counts, batch=BATCH, covariates=table)
    assert estimator.model_.coefficients.shape[1] == 3 + 2
    found = estimator.transform(counts, batch=BATCH, covariates=table)
    assert found.dtype == np.int64
    assert found[:, 0].max() > 2**31
