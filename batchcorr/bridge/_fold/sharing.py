"""Modules under several names: one each while folding, and one for all again after.

A module that is registered twice is called twice, perhaps with a BatchNorm behind one
of the calls only. With a copy under each name either can be changed; those that come out
equal are joined again, so that nothing is stored twice that was not.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = ["place", "rejoin", "separate"]


def place(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module under a name."""
    above, _, name = path.rpartition(".")
    model.get_submodule(above)._modules[name] = module


def separate(model: nn.Module) -> list[list[str]]:
    """Give every name a module of its own, and return the names that shared one."""
    names: dict[int, list[str]] = {id(model): [""]}
    _separate(model, "", names)
    return [group for group in names.values() if len(group) > 1]


def _separate(parent: nn.Module, prefix: str, names: dict[int, list[str]]) -> None:
    for name, child in list(parent._modules.items()):
        if child is None:
            continue
        path = f"{prefix}{name}"
        group = names.setdefault(id(child), [])
        group.append(path)
        own = child if len(group) == 1 else _shallow(child)
        parent._modules[name] = own
        _separate(own, f"{path}.", names)


def _shallow(module: nn.Module) -> nn.Module:
    """Return a copy with parameters and buffers of its own, but the same children."""
    clone = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict):
            clone.__dict__[name] = copy.copy(value)
    clone._parameters = copy.deepcopy(module._parameters)
    clone._buffers = copy.deepcopy(module._buffers)
    return clone


def rejoin(model: nn.Module, groups: list[list[str]]) -> None:
    """Put one module under all names of a group whose modules are equal."""
    for group in sorted(groups, key=_depth, reverse=True):
        kept: list[nn.Module] = []
        for path in group:
            module = model.get_submodule(path)
            twin = next((other for other in kept if _equal(other, module)), None)
            if twin is None:
                kept.append(module)
            else:
                place(model, path, twin)


def _depth(paths: list[str]) -> int:
    """Return how deep the deepest name lies: children are joined before parents."""
    return max(path.count(".") for path in paths)


def _equal(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules hold the same: equal tensors, the very same children."""
    return (
        type(a) is type(b)
        and _equal_tensors(a._parameters, b._parameters)
        and _equal_tensors(a._buffers, b._buffers)
        and a._modules.keys() == b._modules.keys()
        and all(child is b._modules[name] for name, child in a._modules.items())
    )


def _equal_tensors(
    a: dict[str, torch.nn.Parameter | None] | dict[str, torch.Tensor | None],
    b: dict[str, torch.nn.Parameter | None] | dict[str, torch.Tensor | None],
) -> bool:
    return a.keys() == b.keys() and all(
        x is b[name]
        or (x is not None and (y := b[name]) is not None and torch.equal(x, y))
        for name, x in a.items()
    )
