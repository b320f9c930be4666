r"""Statistics of a new batch from few samples: how far to trust them, by empirical Bayes.

Features are standardized by what they are elsewhere; a support of n samples has the
means γ̂_c and variances δ̂²_c. A *null*, learnt elsewhere by drawing supports of that
size, says how they err where there is no batch effect: γ̂_c varies by N_c, log δ̂²_c is
off by b_c and varies by V_c. Features (channels, genes) share hyperparameters:

    γ̂_c ~ N(γ_c, δ²_c N_c),                γ_c ~ N(γ₀, t²),  γ₀ ~ N(0, 1)
    δ̂²_c e^(-b_c) ~ δ²_c χ²_ν/ν · const,   δ²_c ~ d₀ s₀²/χ²_d₀,  log s₀² ~ N(0, 2)

with ν from ψ'(ν/2) = V_c; log t² ~ U(-10, 3) and log d₀ ~ U are averaged over a grid,
everything else is in closed form. Features see the same few samples and err together:
what they say of the hyperparameters counts as that of the *effective* number of
independent ones. Kin of ComBat's prior and of limma's for variances (Smyth 2004); as
shrinkage of normalization layers: James-Stein BN (arXiv:2312.00313).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, logsumexp, polygamma, psi, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Null",
    "Shrunken",
    "effective_number",
    "location_posterior",
    "scale_posterior",
    "shrink_features",
]

LOCATION_VARIANCES = np.exp(np.linspace(-10.0, 3.0, 53))
"""t², the variance of γ_c over features."""

SCALE_WEIGHTS = np.geomspace(0.5, 1e4, 18)
"""d₀, the samples that the common scale counts for."""

LOG_SCALES = np.linspace(-4.0, 4.0, 65)
"""log s₀², the common scale."""

LOG_SCALE_VARIANCE = 2.0
FLOOR = 1e-6
"""Smallest ratio of variances that is told from 0."""

CERTAIN = 1e-8
"""Smallest variance of a log variance."""


@dataclass(frozen=True)
class Null:
    """How a support's statistics err where there is no batch effect.

    Attributes
    ----------
    location_noise
        N, the variance of a mean: (C,).
    log_bias, log_variance
        b and V, of log variances: (C,); None where a single observation has none.
    effective_locations, effective_scales
        How many independent features the means and the log variances count for.
    """

    location_noise: Floats
    log_bias: Floats | None
    log_variance: Floats | None
    effective_locations: float
    effective_scales: float

    def select(self, features: NDArray[np.bool_]) -> Null:
        """The errors of some features only."""
        bias, variance = self.log_bias, self.log_variance
        return replace(
            self,
            location_noise=self.location_noise[features],
            log_bias=None if bias is None else bias[features],
            log_variance=None if variance is None else variance[features],
        )


@dataclass(frozen=True)
class Shrunken:
    """Posterior of a support's location and scale.

    Attributes
    ----------
    gamma, delta2
        Posterior mean of γ, exp of that of log δ²: (C,).
    log_evidence
        Log marginal likelihood of what was observed.
    """

    gamma: Floats
    delta2: Floats
    log_evidence: float


def shrink_features(
    gamma: Floats,
    delta2: Floats,
    null: Null,
    *,
    centre: Floats | float = 0.0,
    width: Floats | float = 1.0,
) -> Shrunken:
    """The posterior of a support's location and scale from γ̂ and δ̂²: (C,) each.

    A support of this composition (its classes) has the mean `centre` and the variance
    `width` elsewhere: γ̂ is measured from δ · centre, δ̂² in units of the width.

    Examples
    --------
    One feature stands out by no more than its noise, and is drawn to the others:

    >>> null = Null(np.full(5, 0.5), np.zeros(5), np.full(5, 0.5), 5, 5)
    >>> gamma = np.array([1.0, 1.1, 0.9, 1.0, 2.0])
    >>> shrink_features(gamma, np.ones(5), null).gamma[4].round(1)
    np.float64(1.2)
    """
    if null.log_variance is None or null.log_bias is None:
        scale, scale_evidence = _from_locations(gamma, null), 0.0
    else:
        ratio = np.log(np.maximum(delta2, FLOOR) / width) - null.log_bias
        scale, scale_evidence = scale_posterior(
            ratio, null.log_variance, null.effective_scales
        )
    variance = np.exp(scale)
    moved = gamma - np.sqrt(variance) * centre
    noise = variance * null.location_noise
    location, evidence = location_posterior(moved, noise, null.effective_locations)
    return Shrunken(location, variance, evidence + scale_evidence)


def location_posterior(
    gamma: Floats, noise: Floats, effective: float
) -> tuple[Floats, float]:
    """The posterior means of γ, (C,), and the log evidence, from γ̂ and its variance."""
    total = LOCATION_VARIANCES[:, None] + noise
    w = effective / len(gamma) / total
    precision = w.sum(axis=-1) + 1.0  # γ₀ ~ N(0, 1), integrated out
    pull = (w * gamma).sum(axis=-1)
    squares = (w * gamma**2).sum(axis=-1) - pull**2 / precision
    logs = np.log(2 * np.pi * total).sum(axis=-1) * (effective / len(gamma))
    logs = -0.5 * (logs + np.log(precision) + squares)
    kept = LOCATION_VARIANCES[:, None] / total
    means = kept * gamma + (1 - kept) * (pull / precision)[:, None]
    return softmax(logs) @ means, float(logsumexp(logs)) - np.log(len(logs))


def scale_posterior(
    log_ratio: Floats, log_variance: Floats, effective: float
) -> tuple[Floats, float]:
    """The posterior means of log δ², (C,), and the log evidence.

    From log δ̂² without its bias, and its variance.
    """
    half = _half_degrees(np.maximum(log_variance, CERTAIN))
    sum_ = half * np.exp(log_ratio + psi(half) - np.log(half))  # ½ ν δ̂²
    prior = SCALE_WEIGHTS[:, None, None] / 2
    prior_sum = prior * np.exp(LOG_SCALES)[None, :, None]
    joint = np.log(sum_ + prior_sum)
    logs = gammaln(half + prior) - gammaln(half) - gammaln(prior)
    logs = logs + half * np.log(sum_) + prior * np.log(prior_sum)
    logs = (logs - (half + prior) * joint).sum(axis=-1) * (effective / len(log_ratio))
    belief = -0.5 * LOG_SCALES**2 / LOG_SCALE_VARIANCE
    logs = logs + (belief - logsumexp(belief)) - np.log(len(SCALE_WEIGHTS))
    weight = softmax(logs)
    mean = np.einsum("ij,ijc->c", weight, joint)
    mean -= weight.sum(axis=1) @ psi(half + prior)[:, 0, :]
    return mean, float(logsumexp(logs))


def _half_degrees(log_variance: Floats) -> Floats:
    """ν/2 with ψ'(ν/2) = V, by Newton's method on 1/ψ' (Smyth 2004)."""
    half = 0.5 + 1 / log_variance
    for _ in range(50):
        value = polygamma(1, half)
        step = value * (1 - value / log_variance) / polygamma(2, half)
        half = half + step
        if np.max(-step / half) < 1e-10:
            break
    return half


def _from_locations(gamma: Floats, null: Null) -> Floats:
    """Log δ², one for all features, from how far single observations lie apart.

    The marginal likelihood of γ̂ for each of a grid of scales, times their prior.
    """
    logs = []
    for log_scale in LOG_SCALES:
        noise = np.exp(log_scale) * null.location_noise
        _, evidence = location_posterior(gamma, noise, null.effective_locations)
        logs.append(evidence - 0.5 * log_scale**2 / LOG_SCALE_VARIANCE)
    return np.full(len(gamma), softmax(logs) @ LOG_SCALES)


def effective_number(errors: Floats) -> float:
    """For how many independent features correlated ones count: C² / Σ ρ².

    From errors of C features in m draws, (m, C); chance correlations, 1/(m - 1) each,
    are taken off.

    Examples
    --------
    Three features of which two are the same are worth 9/5:

    >>> z = np.random.default_rng(0).normal(size=(100_000, 2))
    >>> round(effective_number(z[:, [0, 0, 1]]), 2)
    1.8
    """
    varies = np.ptp(errors, axis=0) > 0
    z = errors[:, varies]
    m, n = z.shape
    if n < 2 or m < 3:
        return float(max(n, 1))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    gram = z @ z.T if m < n else z.T @ z
    others = float((gram**2).sum()) / m**2 - n
    others = max(others - n * (n - 1) / (m - 1), 0.0)
    return float(n**2 / (n + others))
