r"""The variance prior when some features are far more variable than the rest.

Phipson et al. (2016): the logarithms of s² are clipped at their own quantiles, and d₀ is
where their variance is that of the logarithms of F(d, d₀) clipped likewise. Features
whose s² is then too large to be believed get fewer prior degrees of freedom,

    d₀g = p_g d₀ + (1 - p_g) d₁,        p_g: how well the prior explains feature g,

with d₁ so that the most extreme feature is at the median of its own prior.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.optimize import brentq
from scipy.special import betainc, betaln
from scipy.stats import chi2, f, rankdata

from batchcorr.models.smoothing import lowess
from batchcorr.models.variance_prior import (
    VariancePrior,
    estimate_variance_prior,
    finite_trend,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["estimate_robust_variance_prior"]

TAILS = (0.05, 0.10)
"""Shares clipped below and above."""

NODES = 128
"""Points of the quadrature for the moments of a clipped log F."""


def estimate_robust_variance_prior(
    variance: Floats, df: Floats, trend: Floats | None = None
) -> VariancePrior:
    """The prior that a few features of outlying variance do not move.

    Parameters
    ----------
    variance, df
        s² and d of each feature; NaN, or 0 degrees of freedom, where it has none: (G,).
    trend
        The covariate that s₀² follows, (G,); None: one s₀² for all.

    Notes
    -----
    R: limma 3.54 `fitFDistRobustly`, with the root for d₀ found to the end. With under
    ten features it is the plain prior.
    """
    plain = estimate_variance_prior(variance, df, trend)
    known = np.isfinite(variance) & (df > 1e-6)
    if max(TAILS) * known.sum() < 1 or not np.median(variance[known]) > 0:
        return plain
    s2 = np.maximum(variance[known], 1e-12 * np.median(variance[known]))
    covariate = None if trend is None else finite_trend(trend)
    own = None if covariate is None else covariate[known]
    first = estimate_variance_prior(s2, df[known], own)
    d, before = float(df[known].max()), float(first.df[0])
    if (df[known] < d).any():
        s2 = _to_common_df(s2, df[known], d, first)
    logs = np.log(s2)
    level = _level(logs, own)
    left = logs - level
    low, high = np.quantile(left, [TAILS[0], 1 - TAILS[1]])
    clipped = np.clip(left, low, high)
    mean, observed = clipped.mean(), float(clipped.var(ddof=1))

    def surplus(inverse_df: float) -> float:
        """Log of the observed over the expected variance, at d₀ = 1 / inverse_df."""
        return float(np.log(observed / _clipped_log_f(d, inverse_df)[1]))

    if observed == 0 or surplus(0.0) <= 0:
        inverse = 0.0
    elif np.isinf(before):
        return plain
    elif surplus(1 / before) >= 0:
        inverse = 1 / before
    else:
        inverse = brentq(surplus, 0.0, 1 / before, xtol=1e-16, rtol=1e-14)
    log_scale = level + mean - _clipped_log_f(d, inverse)[0]
    prior_df = np.inf if inverse == 0 else 1 / inverse
    shrunk = _believed(s2 / np.exp(log_scale), d, prior_df)
    scale, every_df = np.exp(log_scale), np.full(len(variance), prior_df)
    every_df[known] = shrunk
    if covariate is None or own is None:
        return VariancePrior(np.atleast_1d(scale), every_df)
    places, first_of = np.unique(own, return_inverse=True)
    tied = np.bincount(first_of, log_scale) / np.bincount(first_of)
    every_scale = np.exp(np.interp(covariate, places, tied))
    every_scale[known] = scale
    return VariancePrior(every_scale, every_df)


def _level(logs: Floats, covariate: Floats | None) -> Floats:
    """The centre of the logarithms: a trimmed mean, or a smooth line: (1,) or (G,)."""
    if covariate is None:
        cut = int(0.1 * len(logs))
        return np.full(1, np.sort(logs)[cut : len(logs) - cut].mean())
    reach = float(np.ptp(covariate))
    return lowess(covariate, logs, fraction=0.4, rounds=3, delta=0.01 * reach)


def _clipped_log_f(d: float, inverse_df: float) -> tuple[float, float]:
    """Mean and variance of log F(d, 1 / inverse_df), clipped at its own quantiles."""
    law = chi2(d, scale=1 / d) if inverse_df == 0 else f(d, 1 / inverse_df)
    low, high = law.ppf(TAILS[0]), law.isf(TAILS[1])
    ends = np.array([low, high]) / (1 + np.array([low, high]))
    nodes, weights = leggauss(NODES)
    half = (ends[1] - ends[0]) / 2
    share = ends.mean() + half * nodes
    values = share / (1 - share)
    mass = half * weights * law.pdf(values) / (1 - share) ** 2
    logs, clips = np.log(values), np.log([low, high])
    mean = mass @ logs + clips @ TAILS
    variance = mass @ (logs - mean) ** 2 + (clips - mean) ** 2 @ TAILS
    return float(mean), float(variance)


def _believed(ratio: Floats, d: float, prior_df: float) -> Floats:
    """Prior degrees of freedom of each feature, fewer where s²/s₀² is too large: (G,)."""
    count = len(ratio)
    expected = np.log(count - rankdata(ratio) + 0.5) - np.log(count)
    log_tail = _log_tail(ratio, d, prior_df)
    order = np.argsort(log_tail, kind="stable")
    log_share = np.minimum(log_tail - expected, 0.0)
    if not (log_share < 0).any():
        return np.full(count, prior_df)
    share = np.exp(log_share)
    if np.isinf(prior_df):
        reduced: Floats = np.where(share < 1, share * count * d, np.inf)
        reduced[order] = np.maximum.accumulate(reduced[order])
        return reduced
    worst = float(log_tail[order[0]])
    if worst == -np.inf:
        reduced = share * prior_df
    else:
        fewer = np.log(0.5) / worst * prior_df
        again = float(_log_tail(np.array([ratio.max()]), d, fewer)[0])
        fewer *= np.log(0.5) / again
        reduced = share * prior_df + (1 - share) * fewer
    ordered = reduced[order]
    running = np.cumsum(ordered) / np.arange(1, count + 1)
    lowest = int(np.argmin(running))
    ordered[: lowest + 1] = running[lowest]
    reduced[order] = np.maximum.accumulate(ordered)
    return reduced


def _to_common_df(s2: Floats, df: Floats, most: float, prior: VariancePrior) -> Floats:
    """Variances as extreme under `most` degrees of freedom as they are under their own."""
    scale = np.broadcast_to(prior.scale, s2.shape)
    prior_df = float(prior.df[0])
    moved = s2.copy()
    for place in np.flatnonzero(df < most):
        ratio = s2[place] / scale[place]
        moved[place] = scale[place] * _matched(ratio, df[place], most, prior_df)
    return moved


def _matched(ratio: float, df: float, most: float, prior_df: float) -> float:
    """The value of F(most, d₀) whose smaller tail is that of `ratio` under F(df, d₀)."""
    here = chi2(df, scale=1 / df) if np.isinf(prior_df) else f(df, prior_df)
    there = chi2(most, scale=1 / most) if np.isinf(prior_df) else f(most, prior_df)
    below, above = float(here.cdf(ratio)), float(here.sf(ratio))
    if below <= above:
        return float(there.ppf(below)) if below > 0 else 0.0
    if above > 1e-280:
        return float(there.isf(above))
    target = float(_log_tail(np.array([ratio]), df, prior_df)[0])

    def gap(log_value: float) -> float:
        value = np.array([np.exp(log_value)])
        return float(_log_tail(value, most, prior_df)[0]) - target

    return float(np.exp(brentq(gap, 0.0, np.log(ratio) + 50, xtol=1e-13)))


def _log_tail(ratio: Floats, d: float, prior_df: float) -> Floats:
    """Logarithm of P(F(d, d₀) > ratio), far beyond where the probability underflows."""
    if np.isinf(prior_df):
        return _log_chi2_tail(d * ratio, d)
    a, b = prior_df / 2, d / 2
    x = prior_df / (prior_df + d * ratio)
    with np.errstate(divide="ignore"):
        result = np.log(betainc(a, b, x))
    far = result < -600
    if far.any():
        # I_x(a, b) = x^a (1 - x)^b / (a B(a, b)) Σ_k (a + b)_k / (a + 1)_k x^k
        near = x[far]
        term, total, k = np.ones_like(near), np.ones_like(near), 0
        while (term > 1e-17 * total).any():
            term = term * (a + b + k) / (a + 1 + k) * near
            total, k = total + term, k + 1
        head = a * np.log(near) + b * np.log1p(-near) - np.log(a) - betaln(a, b)
        result[far] = head + np.log(total)
    return result


def _log_chi2_tail(value: Floats, d: float) -> Floats:
    """Logarithm of the upper tail of chi-square, by a continued fraction where far."""
    with np.errstate(divide="ignore"):
        result: Floats = np.asarray(chi2.logsf(value, d), dtype=np.float64)
    far = ~(result > -600)
    if far.any():
        from scipy.special import gammaln

        a, x = d / 2, value[far] / 2
        fraction = np.zeros_like(x)
        for k in range(200, 0, -1):  # Γ(a, x) = x^a e^-x / (x + (1 - a)/(1 + 1/(x + …
            fraction = k * (a - k) / (x + 2 * k + 1 - a + fraction)
        result[far] = a * np.log(x) - x - gammaln(a) - np.log(x + 1 - a + fraction)
    return result
