r"""ComBat's shrinkage across channels: a few samples' statistics, drawn together.

With μ, σ² what a channel has elsewhere, and x̄, v what it has in a batch of n rows,

    γ̂ = (x̄ - μ) / σ,   δ̂² = v / σ²      →  γ*, δ*² (`models.empirical_bayes`)
    x̄* = μ + σ γ*,      v* = σ² δ*²

Channels play the genes: what all of them do in a batch tells what a single one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._torch import torch
from batchcorr.models.empirical_bayes import prior_of, shrink, shrink_location
from batchcorr.models.linear_model import LinearFit

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.models.moments import Moments

__all__ = ["shrunken_statistics"]


def shrunken_statistics(
    moments: Moments, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of each batch, shrunken across channels.

    Parameters
    ----------
    moments
        Of B batches and C channels; tensors, with or without gradients.
    mean, variance
        What the channels have elsewhere, to which batches are compared: (C,) each.

    Returns
    -------
    mean, variance
        (B, C) each. A batch of one row tells nothing of variances: it gets those given,
        and a shrunken mean. So does a channel that has none elsewhere.

    Examples
    --------
    Two channels of a batch moved by 1; a third, by 4, is drawn towards them:

    >>> from batchcorr.arrays.generic import tensor_moments
    >>> x = torch.tensor([[0.0, 2.0, 3.0], [2.0, 0.0, 5.0]], dtype=torch.float64)
    >>> mean, _ = shrunken_statistics(tensor_moments(x), torch.zeros(3), torch.ones(3))
    >>> bool(3 < mean[0, 2] < 4)
    True
    """
    fit = LinearFit.of(moments, moments.cross[0, ...])
    known = variance > 0
    sigma2 = torch.where(known, variance, torch.ones_like(variance)).to(
        fit.intercepts.dtype
    )
    sigma, mean = torch.sqrt(sigma2), mean.to(sigma2.dtype)
    gamma = (fit.intercepts - mean) / sigma
    squares = fit.residual_squares / sigma2
    means, variances = [], []
    for b in range(moments.n_batches):
        n = moments.n[b]
        moved, spread = gamma[b], torch.ones_like(gamma[b])
        if int(n[0]) == 1:
            moved = shrink_location(gamma[b], prior_of(gamma[b], spread))
        elif int(n[0]) > 1:
            spread = squares[b] / (n - 1)
            prior = prior_of(gamma[b], spread)
            moved, spread, _ = shrink(gamma[b], spread, squares[b], n, prior)
        means.append(mean + sigma * moved)
        variances.append(torch.where(known, sigma2 * spread, variance.to(spread.dtype)))
    return torch.stack(means), torch.stack(variances)
