r"""The BatchNorm layers of a model: which there are, and what correction each applies.

In evaluation mode a BatchNorm is a frozen correction with one batch,

    r = γ / √(running variance + ε),      s = β - r · running mean

A BatchNorm is torch's own, also of several processes (SyncBatchNorm), with dropout and
activation in the same module (timm's BatchNormAct2d), or frozen into buffers
(torchvision's FrozenBatchNorm2d, timm's, detectron2's).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from batchcorr.bridge._running import wide
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "batch_norms",
    "correction_of",
    "is_batch_norm",
    "is_frozen",
    "normalizing",
    "require_model",
    "require_no_domains",
    "rest_of",
    "statistics_of",
    "unwrapped",
]

STATISTICS = ("running_mean", "running_var")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model


def require_model(model: object) -> nn.Module:
    """The model, unwrapped, if it is one whose layers all have their shapes."""
    if not isinstance(model, nn.Module):
        msg = f"The model must be a torch.nn.Module, not a {type(model).__name__}."
        raise InputError(msg)
    model = unwrapped(model)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(value) or value.is_meta:
            msg = (
                f"{name} has no values yet: the model is on the meta device, or has lazy "
                "layers. Run one batch through it first, model(inputs)."
            )
            raise InputError(msg)
    return model


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a layer is a BatchNorm that can be trained."""
    return isinstance(module, _NormBase) and not isinstance(module, _InstanceNorm)


def rest_of(norm: nn.Module) -> nn.Module:
    """What a BatchNorm module does after it has normalized: its parts, in order."""
    parts = OrderedDict((k, v) for k, v in norm._modules.items() if v is not None)
    if all(type(part) is nn.Identity for part in parts.values()):
        return nn.Identity()
    return nn.Sequential(parts)


def is_frozen(module: nn.Module) -> bool:
    """Whether a layer is a BatchNorm of buffers only, which no training changes."""
    tensors = [getattr(module, name, None) for name in (*STATISTICS, "weight", "bias")]
    return (
        not isinstance(module, _NormBase)
        and all(name in module._buffers for name in STATISTICS)
        and all(isinstance(x, torch.Tensor) and x.ndim == 1 for x in tensors)
    )


def require_no_domains(model: nn.Module) -> None:
    """Refuse layers with statistics of their own for every domain."""
    for name, module in model.named_modules():
        if hasattr(module, "as_batch_norm"):
            msg = (
                f"The layer {name!r} is a {type(module).__name__}, which has "
                "statistics of its own for every domain. Take the model of one domain, "
                "batchcorr.bridge.nn.at_domain(model, domain)."
            )
            raise InputError(msg)


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a model by name, in module order; there must be one.

    Those that cannot be seen, or have statistics of several domains, are refused.
    """
    norms = {}
    model = require_model(model)
    require_no_domains(model)
    for name, module in model.named_modules():
        scripted = isinstance(module, torch.jit.ScriptModule)
        if scripted and (not name or "BatchNorm" in module.original_name):
            msg = (
                "The model is scripted (torch.jit), so that its layers cannot be seen: "
                "give the model from which it was made, and script the result."
            )
            raise InputError(msg)
        if is_batch_norm(module) or is_frozen(module):
            norms[name] = cast("_BatchNorm", module)
    if not norms:
        kinds = sorted({type(module).__name__ for module in model.modules()})
        msg = (
            "The model has no BatchNorm layer, so there is nothing to do. Its layers "
            f"are {some(kinds)}."
        )
        raise InputError(msg)
    return norms


def statistics_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The running mean and variance of a layer, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        msg = (
            "A BatchNorm layer with track_running_stats=False has no frozen "
            "statistics: it normalizes each batch by itself, in evaluation too."
        )
        raise InputError(msg)
    return wide(norm.running_mean), wide(norm.running_var)


def correction_of(norm: _BatchNorm) -> LocationScale:
    """What a BatchNorm layer does in evaluation mode, as a frozen correction."""
    mean, variance = statistics_of(norm)
    eps = getattr(norm, "eps", 1e-5)  # DETR's frozen BatchNorm does not say
    affine = [None if x is None else x.detach() for x in (norm.weight, norm.bias)]
    return normalizing(mean[None, :], variance[None, :], eps, *affine)


def normalizing(
    mean: Tensor,
    variance: Tensor,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> LocationScale:
    """The correction γ (x - mean) / √(variance + ε) + β of each batch, from (B, C) each."""
    dtype = torch.promote_types(mean.dtype, torch.float32)
    scale = 1 / torch.sqrt(variance.to(dtype) + eps)
    if weight is not None:
        scale = scale * weight.to(scale)
    shift = -scale * mean.to(scale)
    if bias is not None:
        shift = shift + bias.to(scale)
    none = scale.new_empty((0, scale.shape[1]))
    return LocationScale(scale, shift, none, none)
