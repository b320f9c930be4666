"""The samples of a batch: tensors in tuples, lists and mappings, samples on axis 0.

What a training step is given is any nesting of these. All tensors with an axis have the
samples on their first; numbers, strings and tensors without axes belong to no sample
and go to every part unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convert", "leaves", "n_samples", "take"]


def convert(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """Return a nesting with every tensor replaced by a function of it.

    Examples
    --------
    >>> convert({"x": torch.ones(2), "name": "a"}, lambda x: (x * 2).tolist())
    {'x': [2.0, 2.0], 'name': 'a'}
    """
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: convert(value, function) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        parts = [convert(value, function) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def leaves(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors of a nesting.

    Examples
    --------
    >>> [x.item() for x in leaves([torch.tensor(1), (torch.tensor(2), "label")])]
    [1, 2]
    """
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves(value)


def n_samples(batch: Any) -> int:
    """Return how many samples a batch has.

    Raises
    ------
    InputError
        If it holds no tensor, its tensors disagree, or values are NaN.

    Examples
    --------
    >>> n_samples((torch.ones(3, 2), torch.ones(3)))
    3
    """
    tensors = [value for value in leaves(batch) if value.ndim]
    sizes = sorted({int(value.shape[0]) for value in tensors})
    if not sizes:
        msg = (
            f"The batch holds no tensor of samples: it is a {type(batch).__name__}. "
            "Give a tensor, or a tuple, list or dict of tensors, samples on axis 0."
        )
        raise InputError(msg)
    if len(sizes) > 1:
        shapes = some(tuple(value.shape) for value in tensors)
        msg = (
            "All tensors of a batch must have its samples on axis 0, but the first "
            f"axes are {', '.join(map(str, sizes))} long: the shapes are {shapes}."
        )
        raise InputError(msg)
    if sizes[0] == 0:
        msg = "The batch holds no sample: its tensors are empty."
        raise InputError(msg)
    for value in tensors:
        known = value.is_floating_point() and not value.is_meta
        if known and bool(torch.isnan(value).any()):
            msg = (
                f"A tensor of the batch, of shape {tuple(value.shape)}, holds NaN: "
                "remove or impute missing values first."
            )
            raise InputError(msg)
    return sizes[0]


def take(batch: Any, rows: Tensor) -> Any:
    """Return some samples of a batch, in a nesting like its own.

    Examples
    --------
    >>> x, name = take((torch.arange(4), "a"), torch.tensor([3, 0]))
    >>> x.tolist(), name
    ([3, 0], 'a')
    """
    return convert(
        batch, lambda value: value[rows.to(value.device)] if value.ndim else value
    )
