"""Set the statistics of BatchNorm layers one after the other, each on corrected inputs.

What a layer receives depends on the layers before it. A single minibatch is corrected in
one forward pass: each layer gets its statistics when it is reached. Of several minibatches
the layer needs all, so that they are run once per layer, as far as that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge._batches import Minibatch, read_batches
from batchcorr.bridge._norms import batch_norms, statistics_of
from batchcorr.bridge._rows import to_rows
from batchcorr.bridge._running import evaluating, has_hooks, hooked, input_of, run
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.models.moments import Moments

__all__ = [
    "Estimator",
    "Observed",
    "Snapshot",
    "Statistics",
    "call_order",
    "correct",
    "put",
    "require_reusable",
    "restore",
    "restoring",
    "snapshot",
    "statistics",
]

Statistics: TypeAlias = "dict[str, tuple[Tensor, Tensor]]"
"""Running mean and variance of layers, by name."""

Snapshot: TypeAlias = "list[tuple[_BatchNorm, str, Tensor]]"


class Observed(NamedTuple):
    """What a layer received: moments of its rows, and of how many samples."""

    moments: Moments
    samples: int


Estimator: TypeAlias = "Callable[[str, Observed], tuple[Tensor, Tensor]]"
"""Gives mean and variance from a layer's name and what it received."""


class _ReachedError(BaseException):
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
            "The loader is an iterator, which one run uses up, and there may be one run "
            "for each layer: give a DataLoader, or list(loader)."
        )
        raise InputError(msg)


# -- statistics of layers ----------------------------------------------------------------


def statistics(order: Mapping[str, _BatchNorm]) -> Statistics:
    """Copies of the layers' statistics, in float64."""
    found = {name: statistics_of(norm) for name, norm in order.items()}
    return {name: (mean.clone(), var.clone()) for name, (mean, var) in found.items()}


def put(order: Mapping[str, _BatchNorm], values: Statistics) -> None:
    """Set the statistics of layers.

    Raises
    ------
    InputError
        If one does not fit into the numbers of its layer.
    """
    with torch.no_grad():
        for name, new in values.items():
            norm = order[name]
            for buffer, value in zip(
                (norm.running_mean, norm.running_var), new, strict=True
            ):
                assert buffer is not None
                rounded = value.to(buffer)
                if not bool(torch.isfinite(rounded).all()):
                    msg = (
                        f"The BatchNorm layer {name!r} would get statistics up to "
                        f"{float(value.abs().max()):.3g}, which its {buffer.dtype} does "
                        "not hold: recalibrate model.float(), or keep the BatchNorm "
                        "layers in float32."
                    )
                    raise InputError(msg)
                buffer.copy_(rounded)


def snapshot(order: Mapping[str, _BatchNorm]) -> Snapshot:
    """The layers' statistics as they are, to the bit."""
    return [
        (norm, name, getattr(norm, name).clone())
        for norm in order.values()
        for name in ("running_mean", "running_var")
        if getattr(norm, name) is not None
    ]


def restore(before: Snapshot) -> None:
    """Put statistics back."""
    with torch.no_grad():
        for norm, name, value in before:
            getattr(norm, name).copy_(value)


@contextmanager
def restoring(order: Mapping[str, _BatchNorm], *, always: bool) -> Iterator[Snapshot]:
    """Put the layers' statistics back: after what is done inside, or only if it fails."""
    before = snapshot(order)
    try:
        yield before
    except BaseException:
        restore(before)
        raise
    if always:
        restore(before)


# -- runs --------------------------------------------------------------------------------


def call_order(
    model: nn.Module, loader: Iterable[Any]
) -> tuple[dict[str, _BatchNorm], int]:
    """The BatchNorm layers in the order in which a run calls them; samples of the loader.

    Raises
    ------
    InputError
        If a layer is called twice in one run, in some minibatches only, keeps no
        statistics, or none is called.
    """
    norms = batch_norms(model, frozen=True)
    names = {norm: name for name, norm in norms.items()}
    calls: list[str] = []
    first: list[str] | None = None
    samples = 0

    def note(norm: _BatchNorm, _args: Any, _kwargs: Any) -> None:
        calls.append(names[norm])

    with hooked(norms.values(), before=note), evaluating(model):
        for number, minibatch in enumerate(read_batches(loader), start=1):
            calls.clear()
            run(model, minibatch.inputs)
            first = list(calls) if first is None else first
            _require_same_calls(first, calls, number)
            samples += minibatch.size
    for name in calls:
        if calls.count(name) > 1:
            raise InputError(_repeated(name))
    if not calls:
        msg = "The model has BatchNorm layers, but a run does not call any."
        raise InputError(msg)
    order = {name: norms[name] for name in calls}
    statistics(order)  # a kind error where there are none
    return order, samples


def _repeated(name: str) -> str:
    return (
        f"The BatchNorm layer {name!r} is called 2 times or more in one run: its places "
        "have different inputs but share their statistics. Give each place a layer of "
        "its own."
    )


def _require_same_calls(first: list[str], calls: list[str], number: int) -> None:
    """Refuse models in which it depends on the samples what they pass."""
    if calls == first:
        return
    names = some(repr(x) for x in sorted(set(first) ^ set(calls))) or "the same"
    msg = (
        f"Batch {number} of the loader calls other BatchNorm layers than the first one, "
        f"or in another order ({names}): the samples of a layer that is called in some "
        "batches only are not those of the domain. Give minibatches that all pass the "
        "same layers."
    )
    raise InputError(msg)


def correct(
    model: nn.Module,
    loader: Iterable[Any],
    order: Mapping[str, _BatchNorm],
    estimate: Estimator,
) -> Statistics:
    """Estimate and set the statistics of every layer; the next sees them corrected.

    Parameters
    ----------
    model, loader
        The model, and the samples of one domain.
    order
        The layers in the order of their calls.
    estimate
        The estimator.
    """
    batches = read_batches(loader)
    only, another = next(batches), next(batches, None)
    if another is None:
        return _in_one_pass(model, only, order, estimate)
    found: Statistics = {}
    for name, norm in order.items():
        found[name] = estimate(name, _observe(model, loader, name, norm))
        put(order, {name: found[name]})
    return found


def _in_one_pass(
    model: nn.Module,
    minibatch: Minibatch,
    order: Mapping[str, _BatchNorm],
    estimate: Estimator,
) -> Statistics:
    """Give each layer its statistics when it is reached."""
    names = {norm: name for name, norm in order.items()}
    found: Statistics = {}
    failed: list[Exception] = []  # raised at the end: a model might catch it

    def set_statistics(norm: _BatchNorm, args: Any, kwargs: Any) -> None:
        if failed:
            return
        name, x = names[norm], input_of(args, kwargs)
        try:
            moments = tensor_moments(to_rows(x))
            _require_finite(name, moments)
            found[name] = estimate(name, Observed(moments, minibatch.size))
            put(order, {name: found[name]})
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    with hooked(order.values(), before=set_statistics), evaluating(model):
        run(model, minibatch.inputs)
    if failed:
        raise failed[0]
    return found


def _observe(
    model: nn.Module, loader: Iterable[Any], name: str, norm: _BatchNorm
) -> Observed:
    """Run the loader, as far as one layer, and pool what it receives.

    Where somebody watches the model by hooks, runs are completed, so that for every
    call that begins one ends.
    """
    received: list[Tensor] = []
    whole = has_hooks(model)

    def stop(_norm: nn.Module, args: Any, kwargs: Any) -> None:
        received.append(input_of(args, kwargs))
        if not whole:
            raise _ReachedError

    total: Moments | None = None
    samples = 0
    with hooked([norm], before=stop), evaluating(model):
        for minibatch in read_batches(loader):
            with suppress(_ReachedError):
                run(model, minibatch.inputs)
            part = tensor_moments(to_rows(received.pop()))
            total = part if total is None else total.merge(part)
            samples += minibatch.size
    assert total is not None
    _require_finite(name, total)
    return Observed(total, samples)


def _require_finite(name: str, moments: Moments) -> None:
    if not bool(torch.isfinite(moments.mean + moments.squares).all()):
        msg = (
            f"The BatchNorm layer {name!r} receives values that are not finite (NaN): "
            "the model or its inputs are broken before it."
        )
        raise InputError(msg)
