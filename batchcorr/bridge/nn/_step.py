"""What the layers share: torch's training step, and what shapes they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HALF", "normalize_batch", "places_of", "require_shape"]

HALF = (torch.float16, torch.bfloat16)
SMALLEST = 1e-37
"""ε where the layer's is 0, which torch does not take in training."""

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


def normalize_batch(
    x: Tensor,
    running: tuple[Tensor, Tensor],
    affine: tuple[Tensor | None, Tensor | None],
    momentum: float,
    eps: float,
) -> Tensor:
    """BatchNorm in training, running statistics and all; half precision in float32."""
    weight, bias = affine
    eps = eps or SMALLEST
    if x.dtype not in HALF:
        return functional.batch_norm(
            x, *running, weight, bias, training=True, momentum=momentum, eps=eps
        )
    mean, variance = (value.float() for value in running)
    weight, bias = (None if v is None else v.float() for v in (weight, bias))
    y = functional.batch_norm(
        x.float(),
        mean,
        variance,
        weight,
        bias,
        training=True,
        momentum=momentum,
        eps=eps,
    )
    for value, moved in zip(running, (mean, variance), strict=True):
        value.copy_(moved)
    return y.to(x.dtype)


def places_of(rows: list[int], device: torch.device) -> Tensor:
    """Places of rows on a device, without waiting for it."""
    places = torch.tensor(rows)
    if device.type == "cuda":
        return places.pin_memory().to(device, non_blocking=True)
    return places.to(device)
