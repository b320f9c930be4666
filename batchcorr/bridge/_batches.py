"""Batches of samples: nestings of tensors, samples on axis 0, and loaders of them.

A batch is any nesting of tuples, lists, mappings and dataclasses. Every tensor with an
axis has the samples on its first; numbers, strings and tensors without axes belong to no
sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Minibatch", "leaves", "map_tensors", "n_samples", "read_batches", "take"]


# -- nestings --------------------------------------------------------------------------


def map_tensors(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """The nesting with every tensor replaced by a function of it."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(value, function) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [map_tensors(value, function) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if is_dataclass(tree) and not isinstance(tree, type):
        tree = copy(tree)
        for field in fields(tree):
            value = map_tensors(getattr(tree, field.name), function)
            object.__setattr__(tree, field.name, value)  # frozen ones, too
    return tree


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of a nesting, one after the other."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves(value)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for field in fields(tree):
            yield from leaves(getattr(tree, field.name))


def n_samples(batch: Any) -> int:
    """How many samples a batch has."""
    tensors = [value for value in leaves(batch) if value.ndim]
    sizes = {int(value.shape[0]) for value in tensors}
    if len(sizes) != 1 or sizes == {0}:
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors) or "no tensor"
        msg = (
            "A batch must be a tensor, or a tuple, list or dict of tensors, with "
            f"samples on axis 0 of all; in this {type(batch).__name__} the shapes are "
            f"{shapes}."
        )
        raise InputError(msg)
    if _lacks_values(tensors, torch.isnan):
        msg = "The batch holds NaN: remove or impute missing values first."
        raise InputError(msg)
    return sizes.pop()


def _lacks_values(tensors: list[Tensor], lacks: Callable[[Tensor], Tensor]) -> bool:
    """Whether a tensor of real numbers has one that cannot be used."""
    real = (x for x in tensors if x.is_floating_point() and not x.is_meta)
    return any(bool(lacks(value).any()) for value in real)


def take(batch: Any, rows: Tensor) -> Any:
    """Some samples of a batch, in a nesting like its own."""
    return map_tensors(
        batch, lambda value: value[rows.to(value.device)] if value.ndim else value
    )


# -- loaders ---------------------------------------------------------------------------


class Minibatch(NamedTuple):
    """What a loader gave: the model's inputs, what came with them, and how many."""

    inputs: Any
    others: tuple[Any, ...]
    size: int


def read_batches(loader: Iterable[Any]) -> Iterator[Minibatch]:
    """What goes into the model: tensors, first items of tuples, or mappings."""
    if isinstance(loader, torch.Tensor) or not isinstance(loader, Iterable):
        msg = (
            "The loader must give batches: a DataLoader, or a list of tensors, not a "
            f"{type(loader).__name__}. For a single batch x give [x]."
        )
        raise InputError(msg)
    count = 0
    for count, item in enumerate(loader, start=1):
        yield _read(item, f"Batch {count} of the loader")
    if not count:
        msg = (
            "The loader is empty. If it is an iterator, it was used up by an earlier "
            "run: give a DataLoader or a list."
        )
        raise InputError(msg)


def _read(item: Any, what: str) -> Minibatch:
    others: tuple[Any, ...] = ()
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item):
        item, others = item[0], tuple(item[1:])
    tensors = list(item.values()) if isinstance(item, Mapping) else [item]
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors):
        msg = (
            f"{what} holds a {type(item).__name__}: give tensors, tuples whose first item "
            "is one, or mappings of names to tensors."
        )
        raise InputError(msg)
    if _lacks_values(tensors, lambda value: ~torch.isfinite(value)):
        msg = f"{what} holds values that are not finite (NaN)."
        raise InputError(msg)
    if not (tensors[0].ndim and len(tensors[0])):
        msg = f"{what} holds no sample."
        raise InputError(msg)
    return Minibatch(item, others, len(tensors[0]))
