"""Which domain each sample of a batch is of: given in the call, or around it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

__all__ = ["Domains", "domains", "read_labels"]

Domains = Sequence[Hashable] | NDArray[Any] | torch.Tensor | Hashable
"""A label for each sample, or one for all of them."""

_AROUND: ContextVar[Any] = ContextVar("domains", default=None)


@contextmanager
def domains(labels: Domains) -> Iterator[None]:
    """Say which domain each sample is of, for all domain layers of a model called here.

    Parameters
    ----------
    labels
        A label for each sample of the batch, or one for all: strings, numbers, or any
        other hashable values.

    Yields
    ------
    Nothing; the labels hold inside the ``with`` block.

    Examples
    --------
    >>> from torch import nn, ones
    >>> from batchcorr.bridge.nn import DomainBatchNorm1d
    >>> model = nn.Sequential(nn.Linear(2, 3), DomainBatchNorm1d(3, ["mon", "tue"]))
    >>> with domains(["mon", "mon", "tue", "tue"]):
    ...     model(ones(4, 2)).shape
    torch.Size([4, 3])
    """
    token = _AROUND.set(labels)
    try:
        yield
    finally:
        _AROUND.reset(token)


def read_labels(given: Domains | None, n_samples: int) -> list[Hashable]:
    """Return one label for each sample, from the call or from around it.

    Raises
    ------
    InputError
        If there are none, some are missing or not hashable, or their number is wrong.
    """
    labels: Any = _AROUND.get() if given is None else given
    if labels is None:
        msg = (
            "Which domain are these samples of? Give layer(x, domain), or call the "
            "model inside `with batchcorr.bridge.nn.domains(labels):`; or take the model "
            "of one domain, batchcorr.bridge.nn.at_domain(model, domain)."
        )
        raise InputError(msg)
    if isinstance(labels, torch.Tensor | np.ndarray) or hasattr(labels, "tolist"):
        labels = labels.tolist()
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        labels = [labels] * n_samples
    if len(labels) != n_samples:
        msg = (
            f"There are {len(labels)} domain labels for {n_samples} samples: give one "
            "for each sample, or a single one for all."
        )
        raise InputError(msg)
    for row, label in enumerate(labels):
        if label is None or label != label:  # noqa: PLR0124 - NaN
            msg = f"Sample {row} has no domain: its label is {label!r}."
            raise InputError(msg)
        if not isinstance(label, Hashable):
            msg = (
                f"The domain of sample {row}, {label!r:.60}, cannot be looked up: use "
                "strings, numbers or other hashable values, one for each sample."
            )
            raise InputError(msg)
    return list(labels)
