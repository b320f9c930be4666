"""Which classes a model finds in samples: its logits, and their mean probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._running import evaluating, run
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["composition", "gives_logits"]


def gives_logits(model: nn.Module, loader: Iterable[Any], classes: int) -> bool:
    """Whether a model's answer to the first minibatch holds a logit for each class."""
    with evaluating(model):
        answer = run(model, next(iter(read_batches(loader))).inputs)
    return _are_logits(_logits_of(answer), classes)


def composition(model: nn.Module, loader: Iterable[Any], classes: int) -> Tensor:
    """Return the mean probability of each class over a loader: (classes,).

    Raises
    ------
    InputError
        If the model does not give one logit for each class.
    """
    total: Tensor | None = None
    samples = 0
    with evaluating(model):
        for minibatch in read_batches(loader):
            answer = run(model, minibatch.inputs)
            logits = _logits_of(answer)
            if not _are_logits(logits, classes):
                there = isinstance(logits, torch.Tensor)
                what = f"shape {tuple(logits.shape)}" if there else type(answer)
                msg = (
                    f"The model gives {getattr(what, '__name__', what)}, and to learn "
                    "which classes there are it must give logits, samples × "
                    f"{classes} classes of the profile: a tensor, or what has one as "
                    '`logits` or as its first item. method="eb" goes without classes.'
                )
                raise InputError(msg)
            part = torch.softmax(logits.double(), dim=1).sum(dim=0)
            total = part if total is None else total + part
            samples += minibatch.size
    assert total is not None
    return total / samples


def _logits_of(answer: Any) -> Any:
    """Return the logits in what a model gave: itself, `logits`, or the first of a tuple.

    Examples
    --------
    >>> _logits_of({"loss": 1, "logits": 2}), _logits_of((2, 1)), _logits_of(2)
    (2, 2, 2)
    """
    if isinstance(answer, Mapping):
        return answer.get("logits")
    if isinstance(answer, torch.Tensor):
        return answer
    first = answer[0] if isinstance(answer, tuple | list) and answer else answer
    return getattr(answer, "logits", first)


def _are_logits(logits: Any, classes: int) -> bool:
    if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
        return False
    return logits.ndim == 2 and logits.shape[1] == classes
