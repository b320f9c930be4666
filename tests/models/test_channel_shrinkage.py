"""Empirical Bayes over features with known errors, beside integration by brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats
from scipy.special import polygamma, psi

from batchcorr.models.channel_shrinkage import (
    LOCATION_VARIANCES,
    LOG_SCALES,
    SCALE_WEIGHTS,
    Null,
    effective_number,
    location_posterior,
    scale_posterior,
    shrink_features,
)


def null_of(n_features, noise=0.3, variance=0.4, bias=0.0):
    full = np.full(n_features, 1.0)
    return Null(
        noise * full, bias * full, variance * full, float(n_features), float(n_features)
    )


# -- locations: γ̂ ~ N(γ, noise), γ ~ N(γ₀, t²), γ₀ ~ N(0, 1) -----------------------------


def by_matrices(gamma, noise):
    """Condition the joint normal of all γ, and weigh by the density of γ̂, for each t².

    No closed form of the module enters: means come from the joint covariance matrix.
    """
    means, logs = [], []
    for t2 in LOCATION_VARIANCES:
        prior = t2 * np.eye(len(gamma)) + 1.0
        joint = prior + np.diag(noise)
        means.append(prior @ np.linalg.solve(joint, gamma))
        logs.append(stats.multivariate_normal(cov=joint).logpdf(gamma))
    weight = np.exp(np.array(logs) - max(logs))
    evidence = max(logs) + np.log(weight.mean())
    return weight @ np.array(means) / weight.sum(), evidence


@pytest.mark.parametrize("seed", range(4))
def test_location_posterior_is_that_of_the_joint_normal(seed):
    rng = np.random.default_rng(seed)
    gamma, noise = rng.normal(0.3, 0.8, 6), rng.uniform(0.05, 1.0, 6)
    mean, evidence = location_posterior(gamma, noise, 6.0)
    expected, expected_evidence = by_matrices(gamma, noise)
    assert_allclose(mean, expected, rtol=1e-9)
    assert evidence == pytest.approx(expected_evidence, rel=1e-9)


def test_the_grid_of_spreads_is_as_good_as_an_integral():
    gamma, noise = np.array([-0.4, 0.1, 0.9, 1.3]), np.array([0.2, 0.1, 0.4, 0.3])

    def weighted(log_spread, of):
        prior = np.exp(log_spread) * np.eye(4) + 1.0
        joint = prior + np.diag(noise)
        density = stats.multivariate_normal(cov=joint).pdf(gamma)
        return density * of(prior @ np.linalg.solve(joint, gamma))

    def integral(of):
        return integrate.quad(weighted, -10, 3, args=(of,))[0]

    total = integral(lambda _: 1.0)
    expected = [integral(lambda mean, c=c: mean[c]) / total for c in range(4)]
    mean, _ = location_posterior(gamma, noise, 4.0)
    assert_allclose(mean, expected, atol=5e-3)


# -- scales: δ̂² ~ δ² χ²_ν/ν, δ² ~ d₀ s₀²/χ²_d₀ -------------------------------------------


def test_scale_posterior_is_that_of_integration_over_every_variance():
    """Integrate over log δ² numerically, on the grid of d₀ and s₀²."""
    nu = np.array([3.0, 8.0, 20.0])
    observed = np.array([0.2, 1.5, 3.0])
    variance = polygamma(1, nu / 2)
    ratio = np.log(observed) - (psi(nu / 2) - np.log(nu / 2))
    logs = np.linspace(-25, 25, 2501)
    step = logs[1] - logs[0]
    likelihood = np.stack(
        [
            stats.chi2(df=v).pdf(v * o / np.exp(logs)) * v * o / np.exp(logs)
            for v, o in zip(nu, observed, strict=True)
        ]
    )  # of log δ̂²
    total, mean = 0.0, np.zeros(3)
    belief = stats.norm(0, np.sqrt(2)).pdf(LOG_SCALES)
    belief = belief / belief.sum() / len(SCALE_WEIGHTS)
    for d0 in SCALE_WEIGHTS:
        for s, weight in zip(LOG_SCALES, belief, strict=True):
            inner = d0 * np.exp(s - logs)
            prior = stats.chi2(df=d0).pdf(inner) * inner
            each = likelihood @ prior * step
            if each.min() > 0:  # else this scale is out of the question
                posterior = (likelihood * prior) @ logs * step / each
                total += weight * each.prod()
                mean += weight * each.prod() * posterior
    found, evidence = scale_posterior(ratio, variance, 3.0)
    assert_allclose(found, mean / total, atol=1e-6)
    assert evidence == pytest.approx(np.log(total), abs=1e-6)


def test_fewer_effective_features_decide_less():
    """The hyperparameters' posterior is wider: evidence counts in their proportion."""
    gamma = np.array([-1.0, 1.0] * 20)
    noise = np.full(40, 0.2)
    many, few = (location_posterior(gamma, noise, k)[0] for k in (40.0, 2.0))
    assert np.all(np.abs(few) < np.abs(many))
    ratio, variance = np.array([-1.0, 1.0] * 20), np.full(40, 0.2)
    many, few = (scale_posterior(ratio, variance, k)[0] for k in (40.0, 2.0))
    assert np.all(np.abs(few) < np.abs(many))


# -- both ------------------------------------------------------------------------------


def test_without_errors_the_support_is_believed():
    rng = np.random.default_rng(0)
    gamma, delta2 = rng.normal(size=30), np.exp(rng.normal(size=30))
    found = shrink_features(gamma, delta2, null_of(30, 1e-9, 1e-9))
    assert_allclose(found.gamma, gamma, atol=1e-6)
    assert_allclose(found.delta2, delta2, rtol=1e-6)


def test_features_that_differ_by_less_than_their_errors_are_taken_for_one():
    rng = np.random.default_rng(1)
    nu = 8.0
    delta2 = 2 * rng.chisquare(nu, size=200) / nu
    gamma = 0.8 + np.sqrt(2 * 0.1) * rng.normal(size=200)
    bias = psi(nu / 2) - np.log(nu / 2)
    found = shrink_features(
        gamma, delta2, null_of(200, 0.1, polygamma(1, nu / 2), bias)
    )
    assert np.ptp(found.gamma) < 0.2 * np.ptp(gamma)
    assert np.ptp(np.log(found.delta2)) < 0.1 * np.ptp(np.log(delta2))
    assert found.gamma.mean() == pytest.approx(0.8, abs=0.1)
    assert found.delta2.mean() == pytest.approx(2, rel=0.1)


def test_more_samples_are_believed_more():
    rng = np.random.default_rng(2)
    gamma, delta2 = rng.normal(0, 0.7, 50), np.exp(rng.normal(0, 0.7, 50))
    errors = []
    for n in (2, 8, 32, 128):
        found = shrink_features(gamma, delta2, null_of(50, 1 / n, 2 / n))
        errors.append(np.abs(found.gamma - gamma).sum())
    assert all(later < earlier for earlier, later in pairwise(errors))


def test_the_bias_of_log_variances_is_taken_off():
    delta2 = np.full(20, np.exp(-0.7))
    found = shrink_features(np.zeros(20), delta2, null_of(20, 0.1, 1e-6, bias=-0.7))
    assert_allclose(found.delta2, 1.0, rtol=1e-3)


def test_constant_features_do_not_carry_the_others_away():
    """log δ̂² of 0 has an unlikely long tail; it is bounded, and so is its pull."""
    delta2 = np.ones(50)
    delta2[:2] = 0.0
    found = shrink_features(np.zeros(50), delta2, null_of(50, 0.1, 0.5))
    assert_allclose(found.delta2[2:], 1.0, rtol=0.3)
    assert np.all(np.isfinite(found.gamma))
    assert np.all(found.delta2 > 0)


def test_single_observations_tell_a_common_scale():
    """Values twice as far apart: the scale is larger, and never differs by feature."""
    null = Null(np.ones(400), None, None, 400.0, 400.0)
    z = np.random.default_rng(3).normal(size=400)
    near, far = (shrink_features(k * z, np.zeros(400), null) for k in (1.0, 3.0))
    assert np.ptp(near.delta2) == np.ptp(far.delta2) == 0
    assert far.delta2[0] > 2 * near.delta2[0]


def test_composition_moves_what_locations_and_scales_are_measured_from():
    rng = np.random.default_rng(4)
    centre, width = rng.normal(size=40), rng.uniform(0.3, 1.0, 40)
    delta2 = 2.0 * width
    gamma = np.sqrt(2.0) * centre + 0.5
    found = shrink_features(
        gamma, delta2, null_of(40, 1e-6, 1e-6), centre=centre, width=width
    )
    assert_allclose(found.gamma, 0.5, atol=1e-2)
    assert_allclose(found.delta2, 2.0, rtol=1e-2)
    plain = shrink_features(gamma, delta2, null_of(40, 1e-6, 1e-6))
    assert found.log_evidence > plain.log_evidence


def test_effective_numbers():
    z = np.random.default_rng(5).normal(size=(4000, 20))
    assert effective_number(z) == pytest.approx(20, rel=0.02)
    assert effective_number(z[:30]) > 10  # chance correlations are taken off
    assert effective_number(z[:, :1] + 1e-3 * z) == pytest.approx(1, abs=0.01)
    assert effective_number(np.zeros((10, 3))) == 1.0
