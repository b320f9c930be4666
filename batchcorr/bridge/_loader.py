"""Read a loader batch by batch, and run a model that nobody trains meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.bridge._torch import torch
from batchcorr.errors import BatchCorrError, InputError, some

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Minibatch", "evaluating", "read_batches", "run"]


class Minibatch(NamedTuple):
    """What a loader gave: what goes into the model, and what was beside it."""

    inputs: Any
    beside: tuple[Any, ...]
    size: int


def read_batches(loader: Iterable[Any]) -> Iterator[Minibatch]:
    """Yield what goes into the model: tensors, first items of tuples, or mappings.

    Raises
    ------
    InputError
        If the loader is none, is empty, or gives something else; if values are not
        finite.
    """
    if isinstance(loader, torch.Tensor) or not isinstance(loader, Iterable):
        msg = (
            "The loader must give batches: a DataLoader, or a list of tensors, not a "
            f"{type(loader).__name__}. For a single batch x give [x]."
        )
        raise InputError(msg)
    count = 0
    for count, item in enumerate(loader, start=1):
        yield _read(item, count)
    if not count:
        msg = (
            "The loader is empty: it gave no batch. An iterator is used up by one run."
        )
        raise InputError(msg)


def _read(item: Any, number: int) -> Minibatch:
    beside: tuple[Any, ...] = ()
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item):
        item, beside = item[0], tuple(item[1:])
    tensors = list(item.values()) if isinstance(item, Mapping) else [item]
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors):
        msg = (
            f"Batch {number} of the loader holds a {type(item).__name__}: give tensors, "
            "tuples whose first item is one, or mappings of names to tensors."
        )
        raise InputError(msg)
    for value in tensors:
        known = value.is_floating_point() and not value.is_meta
        if known and not bool(torch.isfinite(value).all()):
            msg = (
                f"Batch {number} of the loader holds values that are not finite (NaN)."
            )
            raise InputError(msg)
    size = int(tensors[0].shape[0]) if tensors[0].ndim else 0
    if size == 0:
        msg = f"Batch {number} of the loader holds no sample."
        raise InputError(msg)
    return Minibatch(item, beside, size)


def run(model: nn.Module, inputs: Any) -> Any:
    """Call a model on what a loader gave.

    Raises
    ------
    InputError
        If model and data are on different devices, or the model cannot take the batch.
    """
    tensors = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    devices = {str(value.device) for value in model.parameters()}
    devices |= {str(value.device) for value in model.buffers()}
    given = {str(value.device) for value in tensors}
    if devices and not given <= devices:
        msg = (
            f"The model is on {', '.join(sorted(devices))} and the data are on "
            f"{', '.join(sorted(given))}: move one to the other with .to(device)."
        )
        raise InputError(msg)
    try:
        return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    except BatchCorrError:
        raise
    except Exception as error:
        shapes = some(tuple(value.shape) for value in tensors)
        msg = (
            f"The model cannot take a batch of shape {shapes}: {type(error).__name__}: "
            f"{error}"
        )
        if isinstance(error, TypeError):
            msg += (
                "\nTo a model of several inputs the loader must give mappings of their "
                "names to tensors; of a tuple the first item is taken."
            )
        raise InputError(msg) from error


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode without gradients, and put it back after."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training
