"""Set the statistics of BatchNorm layers one after the other, each on corrected inputs.

What a layer receives depends on the layers before it. So the loader is run once per
layer, as far as that layer, after all before it have their new statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._norms import batch_norms, statistics_of
from batchcorr.bridge._rows import positions, to_rows
from batchcorr.bridge._running import evaluating, input_of, run
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.models.moments import Moments

__all__ = [
    "Observed",
    "Snapshot",
    "Statistics",
    "call_order",
    "correct",
    "keeping",
    "put",
    "require_reusable",
    "restore",
    "snapshot",
    "statistics",
]

Statistics: TypeAlias = "dict[str, tuple[Tensor, Tensor]]"
"""Running mean and variance of layers, by name."""

Snapshot: TypeAlias = "list[tuple[_BatchNorm, str, Tensor]]"


class Observed(NamedTuple):
    """What a layer received: moments of its rows, of how many samples and positions."""

    moments: Moments
    samples: int
    positions: int


class _Reached(BaseException):
    """The layer that was asked for has been reached: the rest need not be run.

    Not an `Exception`, which a model might catch.
    """


def require_reusable(loader: Iterable[Any]) -> None:
    """Refuse what can be run through only once.

    Raises
    ------
    InputError
        If it is an iterator.
    """
    if isinstance(loader, Iterator):
        msg = (
            "The loader is an iterator, which one run uses up, and there is one run for "
            "each layer: give a DataLoader, or list(loader)."
        )
        raise InputError(msg)


def call_order(model: nn.Module, loader: Iterable[Any]) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers in the order in which a run calls them.

    Raises
    ------
    InputError
        If a layer is called twice in one run, in some minibatches only, keeps no
        statistics, or none is called.
    """
    norms = batch_norms(model)
    calls: list[str] = []
    first: list[str] | None = None
    handles = [
        norm.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, norm in norms.items()
    ]
    try:
        with evaluating(model):
            for number, minibatch in enumerate(read_batches(loader), start=1):
                calls.clear()
                run(model, minibatch.inputs)
                first = list(calls) if first is None else first
                _require_same_calls(first, calls, number)
    finally:
        for handle in handles:
            handle.remove()
    for name in calls:
        if calls.count(name) > 1:
            msg = (
                f"The BatchNorm layer {name!r} is called {calls.count(name)} times in "
                "one run: its places have different inputs but share their statistics. "
                "Give each place a layer of its own."
            )
            raise InputError(msg)
    if not calls:
        msg = "The model has BatchNorm layers, but a run does not call any."
        raise InputError(msg)
    order = {name: norms[name] for name in calls}
    for norm in order.values():
        statistics_of(norm)  # a kind error where there are none
    return order


def _require_same_calls(first: list[str], calls: list[str], number: int) -> None:
    """Refuse models in which it depends on the samples what they pass."""
    if calls == first:
        return
    names = some(map(repr, sorted(set(first) ^ set(calls)))) or "the same"
    msg = (
        f"Batch {number} of the loader calls other BatchNorm layers than the first one, "
        f"or in another order ({names}): the samples of a layer that is called in some "
        "batches only are not those of the domain. Give minibatches that all pass the "
        "same layers."
    )
    raise InputError(msg)


def statistics(order: Mapping[str, _BatchNorm]) -> Statistics:
    """Return copies of the layers' statistics, in float64."""
    found = {name: statistics_of(norm) for name, norm in order.items()}
    return {name: (mean.clone(), var.clone()) for name, (mean, var) in found.items()}


def put(order: Mapping[str, _BatchNorm], values: Statistics) -> None:
    """Write statistics into layers."""
    with torch.no_grad():
        for name, (mean, variance) in values.items():
            norm = order[name]
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def snapshot(order: Mapping[str, _BatchNorm]) -> Snapshot:
    """Return the layers' statistics as they are, to the bit."""
    return [
        (norm, name, getattr(norm, name).clone())
        for norm in order.values()
        for name in ("running_mean", "running_var")
    ]


def restore(before: Snapshot) -> None:
    """Put statistics back."""
    with torch.no_grad():
        for norm, name, value in before:
            getattr(norm, name).copy_(value)


@contextmanager
def keeping(order: Mapping[str, _BatchNorm]) -> Iterator[None]:
    """Put the layers' statistics back after whatever is done inside."""
    before = snapshot(order)
    try:
        yield
    finally:
        restore(before)


def correct(
    model: nn.Module,
    loader: Iterable[Any],
    order: Mapping[str, _BatchNorm],
    estimate: Callable[[str, Observed], tuple[Tensor, Tensor]],
) -> Statistics:
    """Estimate and set the statistics of every layer; the next sees them corrected.

    Parameters
    ----------
    model, loader
        The model, and the samples of one domain.
    order
        The layers in the order of their calls.
    estimate
        Gives mean and variance from a layer's name and what it received.
    """
    found: Statistics = {}
    for name, norm in order.items():
        observed = _observe(model, loader, name, norm)
        found[name] = estimate(name, observed)
        put(order, {name: found[name]})
    return found


def _observe(
    model: nn.Module, loader: Iterable[Any], name: str, norm: _BatchNorm
) -> Observed:
    """Run the loader as far as one layer and pool what it receives."""
    received: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        received.append(input_of(args, kwargs))
        raise _Reached

    handle = norm.register_forward_pre_hook(stop, with_kwargs=True)
    total: Moments | None = None
    samples = places = 0
    try:
        with evaluating(model):
            for minibatch in read_batches(loader):
                try:
                    run(model, minibatch.inputs)
                except _Reached:
                    activation = received.pop()
                else:
                    msg = f"The layer {name!r} is called in some batches, not in all."
                    raise InputError(msg)
                part = tensor_moments(to_rows(activation))
                total = part if total is None else total.merge(part)
                samples += minibatch.size
                places = positions(activation.shape)
    finally:
        handle.remove()
    assert total is not None
    if not bool(torch.isfinite(total.mean + total.squares).all()):
        msg = (
            f"The BatchNorm layer {name!r} receives values that are not finite (NaN): "
            "the model or its inputs are broken before it."
        )
        raise InputError(msg)
    return Observed(total, samples, places)
