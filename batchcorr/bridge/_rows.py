"""Activations as matrices: channels are features, samples and positions are rows.

An activation of N samples, C channels and any further axes (time, height, width) is the
matrix of N · positions rows and C columns of which BatchNorm takes its statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._running import wide
from batchcorr.errors import InputError
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["channel_moments", "from_rows", "require_shape", "to_rows"]

AXES = {1: ("(N, C)", "(N, C, L)"), 2: ("(N, C, H, W)",), 3: ("(N, C, D, H, W)",)}


def require_shape(x: Tensor, channels: int, dimensions: int) -> None:
    """Refuse an input that a layer of so many channels and dimensions cannot take."""
    shapes = AXES[dimensions]
    if x.ndim not in [shape.count(",") + 1 for shape in shapes]:
        msg = (
            f"The input must be {' or '.join(shapes)}, samples first and channels "
            f"second; it is {x.ndim}-dimensional, of shape {tuple(x.shape)}."
        )
        raise InputError(msg)
    if x.shape[1] != channels:
        msg = (
            f"The layer has {channels} channels, the input {x.shape[1]} (its second "
            f"axis, of shape {tuple(x.shape)})."
        )
        raise InputError(msg)


def to_rows(activation: Tensor) -> Tensor:
    """(N, C, …) as (N · positions, C); the rows of a sample stay together."""
    if activation.ndim == 2:
        return activation
    return activation.movedim(1, -1).reshape(-1, activation.shape[1])


def from_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Rows as the activation they came from: the inverse of `to_rows`."""
    if len(shape) == 2:
        return rows
    return rows.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


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
