r"""Layers that take up corrections: new weights, and no BatchNorm.

A layer y = W x + c between the corrections (r₁, s₁) before it and (r₂, s₂) after it is

    W' = r₂ ∘ W ∘ r₁,      c' = r₂ ∘ (c + Σ W s₁) + s₂

with r₁ along the input channels of W, r₂ along its output channels, and the sum over
input channels and positions of the kernel. All of it in float64, rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.bridge._fold.trace import LAYERS, rest_of
from batchcorr.bridge._running import wide

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge._fold.plan import Plan
    from batchcorr.models.location_scale import LocationScale

__all__ = ["add_biases", "layer_weights", "rewrite"]


KINDS: Any = tuple(LAYERS.values())


def layer_weights(
    layer: Any, before: LocationScale | None, after: LocationScale | None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that has taken up the corrections before and after it.

    The weight is (out, in / groups, …), of a transposed convolution (in, out / groups, …).
    """
    groups, transposed = (
        getattr(layer, "groups", 1),
        getattr(layer, "transposed", False),
    )
    first, second = layer.weight.shape[:2]
    blocks = wide(layer.weight.detach()).reshape(groups, first // groups, second, -1)
    if transposed:
        blocks = blocks.transpose(1, 2)
    _, n_out, n_in, _ = blocks.shape  # groups, outputs, inputs, positions
    constant = wide(layer.bias.detach())
    if before is not None:
        shift = before.shift.reshape(groups, 1, n_in, 1)
        constant = constant + (blocks * shift).sum((2, 3)).reshape(-1)
        blocks = blocks * before.scale.reshape(groups, 1, n_in, 1)
    if after is not None:
        blocks = blocks * after.scale.reshape(groups, n_out, 1, 1)
        constant = after.scale[0] * constant + after.shift[0]
    if transposed:
        blocks = blocks.transpose(1, 2)
    return blocks.reshape(layer.weight.shape), constant


def add_biases(model: nn.Module) -> set[str]:
    """Give every layer without a bias one of zeros, to see whether its forward uses it."""
    added = set()
    layer: Any
    for name, layer in model.named_modules():
        if not isinstance(layer, KINDS):
            continue
        weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
        if weight is not None and bias is None:
            transposed = getattr(layer, "transposed", False)
            zeros = weight.new_zeros(layer.out_channels if transposed else len(weight))
            layer.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)
            added.add(name)
    return added


def rewrite(model: nn.Module, plan: Plan, added: set[str]) -> None:
    """Change the layers of a model as planned."""
    changed = plan.before.keys() | plan.after.keys()
    layer: Any
    for name in changed | added:
        layer = model.get_submodule(name)
        if name not in changed:
            layer.bias = None
            continue
        before, after = plan.before.get(name), plan.after.get(name)
        new = layer_weights(layer, before, after)
        for key, value in zip(("weight", "bias"), new, strict=True):
            old = getattr(layer, key)
            like_old = nn.Parameter(value.to(old), requires_grad=old.requires_grad)
            setattr(layer, key, like_old)
    gone = {model.get_submodule(name) for name in plan.folded}
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child in gone:
                parent._modules[key] = rest_of(child).eval()
