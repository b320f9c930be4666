"""Streams: `partial_fit` with decay, in which what is old counts less and less."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.errors import BatchSizeWarning, InputError, collected
from batchcorr.models.moments import Moments

BATCHES = ["a", "b"]


def minibatches(count, size=12, n_features=6, seed=0, drift=0.0):
    """Yield blocks of `size` samples of each batch, the second shifted and wider."""
    rng = np.random.default_rng(seed)
    batch = np.repeat(BATCHES, size)
    for k in range(count):
        x = rng.normal(3 + drift * k, 1, (2 * size, n_features))
        x[size:] = 2 * x[size:] + 5
        yield x, batch


def stream(model, blocks, **options):
    for x, batch in blocks:
        model.partial_fit(x, batch=batch, batches=BATCHES, **options)
    return model


def same(one, two, *, exactly=False):
    for field in fields(Moments):
        a, b = (getattr(m, field.name) for m in (one, two))
        if exactly:
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_decayed_is_as_if_samples_counted_less():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    design = Design.of(np.repeat([0, 1], 20), 2, z)
    whole = moments(x, design)
    half = whole.decayed(0.5)
    same(half, Moments(
        whole.rows / 2, whole.n / 2, whole.mean, whole.squares / 2, whole.columns,
        whole.cross / 2, whole.gram / 2,
    ), exactly=True)  # fmt: skip
    weighted = moments(x, design, weights=np.full(40, 0.5))
    for name in ("n", "mean", "squares", "columns", "cross", "gram"):
        one, two = getattr(half, name), getattr(weighted, name)
        np.testing.assert_allclose(np.broadcast_to(one, two.shape), two, atol=1e-12)
    one = whole.decayed(np.array([[1.0], [0.25]]))
    assert one.n.tolist() == [[20.0], [5.0]]


@pytest.mark.parametrize("decay", [None, 1])
def test_without_decay_blocks_are_as_the_whole(decay):
    blocks = list(minibatches(5))
    model = stream(bc.ComBat(), blocks, decay=decay)
    x, batch = (np.concatenate(part) for part in zip(*blocks, strict=True))
    whole = bc.ComBat().fit(x, batch=batch)
    same(model.moments_, whole.moments_)


def test_decay_0_knows_the_last_call_only():
    blocks = list(minibatches(4))
    model = stream(bc.Standardize(), blocks, decay=0)
    x, batch = blocks[-1]
    same(model.moments_, bc.Standardize().fit(x, batch=batch).moments_)


@pytest.mark.parametrize(("decay", "many"), [(0.5, 40), (0.9, 90)])
def test_the_mean_is_batch_normalization_s_running_mean(decay, many):
    """BatchNorm: running = (1 - momentum) running + momentum mean, from 0.

    At every call the mean is exactly that, divided by 1 - (1 - momentum)^calls, which
    takes out that it starts from 0; so the two tend to each other.
    """
    model, momentum = bc.Standardize(), 1 - decay
    running = np.zeros((2, 6))
    for calls, (x, batch) in enumerate(minibatches(many), start=1):
        model.partial_fit(x, batch=batch, batches=BATCHES, decay=decay)
        mean = np.stack([x[batch == b].mean(axis=0) for b in BATCHES])
        running = (1 - momentum) * running + momentum * mean
        known = 1 - (1 - momentum) ** calls
        np.testing.assert_allclose(model.moments_.mean, running / known, rtol=1e-12)
    near = 2 * decay**many
    np.testing.assert_allclose(model.moments_.mean, running, rtol=near)
    np.testing.assert_allclose(model.moments_.n, 12 / momentum, rtol=near)


def test_the_variance_also_holds_the_drift_between_calls():
    decay, blocks = 0.8, list(minibatches(40, drift=0.5))
    model = stream(bc.Standardize(), blocks, decay=decay)
    weight = decay ** np.arange(len(blocks))[::-1]
    weight /= weight.sum()
    first = [x[:12] for x, _ in blocks]
    means = np.stack([x.mean(axis=0) for x in first])
    within = np.einsum("k,kg->g", weight, np.stack([x.var(axis=0) for x in first]))
    between = np.einsum("k,kg->g", weight, (means - model.moments_.mean[0]) ** 2)
    found = model.moments_.squares[0] / model.moments_.n[0]
    np.testing.assert_allclose(found, within + between, rtol=1e-12)
    assert (between > within).all()  # batch normalization's would be `within`


def test_a_batch_that_does_not_come_does_not_fade():
    blocks = list(minibatches(3))
    model = stream(bc.ComBat(), blocks[:1])
    before = model.moments_
    for x, batch in blocks[1:]:
        model.partial_fit(x[:12], batch=batch[:12], decay=0.5)
    for field in fields(Moments):
        old, new = (getattr(m, field.name)[1] for m in (before, model.moments_))
        np.testing.assert_array_equal(old, new)
    assert model.moments_.n.tolist() == [[12 * 1.75], [12.0]]


@pytest.mark.parametrize("method", [bc.ComBat, bc.Standardize, bc.RemoveBatchEffect])
def test_decay_is_no_missing_value_and_no_single_sample(method):
    """Effective counts are fractions: rows fade with them, so that rules still hold."""
    model = stream(method(), minibatches(60), decay=0.7)
    same_counts = model.moments_.n == model.moments_.rows
    assert same_counts.all()
    assert not model.moments_.by_feature
    x, batch = next(minibatches(1, size=300, seed=5))
    y = model.transform(x, batch=batch)
    assert np.isfinite(y).all()
    assert abs(y[:300].mean() - y[300:].mean()) < 0.5
    if method is bc.ComBat:
        assert not model.details_["mean_only"].any()
        scale = model.details_["delta_star"]
        assert (scale[1] > 2 * scale[0]).all()


def test_empirical_bayes_sees_the_effective_n():
    """The same moments at a smaller n are drawn closer to the prior."""
    blocks = list(minibatches(40, n_features=50))
    spread = {}
    for decay in (None, 0.3):
        details = stream(bc.ComBat(), blocks, decay=decay).details_
        drawn = details["gamma_star"] - details["gamma_bar"][:, None]
        raw = details["gamma_hat"] - details["gamma_bar"][:, None]
        n = 480 if decay is None else 12 / 0.7
        t2 = details["t2"][:, None]
        expected = n * t2 / (n * t2 + details["delta_star"])
        np.testing.assert_allclose(drawn / raw, expected, rtol=2e-3)
        spread[decay] = n
    assert spread[None] > spread[0.3]


def test_streams_of_single_samples_and_single_batches():
    rng = np.random.default_rng(0)
    model = bc.ComBat()
    for _ in range(60):
        for shift, batch in enumerate(BATCHES):
            x = rng.normal(4 * shift, 1, (1, 30))
            model.partial_fit(x, batch=[batch], batches=BATCHES, decay=0.95)
    np.testing.assert_allclose(model.moments_.n, 20 * (1 - 0.95**60))
    y = model.transform(rng.normal(4, 1, (500, 30)), batch=["b"] * 500)
    assert abs(y.mean() - 2) < 0.4
    assert not model.details_["mean_only"].any()


def test_one_sample_in_all_is_still_told():
    x, batch = next(minibatches(1))
    rows = np.r_[:12, 12:13]
    model = bc.ComBat().partial_fit(
        x[rows], batch=batch[rows], batches=BATCHES, decay=0.9
    )
    with pytest.warns(BatchSizeWarning):
        assert model.details_["mean_only"].all()


def test_constant_and_missing_values_stay_what_they_are():
    model = bc.ComBat()
    for k, (x, batch) in enumerate(minibatches(30)):
        x[:, 0] = 2.0
        x[batch == "a", 1] = 1.5
        if k < 3:
            x[0, 2] = np.nan
        model.partial_fit(x, batch=batch, batches=BATCHES, decay=0.6)
    assert model.aim_.adjustable.tolist() == [False, False, True, True, True, True]
    assert (model.moments_.n <= model.moments_.rows).all()


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_a_batch_constant_over_blocks_stays_beside_levels_it_alone_has():
    """Its level's coefficient is 0 but for rounding, which is no variance to divide by."""
    rng = np.random.default_rng(0)
    batch, level = (
        np.repeat(["a", "b"], [5, 11]),
        np.array(list("xyyyx" + "yzwyyzwyzyw")),
    )
    x = rng.normal(217, 2, (16, 40))
    x[:5] = 7.5
    levels = {"level": list("wxyz")}
    model, declared = (
        bc.Standardize(center=False),
        {"batches": ["a", "b"], "levels": levels},
    )
    for rows in np.split(np.random.default_rng(1).permutation(16), [3, 9]):
        table = pd.DataFrame({"level": level[rows]})
        model.partial_fit(x[rows], batch=batch[rows], covariates=table, **declared)
        declared = {}
    about = {"batch": batch, "covariates": pd.DataFrame({"level": level})}
    assert np.abs(model.transform(x, **about) - 7.5)[:5].max() < 1e-9


def test_covariates_fade_too():
    """A slope that changes is followed; without decay old and new are averaged."""
    rng = np.random.default_rng(0)
    models = {decay: bc.RemoveBatchEffect() for decay in (None, 0.5)}
    for k in range(40):
        age, batch = rng.normal(size=60), np.repeat(BATCHES, 30)
        x = (1.0 if k < 20 else -1.0) * age[:, None] + rng.normal(0, 0.1, (60, 4))
        for decay, model in models.items():
            table = pd.DataFrame({"age": age})
            model.partial_fit(
                x, batch=batch, covariates=table, batches=BATCHES, decay=decay
            )
    np.testing.assert_allclose(models[None].correction_.coefficients, 0, atol=0.15)
    np.testing.assert_allclose(models[0.5].correction_.coefficients, -1, atol=0.05)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_blocks_warn_as_the_whole():
    rng = np.random.default_rng(0)
    batch = np.repeat(BATCHES, 15)
    x = pd.DataFrame(
        8 + rng.normal(size=(30, 20)), columns=[f"g{k}" for k in range(20)]
    )
    x.iloc[:15, 3] = 7.5
    x.iloc[15:, 6] += 40
    counts = x.map(lambda value: float(round(100 * value)))
    for given, options, said in (
        (x, {}, "(g3) are constant in a batch"),
        (x, {"parametric": False}, "(g6) keep part"),
        (counts, {}, "look like raw counts"),
    ):
        with collected() as whole:
            bc.ComBat(**options).fit(given, batch=batch)
        model = bc.ComBat(**options)
        with collected() as of_blocks:
            for rows in (slice(20), slice(20, None)):
                block = {"batch": batch[rows], "batches": BATCHES}
                model.partial_fit(given[rows], **block)
            model.transform(given, batch=batch)
        assert sorted(of_blocks) == sorted(whole)
        assert any(said in text for text in whole)


@pytest.mark.parametrize("decay", [-0.1, 1.1, np.nan, "0.5", [0.5]])
def test_decay_is_a_share(decay):
    x, batch = next(minibatches(1))
    model = bc.ComBat()
    with pytest.raises(InputError, match="decay must be a number from 0 to 1"):
        model.partial_fit(x, batch=batch, batches=BATCHES, decay=decay)
    assert model.moments_ is None
