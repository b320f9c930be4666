r"""Channels of an activation: their moments, and ComBat's shrinkage across them.

An activation of N samples, C channels and any further axes (time, height, width) is the
matrix of N · positions rows and C columns of which BatchNorm takes its statistics. What
a few samples have is drawn together: with μ, σ² what a channel has elsewhere, and x̄, v
what it has in a batch of n rows,

    γ̂ = (x̄ - μ) / σ,   δ̂² = v / σ²      →  γ*, δ*² (`models.empirical_bayes`)
    x̄* = μ + σ γ*,      v* = σ² δ*²

Channels play the genes: what all of them do in a batch tells what a single one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._running import wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.models.empirical_bayes import prior_of, shrink, shrink_location
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "SMALLEST",
    "channel_moments",
    "channel_statistics",
    "require_shape",
    "shrunken_statistics",
    "to_rows",
]

SMALLEST = 1e-37
"""ε of layers with ε = 0, which torch does not take in training."""

SHAPES = {1: "(N, C) or (N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


def require_shape(x: Tensor, channels: int, dimensions: int) -> None:
    """Refuse an input that a layer of so many channels and dimensions cannot take."""
    fits = x.ndim == dimensions + 2 or (dimensions == 1 and x.ndim == 2)
    if not fits or x.shape[1] != channels:
        msg = (
            f"The layer needs an input of {SHAPES[dimensions]}, samples first, with C "
            f"= {channels} channels; the input has the shape {tuple(x.shape)}."
        )
        raise InputError(msg)


def to_rows(activation: Tensor) -> Tensor:
    """(N, C, …) as (N · positions, C); the rows of a sample stay together."""
    if activation.ndim == 2:
        return activation
    return activation.movedim(1, -1).reshape(-1, activation.shape[1])


def channel_moments(activation: Tensor) -> Moments:
    """The moments of the channels of (N, C, …) in float64, without gradients.

    As `tensor_moments(to_rows(activation))`, several times as fast: nothing is moved.
    """
    x = activation.detach()
    axes = [axis for axis in range(x.ndim) if axis != 1]
    origin = wide(x[(slice(1), slice(None), *[slice(1)] * (x.ndim - 2))])
    off = wide(x) - origin  # exactly 0 in a constant channel
    n = off.numel() // off.shape[1]
    shift = off.mean(axes)
    squares = (off.square_().sum(axes) - n * shift.square()).clamp_min_(0)
    count = squares.new_full((1, 1), n)
    return Moments(
        rows=count,
        n=count,
        mean=origin.reshape(1, -1) + shift,
        squares=squares[None, :],
        columns=count.new_empty((1, 0, 1)),
        cross=count.new_empty((1, 0, x.shape[1])),
        gram=count.new_empty((1, 0, 0, 1)),
    )


def channel_statistics(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Rows of (N, C, …), and mean and variance (ddof 0) of its channels, with gradients."""
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
    location, scale = location.to(mean), scale.to(mean)
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
