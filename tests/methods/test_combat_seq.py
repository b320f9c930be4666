"""ComBat-seq against R, piece by piece and as a whole.

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
from scipy import special, stats

import batchcorr as bc
from batchcorr.errors import CappedWarning, DesignError, InputError
from batchcorr.estimators import count_model
from batchcorr.estimators.metadata import Labels
from batchcorr.models.counts import dispersion, distribution
from batchcorr.models.counts.regression import fit_features
from batchcorr.models.counts.shrinkage import average_likely_counts
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
        monkeypatch.setattr(count_model, "_draws", lambda *_: next(drawn))
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
    offset = model.offset(case["counts"])
    old, _ = model.means(design, offset, slice(None))
    np.testing.assert_allclose(
        old[kept].T, case["converged_mu_hat"], rtol=1e-5, atol=1e-9
    )
    if "shrink=TRUE" not in str(case["r_call"]):
        np.testing.assert_allclose(
            model.gamma_star[kept].T, case["converged_gamma_hat"], atol=5e-6
        )


def test_profile_likelihood_and_its_maximum():
    case = load("edger_dispersion_steps")
    counts = np.ascontiguousarray(case["counts"].T, dtype=float)
    z = np.ascontiguousarray(case["design"][:, 1:], dtype=float)
    common = float(case["disp_common"])
    profile = dispersion.adjusted_profile(
        counts, z, case["offset"], common * 2 ** case["grid"]
    )
    np.testing.assert_allclose(profile.T, case["apl_grid"], atol=1e-7)
    told = ~case["low_count_gene"].astype(bool)
    np.testing.assert_allclose(
        dispersion.maximize_spline(profile)[told],
        case["max_interpolant"][told],
        atol=1e-6,
    )
    found_common, found = dispersion.batch_dispersions(counts, z, case["offset"])
    np.testing.assert_allclose(found_common, common, rtol=1e-7)
    np.testing.assert_allclose(found, case["disp_tagwise"], rtol=1e-6)
    trial = dispersion.adjusted_profile(
        counts[told], z, case["offset"], case["common_disp_trial"]
    )
    np.testing.assert_allclose(trial.sum(axis=0), case["common_apl_sum"], rtol=1e-9)


def test_regression_is_the_maximum_of_the_likelihood():
    case = load("edger_glmfit")
    codes = np.argmax(case["design"][:, :3], axis=1).astype(np.int32)
    z = np.ascontiguousarray(case["design"][:, 3:], dtype=float)
    counts = np.ascontiguousarray(case["counts"].T, dtype=float)
    offset = np.log(case["counts"].sum(axis=1))
    phi = np.stack([case["dispersion"][codes == b][0] for b in range(3)], axis=1)
    beta = fit_features(counts, codes, z, offset, phi)
    mu = np.exp(offset + beta[:, :3][:, codes] + beta[:, 3:] @ z.T)
    score = (counts - mu) / (1 + phi[:, codes] * mu)
    for b in range(3):  # the score is 0 along every column of the design
        np.testing.assert_allclose(score[:, codes == b].sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(score @ z, 0, atol=1e-6)
    # edgeR stops early: near, and never more likely than the maximum
    np.testing.assert_allclose(beta.T, case["coef_unshrunk"], atol=2e-4)
    ours = _log_likelihood(counts, mu, phi[:, codes])
    theirs = _log_likelihood(counts, case["fitted"].T, phi[:, codes])
    assert (ours >= theirs - 1e-9).all()


def _log_likelihood(y, mu, phi):
    r = 1 / phi
    return (
        special.gammaln(y + r)
        - special.gammaln(r)
        + special.xlogy(y, mu)
        - (y + r) * np.log(mu + r)
        + r * np.log(r)
    ).sum(axis=1)


def test_prior_counts_are_edgers():
    case = load("edger_glmfit")
    codes = np.argmax(case["design"][:, :3], axis=1).astype(np.int32)
    z = np.ascontiguousarray(case["design"][:, 3:], dtype=float)
    counts = np.ascontiguousarray(case["counts"].T, dtype=float)
    offset = np.log(case["counts"].sum(axis=1))
    phi = np.stack([case["dispersion"][codes == b][0] for b in range(3)], axis=1)
    beta = fit_features(counts, codes, z, offset, phi, prior=1e-4)
    np.testing.assert_allclose(beta.T, case["coef_prior_1e4"], atol=2e-4)
    rows = case["onegroup_samples0"]
    alone = fit_features(
        np.ascontiguousarray(counts[:, rows]),
        np.zeros(len(rows), dtype=np.int32),
        np.empty((len(rows), 0)),
        offset[rows],
        case["onegroup_dispersion"][:, None],
        prior=1e-4,
    )
    np.testing.assert_allclose(alone[:, 0], case["onegroup_coef_prior_1e4"], rtol=1e-9)


def test_quantile_map_is_that_of_r():
    case = load("match_quantiles")
    column = {
        key: case[key].astype(float)[:, None]
        for key in ("y", "old_mu", "old_phi", "new_mu")
    }
    out = np.empty_like(column["y"])
    distribution.match_quantiles(
        column["y"],
        column["old_mu"],
        column["old_phi"],
        column["new_mu"],
        case["new_phi"].astype(float),
        np.full_like(out, np.inf),
        out,
    )
    np.testing.assert_array_equal(out[:, 0], case["expected"])


def test_distribution_equals_scipys():
    rng = np.random.default_rng(0)
    mu, phi = 10 ** rng.uniform(-2, 4, 400), 10 ** rng.uniform(-4, 1.5, 400)
    k = np.floor(mu * rng.uniform(0, 3, 400))
    r = 1 / phi
    theirs = special.betainc(r, k + 1, r / (r + mu))
    ours = [distribution.cdf(*args) for args in zip(k, mu, phi, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    masses = [distribution.pmf(*args) for args in zip(k, mu, phi, strict=True)]
    np.testing.assert_allclose(masses, stats.nbinom.pmf(k, r, r / (r + mu)), rtol=1e-9)
    possible = (np.array(ours) > 1e-250) & (np.array(ours) < 1 - 1e-4)
    back = [
        distribution.quantile(p, m, f, guess)
        for guess in (0.0, 1e3, 1e6)
        for p, m, f in zip(
            np.array(ours)[possible], mu[possible], phi[possible], strict=True
        )
    ]
    np.testing.assert_array_equal(back, np.tile(k[possible], 3))


@pytest.mark.parametrize("mu", [0.3, 40.0, 2e4])
def test_small_dispersions_tend_to_poisson(mu):
    for k in np.floor(mu + np.sqrt(mu) * np.array([-2.0, 0.0, 1.5])):
        if k >= 0:
            found = distribution.cdf(k, mu, 1e-12)
            np.testing.assert_allclose(found, stats.poisson.cdf(k, mu), rtol=1e-7)


def test_shrinkage_is_the_weighted_mean_of_the_others():
    rng = np.random.default_rng(1)
    mu = rng.uniform(3, 8, (6, 4))
    counts = rng.poisson(mu).astype(float)
    gamma, phi = rng.normal(size=6), rng.uniform(0.05, 0.5, 6)
    new_gamma, new_phi = average_likely_counts(counts, mu, gamma, phi)
    for g in range(6):
        others = [h for h in range(6) if h != g]
        weights = [
            stats.nbinom.pmf(counts[g], 1 / phi[h], 1 / (1 + phi[h] * mu[h])).prod()
            for h in others
        ]
        np.testing.assert_allclose(
            new_gamma[g], np.average(gamma[others], weights=weights), rtol=1e-9
        )
        np.testing.assert_allclose(
            new_phi[g], np.average(phi[others], weights=weights), rtol=1e-9
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


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.float32])
@pytest.mark.parametrize(
    "kind", [np.asarray, np.asfortranarray, sp.csr_matrix, sp.csc_array]
)
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


def test_samples_are_mapped_alone_and_after_loading(simulated, tmp_path):
    counts, batch, table = simulated
    estimator = bc.ComBatSeq().fit(counts, batch=batch, covariates=table)
    whole = estimator.transform(counts, batch=batch, covariates=table)
    rows = np.array([20, 3, 11])
    part = {"batch": batch[rows], "covariates": table.iloc[rows]}
    np.testing.assert_array_equal(
        estimator.transform(counts[rows], **part), whole[rows]
    )
    estimator.save(tmp_path / "correction.npz")
    loaded = bc.load(tmp_path / "correction.npz")
    np.testing.assert_array_equal(loaded.transform(counts[rows], **part), whole[rows])


def test_without_batch_effects_counts_stay():
    """Equal distributions map onto themselves: no knife edge between y and y + 1."""
    rng = np.random.default_rng(2)
    mu, phi = rng.uniform(2, 500, (40, 1)), rng.uniform(0.01, 2, 40)
    counts = rng.negative_binomial(
        1 / phi[:, None], 1 / (1 + phi[:, None] * mu), (40, 9)
    )
    out = np.empty(counts.shape)
    distribution.match_quantiles(
        counts.astype(float),
        np.broadcast_to(mu, counts.shape).copy(),
        np.broadcast_to(phi[:, None], counts.shape).copy(),
        np.broadcast_to(mu, counts.shape).copy(),
        phi,
        np.full(counts.shape, np.inf),
        out,
    )
    np.testing.assert_array_equal(out, counts)


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
        (_counts(), {"batch": [1] * 24}, DesignError, "one batch only"),
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
            "rows 5",
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
