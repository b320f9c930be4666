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

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SMALLEST", "channel_statistics", "shrunken_statistics"]

SMALLEST = 1e-37
"""ε of layers with ε = 0, which torch does not take in training."""


def channel_statistics(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Rows of an activation (N, C, …), and mean and variance (ddof 0) of its channels."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    variance, mean = torch.var_mean(x.float() if half else x, axes, correction=0)
    return x.numel() // x.shape[1], mean, variance


def shrunken_statistics(
    n: int, mean: Tensor, variance: Tensor, location: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of a batch of n rows, shrunken across channels: (C,) each.

    The channels have `location` and `scale`, a variance, elsewhere. A batch of one row,
    and a channel without variance elsewhere, get that variance.
    """
    dtype = mean.dtype
    location, scale = location.to(dtype), scale.to(dtype)
    varies = scale > 0
    sigma2 = torch.where(varies, scale, torch.ones_like(scale))
    sigma = torch.sqrt(sigma2)
    gamma = (mean - location) / sigma
    if n < 2:
        gamma = shrink_location(gamma, prior_of(gamma, torch.ones_like(gamma)))
        return location + sigma * gamma, scale
    squares = (n * variance / sigma2)[None]
    delta2 = squares / (n - 1)
    gamma = gamma[None]
    rows = torch.full_like(gamma[:, :1], n)
    gamma, delta2, _ = shrink(gamma, delta2, squares, rows, prior_of(gamma, delta2))
    return location + sigma * gamma[0], torch.where(varies, sigma2 * delta2[0], scale)
