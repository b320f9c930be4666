"""A model as it is for one domain: ordinary BatchNorm in place of the domain layers."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from batchcorr.bridge._norms import require_model
from batchcorr.bridge.nn._domain_norm import DomainBatchNorm
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import nn

__all__ = ["at_domain"]


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
    copied = deepcopy(require_model(model))
    if isinstance(copied, DomainBatchNorm):
        return copied.as_batch_norm(domain)
    plain = {
        layer: layer.as_batch_norm(domain)
        for layer in copied.modules()
        if isinstance(layer, DomainBatchNorm)
    }
    if not plain:
        msg = "The model has no DomainBatchNorm layer: it is the same for every domain."
        raise InputError(msg)
    for parent in list(copied.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, DomainBatchNorm):
                setattr(parent, name, plain[child])
    return copied
