"""Copies of a model, and the plan made true in one: new weights, and no BatchNorm.

Weights are new parameters of the old dtype and device.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from batchcorr.bridge._fold.trace import LAYERS, rest_of
from batchcorr.bridge._fold.weights import layer_weights
from batchcorr.bridge._norms import unwrapped
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge._fold.plan import Plan

__all__ = ["add_biases", "copied", "rewrite"]


def copied(model: nn.Module) -> nn.Module:
    """A copy without wrappers of torch.compile, and without an autograd graph."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():  # weight norm keeps what it computed
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        for module in [*model.modules()][::-1]:
            if unwrapped(module) is not module:
                memo[id(module)] = copy.deepcopy(unwrapped(module), memo)
        twin = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        msg = (
            f"The model cannot be copied, and it is never changed itself: {error}. "
            "Remove what cannot be copied, such as open files or generators."
        )
        raise InputError(msg) from error
    for module in twin.modules():
        module._compiled_call_impl = None  # of module.compile()
    return twin


def add_biases(model: nn.Module) -> list[nn.Module]:
    """Give every layer without a bias one of zeros, to see whether its forward uses it."""
    added = []
    for layer in model.modules():
        if not isinstance(layer, tuple(LAYERS.values())):
            continue
        weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
        if bias is None and weight is not None and weight.is_floating_point():
            conv: Any = layer
            transposed = getattr(layer, "transposed", False)
            size = conv.out_channels if transposed else weight.shape[0]
            zeros = weight.new_zeros(size)
            layer.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)
            added.append(layer)
    return added


def rewrite(model: nn.Module, plan: Plan, added: list[nn.Module]) -> None:
    """Change the layers of a model in place, as planned."""
    changed = {**plan.before, **plan.after}
    for name in changed:
        layer: Any = model.get_submodule(name)
        weight, bias = layer_weights(
            layer.weight,
            layer.bias,
            plan.before.get(name),
            plan.after.get(name),
            groups=getattr(layer, "groups", 1),
            transposed=getattr(layer, "transposed", False),
        )
        layer.bias, layer.weight = _like(bias, layer.bias), _like(weight, layer.weight)
    for layer in added:
        if not any(layer is model.get_submodule(name) for name in changed):
            layer.bias = None
    modules = {id(model.get_submodule(name)): name for name in plan.folded}
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is not None and id(child) in modules:
                parent._modules[key] = rest_of(child).eval()


def _like(value: Tensor, old: Tensor) -> nn.Parameter:
    """A parameter of the kind of another."""
    return nn.Parameter(value.detach().to(old), requires_grad=old.requires_grad)
