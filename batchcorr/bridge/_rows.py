"""Activations as matrices: channels are features, samples and positions are rows.

An activation of N samples, C channels and any further axes (time, height, width) is the
matrix of N · positions rows and C columns of which BatchNorm takes its statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["from_rows", "positions", "to_rows"]


def positions(shape: Sequence[int]) -> int:
    """Return how many rows one sample has: the product of all axes but the first two."""
    count = 1
    for size in shape[2:]:
        count *= int(size)
    return count


def to_rows(activation: Tensor) -> Tensor:
    """Return (N, C, …) as (N · positions, C); the rows of a sample stay together."""
    if activation.ndim == 2:
        return activation
    return activation.movedim(1, -1).reshape(-1, activation.shape[1])


def from_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Return rows as the activation they came from: the inverse of `to_rows`."""
    if len(shape) == 2:
        return rows
    return rows.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
