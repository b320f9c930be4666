"""Scores of embeddings: equal to kept libraries, and moving the right way."""

from __future__ import annotations

import harmonypy
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score
from sklearn.metrics import normalized_mutual_info_score as nmi_score

import batchcorr as bc
from batchcorr.errors import DesignError, InputError
from batchcorr.metrics._batch_predicted import share_told
from batchcorr.metrics._jackknife import jackknife, jackknife_groups


def points(apart=0.0, n=240, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b", "c"], n)
    return rng.normal(size=(n, 6)) + apart * (labels == "b")[:, None], labels


@pytest.mark.parametrize("perplexity", [30, 7])
@pytest.mark.parametrize("apart", [0.0, 4.0])
def test_lisi_is_that_of_harmonypy(perplexity, apart):
    z, labels = points(apart)
    z[:80] *= 0.01  # one part far denser than the rest
    table = pd.DataFrame({"batch": labels})
    expected = harmonypy.compute_lisi(z, table, ["batch"], perplexity)[:, 0]
    found = bc.metrics.lisi(z, labels, perplexity=perplexity)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_lisi_goes_from_one_batch_to_all():
    z, labels = points(0.0, n=900)
    assert bc.metrics.lisi(z, labels, perplexity=200).mean() == pytest.approx(
        3, abs=0.1
    )
    z, labels = points(50.0)
    assert bc.metrics.lisi(z, labels)[labels == "b"].max() == pytest.approx(1)


def test_lisi_of_samples_that_are_all_alike_counts_them_alike():
    labels = np.repeat(["a", "b"], 40)
    found = bc.metrics.lisi(np.ones((80, 2)), labels, perplexity=10)
    assert ((found >= 1) & (found <= 2)).all()


def test_pc_regression_is_a_regression_of_every_component():
    z, labels = points(1.0)
    z *= np.arange(1, 7)
    dummies = pd.get_dummies(labels).to_numpy(float)
    shares = [LinearRegression().fit(dummies, c).score(dummies, c) for c in z.T]
    expected = np.average(shares, weights=z.var(axis=0))
    assert bc.metrics.pc_regression(z, labels) == pytest.approx(expected, rel=1e-12)


def test_pc_regression_of_labels_without_meaning_is_what_chance_gives():
    found = [
        bc.metrics.pc_regression(points(seed=seed)[0], points(seed=99)[1])
        for seed in range(40)
    ]
    assert np.mean(found) == pytest.approx(2 / 239, rel=0.25)


def test_batch_is_told_where_it_shows_and_guessed_where_it_does_not():
    z, labels = points(5.0)
    apart = bc.metrics.batch_predicted(z, labels)
    mixed = bc.metrics.batch_predicted(points(0.0)[0], labels)
    assert apart == pytest.approx(2 / 3, abs=0.12)  # b is told, a and c are guessed
    assert mixed == pytest.approx(1 / 3, abs=0.08)


def test_the_share_told_is_balanced_accuracy():
    rng = np.random.default_rng(0)
    codes = rng.choice(3, 200, p=[0.7, 0.2, 0.1])
    told = np.where(rng.random(200) < 0.6, codes, rng.integers(0, 3, 200))
    expected = balanced_accuracy_score(codes, told)
    assert share_told(told, codes) == pytest.approx(expected)


def test_clusters_agree_as_scikit_learn_says():
    z, labels = points(3.0)
    found = bc.metrics.cluster_agreement(z, labels)
    clusters = KMeans(3, n_init=10, random_state=0).fit_predict(z)
    assert found.ari == pytest.approx(adjusted_rand_score(labels, clusters))
    assert found.nmi == pytest.approx(nmi_score(labels, clusters))


def test_structure_is_the_correlation_within_batches():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 9))
    batch = np.repeat(["u", "v", "w"], 10)
    shift = rng.normal(size=(3, 9))[np.repeat([0, 1, 2], 10)]
    scale = np.where(batch == "v", 1.0, 0.2)[:, None] ** (np.arange(9) % 2)
    y = x * scale + shift
    found = bc.metrics.structure_kept(x, y, batch)
    for k, name in enumerate("uvw"):
        a, b = x[batch == name], y[batch == name]
        a, b = (a - a.mean(axis=0)).ravel(), (b - b.mean(axis=0)).ravel()
        assert found[k] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert found[1] == pytest.approx(1)
    sparse = bc.metrics.structure_kept(sp.csr_matrix(x), y, batch)
    np.testing.assert_allclose(sparse, found)


def test_structure_of_other_coordinates_is_that_of_inner_products():
    rng = np.random.default_rng(1)
    z, batch = rng.normal(size=(20, 5)), np.repeat([0, 1], 10)
    turned = z @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    wide = np.hstack([turned, np.zeros((20, 1))])
    np.testing.assert_allclose(bc.metrics.structure_kept(z, wide, batch), 1)
    short = bc.metrics.structure_kept(sp.csr_matrix(z), z[:, :2], batch)
    for b in (0, 1):
        grams = [p[batch == b] - p[batch == b].mean(axis=0) for p in (z, z[:, :2])]
        k, l = (g @ g.T for g in grams)
        expected = (k * l).sum() / np.sqrt((k**2).sum() * (l**2).sum())
        assert short[b] == pytest.approx(expected)


def test_linear_removal_keeps_distances_within_batches():
    adata = bc.datasets.bladder()[:, :200].copy()
    bc.pp.remove_batch_effect(adata, "batch", key_added="centred")
    rows = (adata.obs["batch"] == "2").to_numpy()
    before, after = (
        squareform(pdist(m[rows])) for m in (adata.X, adata.layers["centred"])
    )
    np.testing.assert_allclose(before, after, rtol=1e-9)
    kept = bc.metrics.structure_kept(
        adata.X, adata.layers["centred"], adata.obs["batch"]
    )
    np.testing.assert_allclose(kept, 1)


def test_the_interval_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        x = rng.normal(size=300)
        groups = jackknife_groups(np.zeros(300, int), np.random.default_rng(seed))
        low, high = jackknife(lambda rows, x=x: x[rows].mean(), groups)
        hits += low < 0 < high
    assert 89 <= hits <= 100


def test_groups_are_spread_over_batches():
    codes = np.repeat([0, 1, 2], [50, 20, 7])
    groups = jackknife_groups(codes, np.random.default_rng(0))
    table = pd.crosstab(codes, groups)
    assert (table.max(axis=1) - table.min(axis=1) <= 1).all()


@pytest.mark.parametrize(
    ("score", "arguments"),
    [
        ("lisi", (np.ones((20, 2)), ["a"] * 20)),
        ("lisi", (np.ones((100, 2)), ["a"] * 99)),
        ("lisi", (np.ones(100), ["a"] * 100)),
        ("pc_regression", (np.ones((9, 2)), ["a"] * 9)),
        ("pc_regression", (np.ones((9, 2)), ["a"] * 8)),
        ("batch_predicted", (np.ones((9, 2)), ["a"] * 9)),
        ("batch_predicted", (np.ones((9, 2)), ["a"] * 8 + ["b"])),
        ("batch_predicted", (np.ones((9, 2)), ["a"] * 8)),
        ("cluster_agreement", (np.ones((9, 2)), ["a"] * 8)),
        ("pc_regression", (np.ones((4, 0)), list("aabb"))),
        ("batch_predicted", (np.ones((4, 0)), list("aabb"))),
        ("structure_kept", (np.ones((9, 2)), np.ones((8, 2)), ["a"] * 9)),
        ("structure_kept", (np.ones((9, 2)), np.ones((9, 2)), ["a"] * 8)),
    ],
)
def test_what_does_not_fit_is_refused(score, arguments):
    with pytest.raises(InputError):
        getattr(bc.metrics, score)(*arguments)


@pytest.mark.parametrize(
    ("score", "option", "value"),
    [
        ("lisi", "perplexity", float("nan")),
        ("lisi", "perplexity", "30"),
        ("batch_predicted", "n_folds", 2.5),
        ("batch_predicted", "random_state", -1),
        ("cluster_agreement", "random_state", "a"),
    ],
)
def test_options_of_scores_are_numbers(score, option, value):
    z, labels = points()
    with pytest.raises(InputError, match=option):
        getattr(bc.metrics, score)(z, labels, **{option: value})


@pytest.mark.parametrize(
    "score", ["pc_regression", "batch_predicted", "cluster_agreement", "lisi"]
)
def test_labels_are_of_these_samples_and_all_there(score):
    points = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 2)))
    points.index = [f"s{k}" for k in range(120)]
    labels = pd.Series(np.resize(["a", "b"], 120), points.index)
    measure = getattr(bc.metrics, score)
    np.testing.assert_equal(measure(points, labels), measure(points.values, labels))
    with pytest.raises(InputError, match=r"index of labels .* in another order"):
        measure(points, labels[::-1])
    with pytest.raises(DesignError, match="labels is missing for 1 of 120"):
        measure(points, labels.where(labels.index != "s3"))
    with pytest.raises(InputError, match="infinite"):
        measure(points.replace(points.iloc[3, 0], np.nan), labels)


def test_structure_is_of_the_same_samples():
    before = pd.DataFrame(
        np.random.default_rng(0).normal(size=(8, 9)), list("abcdefgh")
    )
    labels = np.repeat([1, 2], 4)
    assert bc.metrics.structure_kept(before, before + 1, labels) == pytest.approx(
        [1, 1]
    )
    with pytest.raises(InputError, match=r"index of after .* in another order"):
        bc.metrics.structure_kept(before, before[::-1], labels)
