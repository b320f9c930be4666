"""The plan made true in a copy of the model: new weights, and nothing where BatchNorm was.

Weights are new parameters of the old dtype and device, hooks stay where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchcorr.bridge._fold.sharing import place
from batchcorr.bridge._fold.stand_ins import PassThrough
from batchcorr.bridge._fold.weights import layer_weights, norm_weights
from batchcorr.bridge._norms import correction_of, statistics_of

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge._fold.plan import Plan

__all__ = ["rewrite"]

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def rewrite(model: nn.Module, plan: Plan) -> None:
    """Change the layers of a model in place, as planned."""
    for path in {**plan.before, **plan.after}:
        if path in plan.folded:
            continue  # what it took up has gone on with it
        layer = model.get_submodule(path)
        if isinstance(layer, _BatchNorm):
            _rewrite_norm(layer, plan, path)
        else:
            _rewrite_layer(layer, plan, path)
    for path in plan.folded:
        place(model, path, _left_of(model.get_submodule(path)))


def _rewrite_layer(layer: Any, plan: Plan, path: str) -> None:
    """Give a linear layer or convolution its new weight, and a bias."""
    weight, bias = layer_weights(
        layer.weight,
        layer.bias,
        plan.before.get(path),
        plan.after.get(path),
        groups=getattr(layer, "groups", 1),
        transposed=getattr(layer, "transposed", False),
    )
    old = layer.weight
    layer.bias = _parameter(bias, old if layer.bias is None else layer.bias)
    layer.weight = _parameter(weight, old)


def _rewrite_norm(norm: Any, plan: Plan, path: str) -> None:
    """Give a BatchNorm that stays the γ and β of all that it does now."""
    correction = plan.effect(path, correction_of(norm))
    weight, bias = norm_weights(correction, *statistics_of(norm), norm.eps)
    if not norm.affine:
        norm.affine = True
        norm.weight = nn.Parameter(weight.to(norm.running_mean.dtype), False)  # noqa: FBT003
        norm.bias = nn.Parameter(bias.to(norm.running_mean.dtype), False)  # noqa: FBT003
        return
    norm.weight = _parameter(weight, norm.weight)
    norm.bias = _parameter(bias, norm.bias)


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    """Return a parameter of the kind of another."""
    return nn.Parameter(value.detach().to(like.dtype), requires_grad=like.requires_grad)


def _left_of(norm: nn.Module) -> nn.Module:
    """Return what stands where a folded layer was: nothing but its hooks."""
    left = nn.Identity() if isinstance(norm, _BatchNorm) else PassThrough()
    left.train(norm.training)
    for name in HOOKS:
        setattr(left, name, getattr(norm, name))
    return left
