"""Options of the test that go together, against the same written out with n × n matrices."""

from __future__ import annotations

import numpy as np
import pytest

from batchcorr.estimators.least_squares import LeastSquares
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.problem import Problem
from batchcorr.estimators.voom import Voom
from batchcorr.estimators.within_subjects import Subjects
from batchcorr.models.one_step_test import moderated
from batchcorr.models.random_intercept import SubjectSums
from batchcorr.models.subject_correlation import consensus, subject_correlation
from batchcorr.models.voom import precision_trend

CONTRAST = np.array([[1.0]])


@pytest.fixture
def counts(golden):
    """Counts of 24 samples, batch, the tested column, and two samples of a subject."""
    r = golden("limma_22_voom_fit")
    design = r["design"]
    batch = np.unique(design[:, 1:3], axis=0, return_inverse=True)[1].ravel()
    return r["counts"], batch, design[:, 3:], np.arange(24) // 2


@pytest.fixture
def logs(counts):
    seen = counts[0].any(axis=0)
    return np.log2(counts[0][:, seen] + 0.5), *counts[1:]


def estimated(case, weights=None, *, voom=None, subjects=False, **options):
    x, batch, z, who = case
    x = voom.x if voom else x
    problem = Problem.of(x, Labels(batch, z))
    of = Subjects.of(who, x.shape) if subjects else None
    method = LeastSquares(x, weights, voom=voom, subjects=of, **options)
    return method.estimates(problem, [0], CONTRAST)


def whole_design(batch, z):
    return np.hstack([np.eye(batch.max() + 1)[batch], z])


def generalized(x, case, weights, correlation=0.0):
    """β, fitted values, s² and V of each feature by generalized least squares."""
    _, batch, z, who = case
    design = whole_design(batch, z)
    found = []
    for y, w in zip(x.T, np.broadcast_to(weights.T, x.T.shape), strict=True):
        v = np.where(who[:, None] == who, correlation, 0.0)
        np.fill_diagonal(v, 1)
        inverse = np.linalg.inv(v / np.sqrt(w[:, None] * w))
        v_beta = np.linalg.inv(design.T @ inverse @ design)
        beta = v_beta @ design.T @ inverse @ y
        left = y - design @ beta
        s2 = left @ inverse @ left / (len(y) - design.shape[1])
        found.append((beta[-1], design @ beta, s2, v_beta[-1, -1]))
    return [np.array(part) for part in zip(*found, strict=True)]


def reml(x, case, weights):
    """Weights of batches as arrayWeights(method="reml") has them, sample by sample."""
    _, batch, z, _ = case
    design, (n, n_features) = whole_design(batch, z), x.shape
    b = batch.max() + 1
    z2 = np.vstack([np.eye(b - 1), -np.ones(b - 1)])[batch]
    z2 = z2 - z2.mean(axis=0)
    both = np.hstack([np.ones((n, 1)), z2])
    gamma, w = np.zeros(b - 1), np.ones(n)
    for _ in range(50):
        information, score = np.zeros((b - 1, b - 1)), np.zeros(n)
        for y, v in zip(x.T, weights.T, strict=True):
            root = np.sqrt(w * v)
            q = np.linalg.qr(root[:, None] * design)[0]
            hat = q @ q.T
            h, left = np.diag(hat), root * y - hat @ (root * y)
            s2 = left @ left / (n - design.shape[1])
            i = both.T @ (np.diag(1 - 2 * h) + hat**2) @ both
            information += i[1:, 1:] - np.outer(i[1:, 0], i[0, 1:]) / i[0, 0]
            score += left**2 / s2 - (1 - h)
        information += 10 * z2.T @ z2
        score += 10 * (w - 1)
        step = np.linalg.solve(information, z2.T @ score)
        gamma = gamma + step
        w = np.exp(-z2 @ gamma)
        if (z2.T @ score) @ step / (b - 1) / (n_features + 10) < 1e-5:
            break
    return w


def correlation_of(x, case, weights):
    """The consensus correlation, feature by feature."""
    _, batch, z, who = case
    design, rho = whole_design(batch, z), []
    for y, w in zip(x.T, weights.T, strict=True):
        root = np.sqrt(w)[:, None]
        sums = SubjectSums.of(root * (y - y.mean())[:, None], root * design, who)
        rho.append(subject_correlation(sums, design.shape[1], 2))
    return consensus(rho)


def voom_weights(voom, fitted, s2):
    logs = np.hstack([block for _, block in voom.x.blocks()])
    trend = precision_trend(
        logs.mean(axis=0)[voom.seen], np.sqrt(s2)[voom.seen], voom.x.log_sizes
    )
    return logs, trend.weights(fitted.T, voom.x.log_sizes)


def check(found, expected, tolerance=1e-8):
    beta, _, s2, v = expected
    np.testing.assert_allclose(found.coefficient[0], beta, rtol=tolerance, atol=1e-9)
    np.testing.assert_allclose(found.squares / found.df, s2, rtol=tolerance)
    covariance = np.broadcast_to(found.covariance[0, 0], v.shape)
    np.testing.assert_allclose(covariance, v, rtol=tolerance)


@pytest.mark.parametrize("of", ["samples", "values"])
def test_weights_given_and_one_variance_a_batch(logs, of):
    x, batch = logs[:2]
    given = np.random.default_rng(0).gamma(4, 0.25, x.shape)
    given = given if of == "values" else given[:, 0]
    each = given if of == "values" else np.repeat(given[:, None], x.shape[1], axis=1)
    own = reml(x, logs, each)[:, None]
    found = estimated(logs, given, equal_variances=False)
    check(found, generalized(x, logs, each * own), 1e-6)
    assert len(np.unique(own.round(9))) == len(np.unique(batch))


def test_subjects_and_weights_of_values(logs):
    x = logs[0]
    given = np.random.default_rng(0).gamma(4, 0.25, x.shape)
    rho = correlation_of(x, logs, given)
    found = estimated(logs, given, subjects=True)
    assert found.correlation == pytest.approx(rho, rel=1e-9)
    check(found, generalized(x, logs, given, rho))


def test_subjects_and_one_variance_a_batch(logs):
    x = logs[0]
    own = reml(x, logs, np.ones(x.shape))
    each = np.repeat(own[:, None], x.shape[1], axis=1)
    rho = correlation_of(x, logs, each)
    found = estimated(logs, subjects=True, equal_variances=False)
    assert found.correlation == pytest.approx(rho, rel=1e-6)
    check(found, generalized(x, logs, each, rho), 1e-6)


def test_counts_and_weights_given(counts):
    given = np.random.default_rng(0).gamma(4, 0.25, 24)
    voom = Voom.of(counts[0])
    logs = voom_weights(voom, np.zeros((160, 24)), np.ones(160))[0]
    _, fitted, s2, _ = generalized(logs, counts, np.repeat(given[:, None], 160, axis=1))
    weights = voom_weights(voom, fitted, s2)[1] * given[:, None]
    check(estimated(counts, given, voom=voom), generalized(logs, counts, weights))


def test_counts_and_subjects_in_two_rounds(counts):
    """Voom, duplicateCorrelation, voom with the correlation, duplicateCorrelation."""
    voom, rho = Voom.of(counts[0]), 0.0
    logs = voom_weights(voom, np.zeros((160, 24)), np.ones(160))[0]
    for _ in range(2):
        _, fitted, s2, _ = generalized(logs, counts, np.ones(logs.shape), rho)
        weights = voom_weights(voom, fitted, s2)[1]
        rho = correlation_of(logs, counts, weights)
    found = estimated(counts, voom=voom, subjects=True)
    assert found.correlation == pytest.approx(rho, rel=1e-8)
    check(found, generalized(logs, counts, weights, rho))


def test_counts_and_one_variance_a_batch(counts, golden):
    """VoomWithQualityWeights by group, by REML; limma's default goes gene by gene."""
    voom, own = Voom.of(counts[0]), np.ones((24, 1))
    logs = voom_weights(voom, np.zeros((160, 24)), np.ones(160))[0]
    for _ in range(2):
        _, fitted, s2, _ = generalized(logs, counts, np.repeat(own, 160, axis=1))
        weights = voom_weights(voom, fitted, s2)[1]
        own = reml(logs, counts, weights)[:, None]
    found = estimated(counts, voom=voom, equal_variances=False)
    check(found, generalized(logs, counts, weights * own), 1e-6)
    r = golden("limma_23_voom_quality_weights")
    np.testing.assert_allclose(own[:, 0], r["group_sample_weights"], rtol=0.02)
    np.testing.assert_allclose(moderated(found).each.t, r["group_t"], atol=0.05)


def test_all_together(counts):
    """Given weights that are all alike change nothing, and nothing is NaN."""
    few = counts[0][:, :40], *counts[1:]
    voom = Voom.of(few[0])
    options = {"voom": voom, "subjects": True, "equal_variances": False}
    found = estimated(few, **options)
    same = estimated(few, np.ones(few[0].shape), **options)
    assert np.isfinite(found.coefficient).all()
    np.testing.assert_allclose(found.coefficient, same.coefficient, rtol=1e-9)
    assert found.correlation == pytest.approx(same.correlation, rel=1e-9)
