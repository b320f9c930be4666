"""Which domain each sample of a batch is of: given in the call, or around it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray

from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

__all__ = [
    "Domains",
    "code_of",
    "domains",
    "domains_by_default",
    "read_domains",
    "read_labels",
]

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
        other hashable values. Tensors are read once, here: best on the CPU.

    Yields
    ------
    Nothing; the labels hold inside the ``with`` block.

    Notes
    -----
    Activation checkpointing calls layers again in the backward pass, which knows nothing
    of the block: there, give the labels as an argument, ``layer(x, domain)``.

    Examples
    --------
    >>> from torch import nn, ones
    >>> from batchcorr.bridge.nn import DomainBatchNorm1d
    >>> model = nn.Sequential(nn.Linear(2, 3), DomainBatchNorm1d(3, ["mon", "tue"]))
    >>> with domains(["mon", "mon", "tue", "tue"]):
    ...     model(ones(4, 2)).shape
    torch.Size([4, 3])
    """
    token = _AROUND.set(_as_list(labels))
    try:
        yield
    finally:
        _AROUND.reset(token)


def domains_by_default(labels: Domains | None) -> AbstractContextManager[None]:
    """`domains` where nothing is said around, and there are labels."""
    told = labels is None or _AROUND.get() is not None
    return nullcontext() if told else domains(labels)


def _as_list(labels: Any) -> Any:
    return labels.tolist() if hasattr(labels, "tolist") else labels


def read_labels(given: Domains | None, n_samples: int) -> list[Hashable]:
    """One label for each sample, from the call or from around it."""
    labels = _as_list(_AROUND.get() if given is None else given)
    if labels is None:
        msg = (
            "Which domain are these samples of? Give layer(x, domain), or call the "
            "model inside `with batchcorr.bridge.nn.domains(labels):`; or take the model "
            "of one domain, batchcorr.bridge.nn.at_domain(model, domain). (Activation "
            "checkpointing calls layers again outside of the block: give arguments.)"
        )
        raise InputError(msg)
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        labels = [labels] * n_samples
    if len(labels) != n_samples:
        msg = (
            f"There are {len(labels)} domain labels for {n_samples} samples: give one "
            "for each sample, or a single one for all."
        )
        raise InputError(msg)
    for row, label in enumerate(labels):
        if label is None or not isinstance(label, Hashable) or label != label:  # noqa: PLR0124 - NaN
            msg = (
                f"Sample {row} has no domain: its label is {label!r:.60}. Use strings, "
                "numbers or other hashable values, one for each sample."
            )
            raise InputError(msg)
    return list(labels)


def code_of(label: Hashable, domains: list[Hashable]) -> int | None:
    """The place of a label: its own, or that of the only one so spelled."""
    if label in domains:
        return domains.index(label)
    same = [k for k, other in enumerate(domains) if str(other) == str(label)]
    return same[0] if len(same) == 1 else None


def read_domains(given: Any) -> list[Hashable]:
    """The labels of all domains, each once."""
    given = _as_list(given)
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        msg = f"domains must be a list of labels, one for each domain, not {given!r}."
        raise InputError(msg)
    labels = [_as_list(label) for label in given]
    labels = read_labels(labels, len(labels))
    if not labels or len(set(labels)) < len(labels):
        msg = f"Each domain must be named once, and there must be one: {labels!r}."
        raise InputError(msg)
    return labels
