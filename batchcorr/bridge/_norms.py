r"""The BatchNorm layers of a model: which there are, and what correction each applies.

In evaluation mode a BatchNorm is a frozen correction with one batch,

    r = γ / √(running variance + ε),      s = β - r · running mean
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = [
    "batch_norms",
    "correction_of",
    "given_to",
    "normalizing",
    "require_model",
    "require_plain",
    "statistics_of",
]


def require_model(model: object) -> nn.Module:
    """Return `model` if it is one whose layers all have their shapes.

    Raises
    ------
    InputError
        If it is no module, or has lazy layers that have not met data yet.
    """
    if not isinstance(model, nn.Module):
        msg = f"The model must be a torch.nn.Module, not a {type(model).__name__}."
        raise InputError(msg)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(value, UninitializedParameter | UninitializedBuffer):
            msg = (
                f"{name} has no shape yet: the model has lazy layers. Run one batch "
                "through it first, model(inputs)."
            )
            raise InputError(msg)
    return model


def batch_norms(model: nn.Module, *, needed: bool = True) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers of a model by name, each once, in module order.

    Raises
    ------
    InputError
        If there is none and one is needed.
    """
    found = {
        name: module
        for name, module in require_model(model).named_modules()
        if isinstance(module, _BatchNorm)
    }
    if needed and not found:
        require_plain(model)
        kinds = sorted({type(module).__name__ for module in model.modules()})
        msg = (
            f"The model has no BatchNorm layer, so there is nothing to do. Its layers "
            f"are {', '.join(kinds)}."
        )
        raise InputError(msg)
    return found


def require_plain(model: nn.Module) -> None:
    """Refuse models whose BatchNorm layers are there, but are no ordinary ones.

    Raises
    ------
    InputError
        If the model is scripted, or has layers with statistics for several domains.
    """
    for name, module in model.named_modules():
        scripted = isinstance(module, torch.jit.ScriptModule)
        if scripted and (not name or "BatchNorm" in module.original_name):
            msg = (
                "The model is scripted (torch.jit), so that its layers cannot be seen: "
                "give the model from which it was made, and script the result."
            )
            raise InputError(msg)
        if hasattr(module, "as_batch_norm"):
            msg = (
                f"The layer {name!r} is a {type(module).__name__}, which has "
                "statistics of its own for every domain. Take the model of one domain, "
                "batchcorr.bridge.nn.at_domain(model, domain)."
            )
            raise InputError(msg)


def given_to(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the activations that a layer is called with, by position or by name."""
    found: Tensor = args[0] if args else kwargs["input"]
    return found


def statistics_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the running mean and variance of a layer, in float64.

    Raises
    ------
    InputError
        If it keeps none.
    """
    if norm.running_mean is None or norm.running_var is None:
        msg = (
            "A BatchNorm layer with track_running_stats=False has no frozen "
            "statistics: it normalizes each batch by itself, in evaluation too."
        )
        raise InputError(msg)
    return norm.running_mean.double(), norm.running_var.double()


def correction_of(norm: _BatchNorm) -> LocationScale:
    """Return what a BatchNorm layer does in evaluation mode, as a frozen correction.

    Examples
    --------
    >>> from torch import nn
    >>> correction = correction_of(nn.BatchNorm1d(2, eps=3.0).eval())
    >>> correction.scale.tolist()
    [[0.5, 0.5]]
    """
    mean, variance = statistics_of(norm)
    return normalizing(
        mean[None, :], variance[None, :], norm.eps, norm.weight, norm.bias
    )


def normalizing(
    mean: Tensor,
    variance: Tensor,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> LocationScale:
    """Return the correction γ (x - mean) / √(variance + ε) + β of each batch.

    Parameters
    ----------
    mean, variance
        Of each batch and channel: (B, C). Half precision is taken as float32.
    eps
        ε, added to the variance.
    weight, bias
        γ and β, (C,); None: 1 and 0.

    Examples
    --------
    >>> found = normalizing(torch.tensor([[2.0]]), torch.tensor([[4.0]]), 0.0)
    >>> found.scale.item(), found.shift.item()
    (0.5, -1.0)
    """
    wide = torch.promote_types(mean.dtype, torch.float32)
    scale = 1 / torch.sqrt(variance.to(wide) + eps)
    if weight is not None:
        scale = scale * weight.to(wide)
    shift = -scale * mean.to(wide)
    if bias is not None:
        shift = shift + bias.to(wide)
    none = scale.new_empty((0, scale.shape[1]))
    return LocationScale(scale, shift, none, none)
