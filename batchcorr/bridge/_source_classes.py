"""What the classes of the source look like at every BatchNorm layer."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._rows import codes_of_rows, to_rows
from batchcorr.bridge._running import evaluating, input_of, run
from batchcorr.bridge._torch import torch
from batchcorr.errors import CovariateWarning, InputError, some, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._batches import Minibatch
    from batchcorr.models.moments import Moments

__all__ = ["add_classes", "class_shares", "labels_of"]


def labels_of(batch: Minibatch) -> NDArray[np.int64] | None:
    """Return the integer labels that a loader gave beside the inputs, if it did."""
    if not batch.others:
        return None
    labels = batch.others[0]
    if not isinstance(labels, torch.Tensor) or labels.shape != (batch.size,):
        return None
    if labels.is_floating_point() or labels.dtype == torch.bool:
        return None
    found: NDArray[np.int64] = labels.cpu().numpy().astype(np.int64)
    return found


def class_shares(loader: Iterable[Any]) -> NDArray[np.float64]:
    """Return the share of each class; empty if there are no labels.

    Raises
    ------
    InputError
        If only some minibatches have labels, or they are not 0 … K-1.

    Warns
    -----
    CovariateWarning
        If there is something that looks like labels, in another form.
    """
    found, unread = [], ""
    for batch in read_batches(loader):
        found.append(labels_of(batch))
        unread = unread or _unread_classes(batch)
    labels = [part for part in found if part is not None]
    if not labels:
        if unread:
            msg = (
                f"The loader gives {unread} beside the inputs, which look like classes "
                "and are not read: the profile is without classes, which "
                "method='eb_cov' needs. Give one integer for each sample, 0 … K-1: "
                "labels.long(), or labels.argmax(1) of one-hot rows."
            )
            warn(msg, CovariateWarning)
        return np.empty(0)
    values = np.concatenate(labels)
    counts = np.bincount(np.maximum(values, 0))
    if len(labels) < len(found) or values.min() < 0 or (counts == 0).any():
        msg = (
            "Labels of classes must be 0 … K-1, each class there, in every minibatch; "
            f"the loader gives {some(sorted(set(values.tolist())), 20)} in {len(labels)} "
            f"of {len(found)} minibatches. Give inputs alone to go without classes."
        )
        raise InputError(msg)
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _unread_classes(batch: Minibatch) -> str:
    """Describe what looks like classes in another form than integers, or nothing."""
    labels = batch.others[0] if batch.others and labels_of(batch) is None else None
    if not isinstance(labels, torch.Tensor) or len(labels.shape) not in {1, 2}:
        return ""
    if labels.layout != torch.strided or not labels.numel():
        return ""
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    whole = (
        bool((labels == labels.round()).all()) if labels.is_floating_point() else True
    )
    ones = ((labels == 1).sum(-1) == 1) & ((labels != 0).sum(-1) == 1)
    alike = whole and (not one_hot or bool(ones.all()))
    what = "one-hot rows" if one_hot else f"labels of {labels.dtype}"
    return f"{what}, shape {tuple(labels.shape)}," if alike else ""


def add_classes(
    model: nn.Module,
    loader: Iterable[Any],
    order: Mapping[str, _BatchNorm],
    source: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    n_classes: int,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the means of z and z² by class, of all layers: (K, C) each.

    z = (x - mean)/sd with the source's mean and sd, which the layers have now.
    """
    if not n_classes:
        return {}
    totals: dict[str, Moments] = {}
    codes = np.empty(0, dtype=np.int64)

    def watch(name: str) -> Any:
        def add(_norm: nn.Module, args: Any, kwargs: Any) -> None:
            x = input_of(args, kwargs)
            part = tensor_moments(to_rows(x), codes_of_rows(codes, x.shape), n_classes)
            totals[name] = totals[name].merge(part) if name in totals else part

        return add

    with ExitStack() as stack:
        for name, norm in order.items():
            hook = norm.register_forward_pre_hook(watch(name), with_kwargs=True)
            stack.callback(hook.remove)
        stack.enter_context(evaluating(model))
        for batch in read_batches(loader):
            labels = labels_of(batch)
            assert labels is not None
            codes = labels
            run(model, batch.inputs)
    found = {}
    for name, moments in totals.items():
        mean, variance = source[name]
        sd = np.sqrt(np.where(variance > 0, variance, 1.0))
        inner = (moments.squares / moments.n).cpu().numpy() / sd**2
        centre = (moments.mean.cpu().numpy() - mean) / sd
        found[name] = (centre, inner + centre**2)
    return found
