r"""What batch explains of each feature, over what chance alone would let it explain.

With α the batch means about their common one, H and H₀ the projections on the model with
and without batch, and s_b² the variance of each batch (Brown & Forsythe 1974),

    ratio = |H x - H₀ x|² / Σ_b s_b² tr(H - H₀)_b

is 1 on average where batch explains nothing. Values from which batch was removed before
have less in nearly every feature: 0 after linear removal, 1/4 and under after ComBat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.linear_model import LinearFit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]

__all__ = ["batch_over_chance"]


def batch_over_chance(moments: Moments) -> Floats:
    """The ratio of each feature, given the columns and without them: (2, G).

    Parameters
    ----------
    moments
        Of two batches or more, without weights.

    Returns
    -------
    NaN where a feature has no residual variance.

    Examples
    --------
    Batch means that are equal, and means as far apart as those of single samples:

    >>> from batchcorr.arrays import moments
    >>> from batchcorr.design.design import Design
    >>> x = np.array([[-1.0, 0.0], [1.0, 2.0], [-1.0, 1.0], [1.0, 3.0]])
    >>> batch_over_chance(moments(x, Design.of([0, 0, 1, 1])))[1]
    array([0. , 0.5])
    """
    fit = LinearFit.of(moments)
    squares, df = fit.residual_squares, np.asarray(fit.df_by_batch)
    together = LinearFit.of(moments.collapse([0] * moments.n_batches, 1))
    total = moments.n.sum(axis=0)
    away = moments.columns - together.means
    gram = moments.gram + moments.n[:, None, None] * away[:, :, None] * away[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = moments.n / total + np.einsum("jkg,bkjg->bg", together.covariance, gram)
        variance = np.where(
            df > 0.5, squares / df, squares.sum(axis=0) / df.sum(axis=0)
        )
        gained = together.residual_squares.sum(axis=0) - squares.sum(axis=0)
        given = gained / (variance * (moments.n - df - alone)).sum(axis=0)
        middle = (moments.n * moments.mean).sum(axis=0) / total
        between = (moments.n * (moments.mean - middle) ** 2).sum(axis=0)
        without = between / (variance * (1 - moments.n / total)).sum(axis=0)
    ratios = np.vstack([given, without])
    return np.where(squares.sum(axis=0) > 0, ratios, np.nan)
