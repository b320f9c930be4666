"""The corrected matrix that is never formed equals the one that is."""

from __future__ import annotations

import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import batchcorr as bc
from batchcorr.errors import (
    ConvergenceWarning,
    FeatureWarning,
    InputError,
    MissingKeyError,
)
from batchcorr.models import krylov
from batchcorr.models.krylov import leading_eigenvectors
from batchcorr.tl import _components

DESIGNS = {
    "batch alone": None,
    "categories": ["cell_type"],
    "numbers": ["age"],
    "both": ["cell_type", "age"],
}
METHODS = ["combat", "standardize", "remove_batch_effect"]


def make(kind=sp.csr_matrix, n=700, n_features=90, seed=0):
    rng = np.random.default_rng(seed)
    x = np.log1p(rng.poisson(0.6, (n, n_features)).astype(float))
    obs = pd.DataFrame(
        {
            "batch": rng.choice(list("abc"), n),
            "cell_type": rng.choice(["T", "B", "NK"], n),
            "age": rng.normal(50, 10, n),
        },
        index=[f"c{i}" for i in range(n)],
    )
    x[obs["cell_type"] == "T", :30] *= 1.8
    x[obs["batch"] == "a", 10:50] *= 1.5
    return ad.AnnData(kind(x), obs=obs)


def formed(adata, method, covariates):
    """Return the corrected matrix, made by the method's own function."""
    options = {"covariates": covariates, "dense": True, "copy": True}
    return getattr(bc.pp, method)(adata, "batch", **options).X


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_parts_products_and_moments_are_those_of_the_formed_matrix(
    kind, method, design
):
    adata, covariates = make(kind), DESIGNS[design]
    full = formed(adata, method, covariates)
    lazy = bc.corrected(adata, "batch", method=method, covariates=covariates)
    rng = np.random.default_rng(1)
    right, left = rng.normal(size=(90, 5)), rng.normal(size=(700, 4))
    close = {"rtol": 1e-10, "atol": 1e-9}
    np.testing.assert_allclose(lazy @ right, full @ right, **close)
    np.testing.assert_allclose(lazy @ right[:, 0], full @ right[:, 0], **close)
    np.testing.assert_allclose(left.T @ lazy, left.T @ full, **close)
    gram = full.T @ full
    np.testing.assert_allclose(lazy.gram(), gram, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(lazy.sample_gram(), full @ full.T, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(
        lazy.gram_times(right), gram @ right, rtol=1e-9, atol=1e-7
    )
    np.testing.assert_allclose(lazy.mean(), full.mean(axis=0), **close)
    np.testing.assert_allclose(lazy.var(), full.var(axis=0, ddof=1), **close)
    np.testing.assert_array_equal(lazy[[5, 600], 20:30], full[[5, 600], 20:30])
    np.testing.assert_array_equal(lazy[7], full[[7]])
    np.testing.assert_allclose(
        lazy.centred() @ right, (full - full.mean(0)) @ right, **close
    )
    some = lazy.select(np.arange(90) % 3 == 0)
    np.testing.assert_allclose(some @ right[::3], full[:, ::3] @ right[::3], **close)
    assert lazy.as_linear_operator().shape == (700, 90)
    assert repr(lazy).startswith("CorrectedMatrix of 700 × 90 float64, not formed: a ")
    largest = spla.svds(lazy.as_linear_operator(), k=1, return_singular_vectors=False)
    np.testing.assert_allclose(largest, np.linalg.norm(full, 2), rtol=1e-9)


@pytest.fixture
def searches(monkeypatch):
    """The number of products of each search for eigenvectors, in order."""
    counts = []

    def counted(*args, **kwargs):
        found = leading_eigenvectors(*args, **kwargs)
        counts.append(found[2])
        return found

    monkeypatch.setattr(_components, "leading_eigenvectors", counted)
    return counts


@pytest.fixture(
    params=[(4096, 90), (0, 90), (4096, 800)], ids=["features", "products", "samples"]
)
def n_features(request, monkeypatch):
    """Features are few, or samples (of which there are 700), or neither."""
    few, number = request.param
    monkeypatch.setattr(_components, "FEW", few)
    return number


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("method", METHODS)
def test_components_are_those_of_the_formed_matrix(kind, method, searches, n_features):
    adata, covariates = make(kind, n_features=n_features), ["cell_type", "age"]
    full = formed(adata, method, covariates)
    before = adata.X.copy()
    options = {"covariates": covariates, "n_comps": 8, "tolerance": 1e-10}
    bc.tl.pca(adata, "batch", method=method, **options)
    assert abs(adata.X - before).sum() == 0
    assert len(searches) == 1
    u, s, vt = np.linalg.svd(full - full.mean(axis=0), full_matrices=False)
    found = adata.uns["pca"]
    np.testing.assert_allclose(found["variance"], s[:8] ** 2 / 699, rtol=1e-11)
    np.testing.assert_allclose(
        found["variance_ratio"], s[:8] ** 2 / (s**2).sum(), rtol=1e-10
    )
    signs = np.sign(vt[np.arange(8), np.abs(vt[:8]).argmax(axis=1)])
    np.testing.assert_allclose(
        adata.varm["PCs"], (vt[:8] * signs[:, None]).T, atol=1e-8
    )
    np.testing.assert_allclose(adata.obsm["X_pca"], u[:, :8] * s[:8] * signs, atol=1e-7)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CountsWarning")
def test_far_means_are_beyond_sums_of_squares_and_are_checked(searches):
    adata = make()
    adata.X = sp.csr_matrix(adata.X.toarray() + 3e7 * (np.arange(90) < 5))
    options = {"method": "remove_batch_effect", "n_comps": 6, "tolerance": 1e-6}
    bc.tl.pca(adata, "batch", **options)
    assert len(searches) == 2
    full = formed(adata, "remove_batch_effect", None)
    s = np.linalg.svd(full - full.mean(axis=0), compute_uv=False)[:6]
    np.testing.assert_allclose(adata.uns["pca"]["variance"], s**2 / 699, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CountsWarning")
@pytest.mark.parametrize(
    ("first", "more"),
    [(1.0, []), (300.0, [1, 2, 3]), (1e4, range(4, 50))],
    ids=["alike", "one larger", "one far larger"],
)
def test_float32_is_refined_in_float64(first, more, monkeypatch, searches):
    monkeypatch.setattr(_components, "FEW", 0)
    adata = make(n=900, n_features=400)
    adata.X = sp.csr_matrix(adata.X.toarray().astype(np.float32))
    adata.X.data[adata.X.indices < 3] *= first  # the rest is small beside these
    bc.tl.pca(adata, "batch", covariates=["cell_type"], n_comps=12, tolerance=1e-4)
    exact = adata.copy()
    exact.X = adata.X.astype(np.float64)
    lazy = bc.corrected(exact, "batch", covariates=["cell_type"])
    vectors, found = adata.varm["PCs"], adata.uns["pca"]["variance"] * 899
    residuals = lazy.centred().gram_times(vectors) - vectors * found
    # moments of float32 and float64 are the same numbers, corrections too
    assert (np.linalg.norm(residuals, axis=0) <= 1.01e-4 * found).all()
    assert adata.obsm["X_pca"].dtype == np.float64
    assert searches[1:] == [] if not more else searches[1] in more


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CountsWarning")
@pytest.mark.parametrize("unit", [2.0**-80, 2.0**60])
def test_units_of_float32_have_no_say(unit, monkeypatch):
    monkeypatch.setattr(_components, "FEW", 0)
    adata, other = make(np.asarray, n=60), make(np.asarray, n=60)
    adata.X, other.X = adata.X.astype("f4"), (adata.X * unit).astype("f4")
    for each in (adata, other):
        bc.tl.pca(each, "batch", n_comps=3, tolerance=1e-4)
    found, wanted = other.obsm["X_pca"] / unit, adata.obsm["X_pca"]
    assert abs(found - wanted).max() < 1e-3 * abs(wanted).max()


def test_float32_is_multiplied_in_float32():
    adata = make()
    adata.X = adata.X.astype(np.float32)
    some = np.random.default_rng(5).normal(size=(90, 3)).astype(np.float32)
    narrow = bc.corrected(adata, "batch").gram_times(some)
    wide = bc.corrected(adata, "batch").gram_times(some.astype(np.float64))
    assert 0 < abs(narrow - wide).max() < 1e-5 * abs(wide).max()


def test_components_beyond_the_rank_have_no_variance():
    adata = make()
    values = np.random.default_rng(6).normal(size=(700, 4))
    low = np.maximum(values, 0) @ np.eye(4, 90)
    adata.X = sp.csr_matrix(low.astype(np.float32))
    bc.tl.pca(adata, "batch", method="remove_batch_effect", n_comps=8)
    variance = adata.uns["pca"]["variance"]
    assert (variance[:4] > 0.1).all()
    assert (variance[4:] < 1e-7).all()


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("chunks", [(200, 90), ((1, 400, 299), (60, 30))])
def test_dask_blocks_are_multiplied_where_they_are(kind, chunks):
    da = pytest.importorskip("dask.array")
    adata = make(kind)
    lazy = adata.copy()
    array = adata.X if kind is np.asarray else adata.X.toarray()
    lazy.X = da.from_array(array, chunks=chunks).map_blocks(kind, dtype=array.dtype)
    options = {"covariates": ["cell_type", "age"], "n_comps": 6, "tolerance": 1e-8}
    bc.tl.pca(adata, "batch", **options)
    bc.tl.pca(lazy, "batch", **options)
    assert isinstance(lazy.X, da.Array)
    np.testing.assert_allclose(lazy.obsm["X_pca"], adata.obsm["X_pca"], atol=1e-6)
    here, there = (
        bc.corrected(each, "batch", covariates=["age"]) for each in (adata, lazy)
    )
    right, left = np.eye(90)[:, :4], np.eye(700)[:3]
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(there @ right, here @ right, **close)
    np.testing.assert_allclose(left @ there, left @ here, **close)
    np.testing.assert_allclose(
        there.gram_times(right), here.gram_times(right), rtol=1e-9, atol=1e-7
    )


def test_csc_is_rearranged_once_and_stays_as_it_is():
    adata = make(sp.csc_matrix)
    lazy = bc.corrected(adata, "batch")
    vector = np.ones((90, 1))
    once, arranged = lazy @ vector, lazy._arranged
    np.testing.assert_array_equal(lazy @ vector, once)
    assert lazy._arranged is arranged
    assert (arranged.format, adata.X.format) == ("csr", "csc")


def test_a_start_that_is_nearly_right_needs_few_products():
    rng = np.random.default_rng(7)
    a = rng.normal(size=(700, 500))
    values, vectors = np.linalg.eigh(a.T @ a)
    near = vectors[:, -20:] + 1e-4 * rng.normal(size=(500, 20))
    found, _, products = leading_eigenvectors(
        lambda v: a.T @ (a @ v), 500, 20, tolerance=1e-3, random=rng, start=near
    )
    assert products <= 4
    np.testing.assert_allclose(found, values[::-1][:20], rtol=1e-6)


@pytest.mark.slow
def test_scanpy_goes_on_from_there():
    import scanpy as sc

    adata = make()
    bc.tl.pca(adata, "batch", covariates=["cell_type"], n_comps=10)
    sc.pp.neighbors(adata, n_neighbors=5)
    assert adata.obsp["connectivities"].shape == (700, 700)
    sc.tl.pca(adata, n_comps=10, key_added="scanpy")
    theirs, ours = (adata.uns[key]["params"] for key in ("scanpy", "pca"))
    assert set(theirs) <= set(ours) | {"mask_var"}
    assert ours["use_highly_variable"] is theirs["use_highly_variable"] is False


def test_a_mask_selects_what_components_are_taken_of_and_not_what_is_fitted():
    adata = make()
    full = formed(adata, "combat", None)  # priors of all features
    adata.var["highly_variable"] = np.arange(90) < 40
    bc.tl.pca(adata, "batch", n_comps=4, tolerance=1e-8)
    some = full[:, :40] - full[:, :40].mean(axis=0)
    s = np.linalg.svd(some, compute_uv=False)[:4]
    np.testing.assert_allclose(adata.uns["pca"]["variance"], s**2 / 699, rtol=1e-9)
    assert (adata.varm["PCs"][40:] == 0).all()
    assert adata.uns["pca"]["params"]["mask_var"] == "highly_variable"


def test_a_frozen_correction_is_used_and_names_are_free():
    adata = make()
    correction = bc.fit(adata, "batch", covariates=["cell_type"])
    one = bc.tl.pca(adata, correction=correction, n_comps=3, copy=True)
    bc.tl.pca(adata, "batch", covariates=["cell_type"], n_comps=3, key_added="mine")
    np.testing.assert_allclose(one.obsm["X_pca"], adata.obsm["mine"], atol=1e-12)
    assert set(adata.varm) == {"mine"}


@pytest.mark.parametrize(("tolerance", "most"), [(1e-3, 350), (1e-8, 500)])
def test_residuals_are_within_the_tolerance_on_a_flat_spectrum(tolerance, most):
    rng = np.random.default_rng(3)
    a = rng.normal(size=(700, 500))
    values, vectors, products = leading_eigenvectors(
        lambda v: a.T @ (a @ v), 500, 20, tolerance=tolerance, random=rng
    )
    residual = a.T @ (a @ vectors) - vectors * values
    assert (np.linalg.norm(residual, axis=0) <= 1.001 * tolerance * values).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-10)
    exact = np.linalg.svd(a, compute_uv=False)[:20]
    np.testing.assert_allclose(np.sqrt(values), exact, rtol=tolerance)
    assert products * 32 <= most + 32


def test_low_rank_and_repeated_eigenvalues_end_early():
    rng = np.random.default_rng(4)
    q = np.linalg.qr(rng.normal(size=(300, 5)))[0]
    a = (q * [3.0, 3.0, 3.0, 1.0, 1.0]) @ q.T
    values, _, _ = leading_eigenvectors(
        lambda v: a @ v, 300, 7, tolerance=1e-6, random=rng
    )
    np.testing.assert_allclose(values, [3, 3, 3, 1, 1, 0, 0], atol=1e-9)


def test_too_few_products_are_said(monkeypatch):
    monkeypatch.setattr(krylov, "MAX_PRODUCTS", 3)
    a = np.diag(np.linspace(1, 1.001, 500))
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        leading_eigenvectors(
            lambda v: a @ v,
            500,
            50,
            tolerance=1e-12,
            random=np.random.default_rng(0),
        )


def test_threads_do_not_change_components(threads):
    adata = make(n=3000)
    both = []
    for count in (1, 2):
        threads(count)
        both.append(bc.corrected(adata, "batch").gram_times(np.eye(90)[:, :6]))
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n_comps": 90}, InputError, "n_comps=90"),
        ({"n_comps": 0}, InputError, "n_comps=0"),
        ({"mask_var": "nosuch"}, MissingKeyError, "'nosuch'"),
        ({"mask_var": [True]}, InputError, "one for each of 90"),
        ({"method": "combat_seq"}, InputError, "not a location-scale"),
        ({"correction": "c.npz"}, InputError, "must be a fitted estimator"),
        (
            {"correction": bc.ComBat(), "method": "combat"},
            InputError,
            "'method' cannot be given together",
        ),
        (
            {"correction": bc.ComBat(), "mean_only": True},
            InputError,
            "'mean_only' cannot be given together",
        ),
    ],
)
def test_refuses(options, error, says):
    adata = make()
    if options.get("method"):
        adata.X = sp.csr_matrix(np.rint(adata.X.toarray()))
    with pytest.raises(error, match=says):
        bc.tl.pca(adata, "batch", **options)
    assert not adata.obsm


def test_as_many_components_as_there_can_be():
    few = make(n=30)
    bc.tl.pca(few, "batch")
    assert few.obsm["X_pca"].shape == (30, 29)


def test_missing_values_are_refused_where_they_count():
    adata = make(np.asarray)
    adata.X[3, 7] = np.nan
    with pytest.raises(InputError, match=r"1 of 90 features .* \(first: 7\)"):
        bc.tl.pca(adata, "batch")
    assert not adata.obsm
    bc.tl.pca(adata, "batch", mask_var=np.arange(90) != 7, n_comps=3)
    assert np.isfinite(adata.obsm["X_pca"]).all()
    assert np.isnan(bc.corrected(adata, "batch")[3, 7])


# -- features by name ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("method", METHODS)
def test_features_in_another_order_are_found_by_name(kind, method):
    adata = make(kind)
    adata.var["highly_variable"] = np.arange(90) < 40
    correction = bc.fit(adata, "batch", method=method, covariates=["cell_type"])
    other = adata[:, np.random.default_rng(2).permutation(90)].copy()
    full = bc.pp.apply(other, correction, dense=True, copy=True).X
    lazy = bc.corrected(other, correction=correction)
    np.testing.assert_allclose(lazy[:, [3, 80]], full[:, [3, 80]], rtol=1e-12)
    np.testing.assert_allclose(lazy.mean(), full.mean(axis=0), rtol=1e-10)
    bc.tl.pca(other, correction=correction, n_comps=5)
    loadings, scores = other.varm["PCs"], other.obsm["X_pca"]
    assert not loadings[~other.var["highly_variable"]].any()
    np.testing.assert_allclose((full - full.mean(0)) @ loadings, scores, atol=1e-9)
    bc.tl.pca(adata, correction=correction, n_comps=5)
    np.testing.assert_allclose(
        other.uns["pca"]["variance"], adata.uns["pca"]["variance"], rtol=1e-6
    )


def test_features_a_correction_does_not_know_stay_as_they_are():
    adata = make(sp.csr_matrix)
    correction = bc.fit(adata[:, 10:].copy(), "batch")
    with pytest.warns(FeatureWarning, match="10 of 90 features are not known"):
        full = bc.pp.apply(adata, correction, dense=True, copy=True).X
    with pytest.warns(FeatureWarning, match="10 of 90 features are not known"):
        lazy = bc.corrected(adata, correction=correction)
    np.testing.assert_array_equal(lazy[:, :10], adata.X[:, :10].toarray())
    np.testing.assert_allclose(lazy[:, :], full, rtol=1e-12)
    np.testing.assert_allclose(lazy.var(), full.var(axis=0, ddof=1), rtol=1e-10)
    with (
        pytest.warns(FeatureWarning),
        pytest.raises(InputError, match="does not have 10 of 90 features"),
    ):
        bc.tl.pca(adata, correction=correction, n_comps=5)
    with pytest.warns(FeatureWarning):
        bc.tl.pca(adata, correction=correction, mask_var=np.arange(90) >= 10)
    assert adata.varm["PCs"].shape == (90, 50)


# -- what a factor may be -----------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_sums_of_groups_are_a_sparse_product(kind):
    adata = make(kind)
    lazy, full = bc.corrected(adata, "batch"), formed(adata, "combat", None)
    group = np.random.default_rng(3).integers(0, 4, 700)
    groups = sp.csr_matrix((np.ones(700), (group, np.arange(700))), shape=(4, 700))
    np.testing.assert_allclose(groups @ lazy, groups @ full, rtol=1e-9)
    picked = sp.csc_array(np.eye(90)[:, :3])
    np.testing.assert_allclose(lazy @ picked, full[:, :3], rtol=1e-9)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_factors_that_do_not_fit_are_refused(kind):
    lazy = bc.corrected(make(kind), "batch")
    for left in (np.ones(3), np.ones(701), np.ones((2, 699))):
        with pytest.raises(InputError, match="must have length 700"):
            left @ lazy
    for right in (np.ones(89), np.ones((700, 2))):
        with pytest.raises(InputError, match="must have length 90"):
            lazy @ right
    for odd in (1j * np.ones(90), np.ones((90, 2, 2)), np.full(90, "x")):
        with pytest.raises(InputError, match="vectors and matrices of real numbers"):
            lazy @ odd
    with pytest.raises(InputError, match="not an index of 90 rows or features"):
        lazy[:, "g3"]


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_a_few_features_copy_a_few_features(kind):
    adata = make(kind, n=20_000)
    lazy = bc.corrected(adata, "batch")
    tracemalloc.start()
    lazy[:, [5]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < adata.X.data.nbytes / 4
