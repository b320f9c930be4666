r"""The test to make instead of testing corrected values: batch in the model, one read.

    x[i, g] = α[b, g] + z[i] β[:, g] + ε,        c β = 0 ?

from the moments that corrections are learned from: β, V and RSS of the linear fit, and
variances moderated over features. The columns c β may be tested one by one (t) and
together (F).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr.errors import InputError
from batchcorr.models.batch_weights import batch_weights
from batchcorr.models.generalized_inverse import determined
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.moderated_t import (
    ModeratedF,
    ModeratedT,
    moderated_f,
    moderated_t,
)
from batchcorr.models.robust_variance_prior import estimate_robust_variance_prior
from batchcorr.models.variance_prior import estimate_variance_prior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments
    from batchcorr.models.variance_prior import VariancePrior

    Floats = NDArray[np.float64]

__all__ = [
    "Estimates",
    "OneStepTest",
    "estimates",
    "moderated",
    "weighted_by_batch",
    "with_batch_weights",
]


class Estimates(NamedTuple):
    """What a linear fit says of k contrasts and G features; NaN: not determined.

    Attributes
    ----------
    coefficient
        c β: (k, G).
    covariance
        Of the contrasts, for σ² = 1: (k, k, 1|G).
    squares, df
        Residual sum of squares, and its degrees of freedom: (G,).
    mean
        Mean of the feature's observed values: (G,).
    correlation
        That of samples of one subject; None: samples are independent.
    """

    coefficient: Floats
    covariance: Floats
    squares: Floats
    df: Floats
    mean: Floats
    correlation: float | None = None


@dataclass(frozen=True)
class OneStepTest:
    """What the test says of each feature.

    Attributes
    ----------
    each
        One t a contrast: arrays (k, G).
    together
        F of all contrasts; None for a single one.
    mean
        Mean of the feature's observed values: (G,).
    variance, df
        s² and d before they are moderated: (G,).
    prior
        What the features have in common.
    """

    each: ModeratedT
    together: ModeratedF | None
    mean: Floats
    variance: Floats
    df: Floats
    prior: VariancePrior


def moderated(
    estimates: Estimates, *, trend: bool = False, robust: bool = False
) -> OneStepTest:
    """The test of estimates, with variances moderated over features.

    `trend` lets the prior variance follow the feature's mean, `robust` keeps a few
    features of outlying variance from moving it. R: limma `eBayes`.
    """
    coefficient, covariance, squares, df, mean, _ = estimates
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(df > 0, squares / df, np.nan)
    estimate = estimate_robust_variance_prior if robust else estimate_variance_prior
    prior = estimate(variance, df, mean if trend else None)
    errors = np.sqrt(np.einsum("iig->ig", covariance))
    each = moderated_t(coefficient, errors, variance, df, prior)
    together = None
    if len(coefficient) > 1:
        together = moderated_f(coefficient, covariance, variance, df, prior)
    return OneStepTest(each, together, mean, variance, df, prior)


def with_batch_weights(
    moments: Moments, observed: Moments | None = None
) -> tuple[Moments, Floats]:
    """The moments with every batch weighted by how little it varies, and the weights.

    Parameters
    ----------
    moments
        Of all batches; features with missing values take no part in the weights.
    observed
        Where `moments` are weighted: the plain ones.

    Raises
    ------
    InputError
        If every feature has missing values.
    """
    plain = moments if observed is None else observed
    every = plain.rows if observed is None else plain.n.max(axis=1, keepdims=True)
    complete = np.flatnonzero((plain.n == every).all(axis=0))
    if not len(complete):
        msg = (
            "Every feature has missing values, but variances of batches are estimated "
            "from complete features: use equal_variances=True, or impute values."
        )
        raise InputError(msg)
    own = moments
    if plain.n.shape[1] > 1:
        own, plain = (part.select_features(complete) for part in (own, plain))
    if observed is None:  # all complete: their samples are the same
        own = replace(
            own, n=own.n[:, :1], columns=own.columns[..., :1], gram=own.gram[..., :1]
        )
    weights = batch_weights(own, plain)
    return weighted_by_batch(moments, weights), weights


def weighted_by_batch(moments: Moments, weights: Floats) -> Moments:
    """The moments of values with one more weight a batch, (B,): n is left as it is."""
    column = weights[:, None]
    return replace(
        moments,
        squares=moments.squares * column,
        cross=moments.cross * column[:, :, None],
        gram=moments.gram * column[:, :, None, None],
    )


def estimates(
    moments: Moments, contrasts: Floats, observed: Moments | None = None
) -> Estimates:
    """Fit the linear model and estimate contrasts, each feature by its own samples.

    Parameters
    ----------
    moments
        Of all batches.
    contrasts
        Weights of the columns, a row a contrast: (k, p).
    observed
        Where `moments` are weighted: the plain ones, for means and degrees of freedom.

    Notes
    -----
    With missing values a contrast is estimated if the feature's samples determine it,
    whatever else they leave open; else it is NaN. R: limma `lmFit`, batch in the design.
    """
    plain = moments if observed is None else observed
    fit = LinearFit.of(moments, counts=plain.n)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (plain.n * plain.mean).sum(axis=0) / plain.n.sum(axis=0)
    coefficient = contrasts @ fit.coefficients
    covariance = np.einsum("ip,pqg,jq->ijg", contrasts, fit.covariance, contrasts)
    batches = (plain.n > 0).sum(axis=0)
    df = np.broadcast_to(
        plain.n.sum(axis=0) - batches - fit.n_columns, (fit.n_features,)
    ).astype(np.float64)
    squares = fit.residual_squares.sum(axis=0)
    open_ = np.flatnonzero(~np.asarray(fit.solved))
    if not len(open_):
        return Estimates(coefficient, covariance, squares, np.maximum(df, 0.0), mean)
    # What the samples of these features determine: V by the generalized inverse.
    covariance = np.array(np.broadcast_to(covariance, (*covariance.shape[:2], len(df))))
    gram = np.moveaxis(moments.gram.sum(axis=0)[..., open_], -1, 0)
    found = determined(gram, moments.cross.sum(axis=0)[:, open_], contrasts)
    left = moments.squares[:, open_].sum(axis=0) - found.explained
    squares[open_] = np.maximum(left, 0)
    coefficient[:, open_] = found.coefficient
    covariance[:, :, open_] = found.covariance
    df[open_] += fit.n_columns - found.rank
    return Estimates(coefficient, covariance, squares, np.maximum(df, 0.0), mean)
