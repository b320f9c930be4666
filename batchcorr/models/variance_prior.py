r"""What the variances of all features have in common, for features with few samples.

Smyth (2004): the sample variance of a feature with d degrees of freedom is a draw of

    s² ~ s₀² F(d, d₀)          with logs e = log s² - ψ(d/2) + log(d/2),
    E e = log s₀² - ψ(d₀/2) + log(d₀/2),     Var e = ψ'(d/2) + ψ'(d₀/2)

so that d₀ and s₀² come from mean and variance of e, and the variance to test with is

    s̃² = (d₀ s₀² + d s²) / (d₀ + d).

With a trend s₀² follows a covariate (the feature's mean, say) on a natural spline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import digamma, polygamma

from batchcorr.models.smoothing import natural_spline_basis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["VariancePrior", "estimate_variance_prior", "inverse_trigamma", "usable"]

NO_DF = 1e-15
"""Degrees of freedom that are none."""

FLOOR = 1e-5
"""Share of the median variance under which a variance is taken to be that much."""


@dataclass(frozen=True)
class VariancePrior:
    """Prior scale and degrees of freedom, one each or one a feature.

    Attributes
    ----------
    scale
        s₀²: (1,) or (G,).
    df
        d₀, which may be infinite: (1,) or (G,).
    """

    scale: Floats
    df: Floats

    def posterior(self, variance: Floats, df: Floats) -> Floats:
        """The posterior variances s̃²: (G,).

        Parameters
        ----------
        variance, df
            s² and d of each feature: (G,).

        Examples
        --------
        >>> prior = VariancePrior(np.array([2.0]), np.array([4.0]))
        >>> prior.posterior(np.array([8.0]), np.array([2.0]))
        array([4.])
        """
        scale = np.broadcast_to(self.scale, variance.shape)
        prior_df = np.broadcast_to(self.df, variance.shape)
        own = np.where(df > NO_DF, df, 0.0)
        squares = np.where(own > 0, own * np.where(own > 0, variance, 0.0), 0.0)
        finite = np.isfinite(prior_df)
        known = np.where(finite, prior_df, 0.0)
        total = known + own
        safe = np.where(total > 0, total, 1.0)
        mixed = np.where(total > 0, (known * scale + squares) / safe, scale)
        return np.where(finite, mixed, scale)


def usable(variance: Floats, df: Floats) -> NDArray[np.bool_]:
    """Which features have a variance to learn from: (G,)."""
    return (df > NO_DF) & np.isfinite(variance)


def estimate_variance_prior(
    variance: Floats, df: Floats, trend: Floats | None = None
) -> VariancePrior:
    """The prior by the moments of the logarithms.

    Parameters
    ----------
    variance, df
        s² and d of each feature; NaN, or 0 degrees of freedom, where it has none: (G,).
    trend
        The covariate that s₀² follows, (G,); None: one s₀² for all.

    Notes
    -----
    R: limma 3.54 `eBayes`, `squeezeVar`, `fitFDist`.
    """
    known = usable(variance, df)
    s2, d = variance[known], df[known]
    if len(s2) == 0:
        return VariancePrior(np.full(1, np.nan), np.zeros(1))
    if len(s2) == 1:
        return VariancePrior(s2.copy(), np.zeros(1))
    middle = float(np.median(s2)) or 1.0
    raised = np.maximum(s2, FLOOR * middle)
    logs = np.log(raised) - digamma(d / 2) + np.log(d / 2)
    basis = None if trend is None else trend_basis(trend, known)
    if basis is None:
        mean, parameters = np.full(1, logs.mean()), 1
        left = logs - mean
    else:
        solution = np.linalg.lstsq(basis[known], logs, rcond=None)[0]
        mean, parameters = basis @ solution, basis.shape[1]
        left = logs - mean[known]
    excess = left @ left / (len(s2) - parameters) - polygamma(1, d / 2).mean()
    if excess <= 0:
        scale = np.full(1, raised.mean()) if basis is None else np.exp(mean)
        return VariancePrior(scale, np.full(1, np.inf))
    half = inverse_trigamma(float(excess))
    scale = np.exp(mean + digamma(half) - np.log(half))
    return VariancePrior(scale, np.full(1, 2 * half))


def trend_basis(trend: Floats, known: NDArray[np.bool_]) -> Floats | None:
    """Spline columns of the covariate for all features, (G, k); None: too few for any.

    Knots lie at the quantiles of the features that are known.
    """
    values = finite_trend(trend)
    n = int(known.sum())
    columns = 1 + (n >= 3) + (n >= 6) + (n >= 30)
    columns = min(columns, len(np.unique(values[known])))
    if columns < 2:
        return None
    inner = np.arange(1, columns - 1) / (columns - 1)
    used = values[known]
    knots = np.concatenate([[used.min()], np.quantile(used, inner), [used.max()]])
    return natural_spline_basis(values, knots)


def finite_trend(trend: Floats) -> Floats:
    """The covariate with infinite values moved to one beyond the finite ones: (G,)."""
    finite = trend[np.isfinite(trend)]
    values = np.where(trend == np.inf, finite.max(initial=0.0) + 1, trend)
    return np.where(trend == -np.inf, finite.min(initial=0.0) - 1, values)


def inverse_trigamma(value: float) -> float:
    """The y with ψ'(y) = value, by Newton's method on 1/ψ'.

    Examples
    --------
    >>> round(inverse_trigamma(float(polygamma(1, 2.5))), 12)
    2.5
    """
    if value > 1e7:
        return float(1 / np.sqrt(value))
    if value < 1e-6:
        return 1 / value
    y = 0.5 + 1 / value
    for _ in range(50):
        now = float(polygamma(1, y))
        step = now * (1 - now / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y
