r"""Tests of a linear model's coefficients with variances moderated over features.

    t = β_j / √(s̃² V_jj)           on min(d + d₀, Σ_g d) degrees of freedom,
    F = βᵀ V⁺ β / (r s̃²)           on r and d + d₀,          r = rank V

with s̃² the posterior variance of the feature (`variance_prior`). d₀ may be infinite; d is
0 for a feature whose samples the model fits exactly, and then its prior is all there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import chdtrc, fdtrc, stdtr, stdtrit
from scipy.stats import false_discovery_control

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.variance_prior import VariancePrior

    Floats = NDArray[np.float64]

__all__ = ["ModeratedF", "ModeratedT", "adjust", "moderated_f", "moderated_t"]

DEPENDENT = 1e-8
"""Share of the largest eigenvalue under which tested columns repeat each other."""


@dataclass(frozen=True)
class ModeratedT:
    """One test a column and feature.

    Attributes
    ----------
    coefficient, standard_error, t, p_value
        β, √(s̃² V_jj), their ratio and its two-sided p: (k, G).
    df
        Degrees of freedom of t: (G,).
    """

    coefficient: Floats
    standard_error: Floats
    t: Floats
    df: Floats
    p_value: Floats

    def interval(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """The lower and upper ends of the confidence intervals: (k, G) each."""
        with np.errstate(invalid="ignore"):
            reach = stdtrit(self.df, (1 + confidence) / 2) * self.standard_error
            return self.coefficient - reach, self.coefficient + reach


class ModeratedF(NamedTuple):
    """One test of all columns a feature: F, its degrees of freedom and p, (G,) each."""

    f: Floats
    df: int
    residual_df: Floats
    p_value: Floats


def moderated_t(
    coefficient: Floats,
    unscaled_error: Floats,
    variance: Floats,
    df: Floats,
    prior: VariancePrior,
) -> ModeratedT:
    """Test each column by itself.

    Parameters
    ----------
    coefficient
        β of the tested columns: (k, G).
    unscaled_error
        √V_jj: (k, G) or (k, 1).
    variance, df
        s² = RSS/d, and d, of each feature: (G,).
    prior
        What the features have in common.

    Examples
    --------
    >>> from batchcorr.models.variance_prior import VariancePrior
    >>> prior = VariancePrior(np.ones(1), np.full(1, np.inf))
    >>> ones = np.ones(2)
    >>> moderated_t(2 * ones[None], 0.5 * ones[None], 9 * ones, 3 * ones, prior).t
    array([[4., 4.]])
    """
    posterior = prior.posterior(variance, df)
    total = np.minimum(df + prior.df, df[df > 0].sum())
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN: not estimable
        error = np.sqrt(posterior) * unscaled_error
        t = coefficient / error
        p_value = 2 * stdtr(total, -np.abs(t))
    return ModeratedT(coefficient, error, t, total, p_value)


def moderated_f(
    coefficient: Floats,
    covariance: Floats,
    variance: Floats,
    df: Floats,
    prior: VariancePrior,
) -> ModeratedF:
    """Test that all columns are 0 together.

    Parameters
    ----------
    coefficient
        β of the tested columns: (k, G).
    covariance
        V of the tested columns, shared by all features or one each: (k, k, 1|G).
    variance, df, prior
        As in `moderated_t`.

    Notes
    -----
    R: limma `classifyTestsF`, with V where limma takes a common correlation; the same
    where no value is missing.
    """
    matrices = np.moveaxis(covariance, -1, 0)
    known = np.isfinite(matrices).all(axis=(1, 2), keepdims=True)
    matrices = np.where(known, matrices, np.eye(len(coefficient)))  # NaN stay in β
    errors = np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    correlation = matrices / (errors[:, :, None] * errors[:, None, :])
    values, vectors = np.linalg.eigh(correlation)
    kept = values > DEPENDENT * values[:, -1:]
    rank = int(kept.sum(axis=1).max(initial=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(kept, 1 / values, 0.0)
        scaled = (coefficient / errors.T).T[:, None, :]  # (G, 1, k)
        along = (scaled @ vectors)[:, 0, :]
        posterior = prior.posterior(variance, df)
        f = (along**2 * inverse).sum(axis=1) / rank / posterior
    total = np.broadcast_to(df + prior.df, f.shape)
    finite = np.isfinite(total)
    p_value = np.where(
        finite, fdtrc(rank, np.where(finite, total, 1.0), f), chdtrc(rank, rank * f)
    )
    return ModeratedF(f, rank, total, p_value)


def adjust(p_value: Floats) -> Floats:
    """The p-values by Benjamini & Hochberg, along the last axis; NaN stay NaN.

    Examples
    --------
    >>> adjust(np.array([0.01, np.nan, 0.04]))
    array([0.02,  nan, 0.04])
    """
    adjusted = np.full(p_value.shape, np.nan)
    for row in np.ndindex(p_value.shape[:-1]):
        known = np.isfinite(p_value[row])
        if known.any():
            adjusted[row][known] = false_discovery_control(p_value[row][known])
    return adjusted
