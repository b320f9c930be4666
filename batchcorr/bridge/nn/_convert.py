"""Whole models: BatchNorm by domain in the place of BatchNorm, and the model of one domain."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchcorr.bridge._norms import require_model, rest_of
from batchcorr.bridge._running import copy_of, evaluating
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._domain_layers import (
    DomainBatchNorm1d,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
)
from batchcorr.bridge.nn._domain_norm import DomainBatchNorm, affine_of
from batchcorr.bridge.nn._labels import code_of, read_domains
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["at_domain", "convert_domain_batchnorm"]

KINDS = {
    nn.BatchNorm1d: DomainBatchNorm1d,
    nn.BatchNorm2d: DomainBatchNorm2d,
    nn.BatchNorm3d: DomainBatchNorm3d,
}


def at_domain(model: nn.Module, domain: Hashable) -> nn.Module:
    """Return a copy of a model with ordinary BatchNorm layers of one domain.

    Parameters
    ----------
    model
        A model with `DomainBatchNorm` layers.
    domain
        A domain that all of them know.

    Returns
    -------
    A copy that needs no labels: it can be exported and scripted, and `bridge.fold` removes
    its BatchNorm layers. The given model stays as it is.

    Raises
    ------
    InputError, UnknownBatchError
        If the model has no such layer; if a layer does not know the domain.

    Examples
    --------
    >>> from torch import nn
    >>> from batchcorr.bridge.nn import DomainBatchNorm1d
    >>> model = nn.Sequential(nn.Linear(2, 3), DomainBatchNorm1d(3, ["mon", "tue"]))
    >>> [type(layer).__name__ for layer in at_domain(model, "mon")]
    ['Linear', 'BatchNorm1d']
    """
    model = require_model(model)
    copies: dict[int, Any] = {}
    for layer in model.modules():
        if isinstance(layer, DomainBatchNorm):
            copies[id(layer)] = plain = layer.as_batch_norm(domain)
            plain._parameters.update(deepcopy(affine_of(layer), copies))
    if not copies:
        msg = "The model has no DomainBatchNorm layer: it is the same for every domain."
        raise InputError(msg)
    return copy_of(model, copies)  # which takes these where the model has the others


def convert_domain_batchnorm(
    model: nn.Module, domains: Sequence[Hashable], *, unseen: str = "error"
) -> nn.Module:
    """Return a copy of a model whose BatchNorm layers keep statistics by domain.

    Parameters
    ----------
    model
        A model with BatchNorm layers of torch, or of timm with their activation, which is
        put behind the layer in a Sequential. Layers by domain get the domains that are new.
    domains, unseen
        As for `DomainBatchNorm1d`; layers by domain keep their `unseen`.

    Returns
    -------
    A copy, which gives what the model gives until it is trained: every domain starts from
    the layer's statistics, a new one of a layer by domain from all of its own together.
    Its parameters are new: make the optimizer of them. `at_domain` leads back.

    Raises
    ------
    InputError
        If the model has no BatchNorm (frozen ones of buffers stay); if one has no known
        number of dimensions, no running statistics, or does more than call its own parts.

    Examples
    --------
    >>> from torch import nn, ones
    >>> from batchcorr.bridge import nn as batchcorr_nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU()).eval()
    >>> ours = convert_domain_batchnorm(model, ["mon", "tue"])
    >>> with batchcorr_nn.domains(["mon", "tue"]):
    ...     bool((ours(ones(2, 2)) == model(ones(2, 2))).all())
    True
    >>> convert_domain_batchnorm(ours, ["mon", "tue", "wed"])[1].domains
    ['mon', 'tue', 'wed']
    """
    model = require_model(model)
    copies: dict[int, Any] = {}  # of modules, and of parameters, which may be shared
    for name, norm in model.named_modules():
        if isinstance(norm, DomainBatchNorm):
            copies[id(norm)] = _extended(norm, domains, copies)
        elif isinstance(norm, _BatchNorm):
            copies[id(norm)] = _converted(name, norm, domains, unseen, copies)
    if not copies:
        msg = "The model has no BatchNorm layer, so there is nothing to convert."
        raise InputError(msg)
    return copy_of(model, copies)


def _extended(
    layer: DomainBatchNorm, domains: Sequence[Hashable], copies: dict[int, Any]
) -> DomainBatchNorm:
    """The layer with more domains, which start from all of its own together."""
    more = [
        label
        for label in read_domains(domains)
        if code_of(label, layer.domains) is None
    ]
    new = cast("DomainBatchNorm", copy_of(layer, copies))
    new.domains = layer.domains + more
    mean, variance = layer.running_mean[0], layer.running_var[0]
    if bool(layer.rows_seen.any()):
        mean, variance = layer._of_all()
    start = {
        "running_mean": mean,
        "running_var": variance,
        "rows_seen": layer.rows_seen.sum(),
        "num_batches_tracked": layer.num_batches_tracked.sum(),
    }
    for name, value in start.items():
        old = getattr(layer, name)
        rows = value.to(old).expand(len(more), *value.shape)
        setattr(new, name, torch.cat([old, rows]))
    return new


def _converted(
    name: str,
    norm: _BatchNorm,
    domains: Sequence[Hashable],
    unseen: str,
    copies: dict[int, Any],
) -> nn.Module:
    """The layer of a BatchNorm, and behind it what else the module does, which is tried."""
    rest = deepcopy(rest_of(norm), copies)
    for kind, by_domain in KINDS.items():
        if not isinstance(norm, kind) or norm.running_mean is None:
            continue
        alone = kind(norm.num_features, norm.eps, norm.momentum, affine=norm.affine)
        alone._parameters.update(affine_of(norm))
        for key in alone._buffers:
            setattr(alone, key, getattr(norm, key))
        alone.train(norm.training)
        shape = (2, norm.num_features, *[2] * by_domain.dimensions)
        x = torch.linspace(-2, 2, math.prod(shape), device="cpu")
        x = x.reshape(shape).to(norm.running_mean)
        with evaluating(nn.ModuleList([norm, alone, rest])):
            same = torch.equal(rest(alone(x)), norm(x))
        if same:
            layer = by_domain.from_batch_norm(alone, domains, unseen=unseen)
            layer._parameters.update(deepcopy(affine_of(norm), copies))
            parts = list(rest.children())
            return nn.Sequential(layer, *parts).train(norm.training) if parts else layer
    msg = (
        f"The layer {name!r} ({type(norm).__name__}) cannot be converted: it must be a "
        "BatchNorm1d, 2d or 3d with running statistics that, beside normalizing, calls "
        "only its own parts. Convert before convert_sync_batchnorm."
    )
    raise InputError(msg)
