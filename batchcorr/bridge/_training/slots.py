"""Where the tensors of a model hang: every attribute of every module, a slot each.

A module registered under two names is one module with one slot; a tensor tied across
modules has a slot in each. So a model in which other tensors are to stand is changed
slot by slot, and put back slot by slot.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

__all__ = ["fill", "held"]


def fill(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a value for every slot, from values for tensors by their first names.

    Examples
    --------
    >>> from torch import nn
    >>> one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    >>> other.weight = one.weight
    >>> model = nn.Sequential(one, one, other)
    >>> list(fill(model, {"0.weight": torch.ones(2, 2)}))
    ['0.weight', '2.weight']
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    new = {id(value): values[name] for name, value in named if name in values}
    filled = {}
    for prefix, module in model.named_modules():
        for attribute, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is not None and id(value) in new:
                slot = f"{prefix}.{attribute}" if prefix else attribute
                filled[slot] = new[id(value)]
    return filled


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Put every tensor back into its slot at the end, and buffers to their values."""
    slots: list[tuple[Any, dict[str, Any]]] = [
        (kind, dict(kind))
        for module in model.modules()
        for kind in (module._parameters, module._buffers)
    ]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for kind, before in slots:
            kind.update(before)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
