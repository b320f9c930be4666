r"""The algebra: frozen corrections that follow each other, and layers that take them up.

A layer y = W x + c between the corrections (r₁, s₁) before it and (r₂, s₂) after it is

    W' = r₂ ∘ W ∘ r₁,      c' = r₂ ∘ (c + Σ W s₁) + s₂

with r₁ along the input channels of W, r₂ along its output channels, and the sum over
input channels and positions of the kernel. All of it in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._running import wide
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["chain", "layer_weights", "one_map"]


def one_map(scale: Tensor, shift: Tensor) -> LocationScale:
    """The correction of one batch with a scale and a shift for each channel."""
    none = scale.new_empty((0, scale.shape[0]))
    return LocationScale(scale[None, :], shift[None, :], none, none)


def chain(first: LocationScale, then: LocationScale) -> LocationScale:
    """The one correction that does what two do, one after the other."""
    return one_map(
        (then.scale * first.scale)[0], (then.scale * first.shift + then.shift)[0]
    )


def layer_weights(
    weight: Tensor,
    bias: Tensor | None,
    before: LocationScale | None,
    after: LocationScale | None,
    *,
    groups: int = 1,
    transposed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that has taken up the corrections before and after it.

    The weight is (out, in / groups, …), of a transposed convolution (in, out / groups, …).
    """
    first, second = weight.shape[:2]
    blocks = wide(weight.detach()).reshape(groups, first // groups, second, -1)
    if transposed:
        blocks = blocks.transpose(1, 2)
    _, n_out, n_in, _ = blocks.shape  # groups, outputs, inputs, positions
    constant = blocks.new_zeros(groups * n_out) if bias is None else wide(bias.detach())
    if before is not None:
        shift = before.shift.reshape(groups, 1, n_in, 1)
        constant = constant + (blocks * shift).sum((2, 3)).reshape(-1)
        blocks = blocks * before.scale.reshape(groups, 1, n_in, 1)
    if after is not None:
        blocks = blocks * after.scale.reshape(groups, n_out, 1, 1)
        constant = after.scale[0] * constant + after.shift[0]
    if transposed:
        blocks = blocks.transpose(1, 2)
    return blocks.reshape(weight.shape), constant
