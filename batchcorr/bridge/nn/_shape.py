"""What BatchNorm layers ask of their input's shape, in 1, 2 and 3 dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["require_shape"]

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
