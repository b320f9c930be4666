"""Set the statistics of BatchNorm layers one after the other, each on corrected inputs.

What a layer receives depends on the layers before it. A single minibatch is corrected in
one forward pass: each layer gets its statistics when it is reached. Of several minibatches
the layer needs all, so that they are run once per layer, as far as that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._rows import channel_moments
from batchcorr.bridge._running import evaluating, has_hooks, hooked, input_of, run
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.models.moments import Moments

__all__ = ["Estimator", "Observed", "Statistics", "call_order", "correct", "put"]

Statistics: TypeAlias = "dict[str, tuple[Tensor, Tensor]]"
"""Running mean and variance of layers, by name."""


class Observed(NamedTuple):
    """What a layer received: moments of its rows, and of how many samples."""

    moments: Moments
    samples: int


Estimator: TypeAlias = "Callable[[str, _BatchNorm, Observed], tuple[Tensor, Tensor]]"
"""Gives mean and variance of a layer from what it received."""


class _ReachedError(BaseException):
    """The layer that was asked for has been reached: the rest need not be run.

    Not an `Exception`, which a model might catch.
    """


def put(norms: Mapping[str, _BatchNorm], values: Statistics) -> None:
    """Set the statistics of layers; refuse those that do not fit into its numbers."""
    for name, new in values.items():
        norm = norms[name]
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
            with torch.no_grad():
                buffer.copy_(rounded)


def correct(
    model: nn.Module,
    loader: Iterable[Any],
    norms: Mapping[str, _BatchNorm],
    estimate: Estimator,
) -> tuple[Statistics, int]:
    """Estimate and set the statistics of every layer; the next sees them corrected.

    Returns the statistics by layer, in the order of their calls, and how many samples
    there are.
    """
    if isinstance(loader, Iterator):
        msg = (
            "The loader is an iterator, which one run uses up, and there may be one run "
            "for each layer: give a DataLoader, or list(loader)."
        )
        raise InputError(msg)
    batches = read_batches(loader)
    only, another = next(batches), next(batches, None)
    found: Statistics = {}

    def set_from(name: str, moments: Moments, samples: int) -> None:
        if not bool(torch.isfinite(moments.mean + moments.squares).all()):
            msg = (
                f"The BatchNorm layer {name!r} receives values that are not finite "
                "(NaN): the model or its inputs are broken before it."
            )
            raise InputError(msg)
        if name in found:
            raise InputError(_repeated(name))
        statistics_of(norms[name])  # refuses a layer that keeps none
        found[name] = estimate(name, norms[name], Observed(moments, samples))
        put(norms, {name: found[name]})

    if another is None:
        _in_one_pass(model, only.inputs, norms, only.size, set_from)
        return found, only.size
    order, samples = call_order(model, loader, norms)
    for name in order:
        set_from(name, _received(model, loader, norms[name]), samples)
    return found, samples


def _in_one_pass(
    model: nn.Module,
    inputs: Any,
    norms: Mapping[str, _BatchNorm],
    samples: int,
    set_from: Callable[[str, Moments, int], None],
) -> None:
    """Give each layer its statistics when it is reached."""
    names = {norm: name for name, norm in norms.items()}
    failed: list[Exception] = []  # raised at the end: a model might catch it
    called: list[str] = []

    def reach(norm: Any, args: Any, kwargs: Any) -> None:
        called.append(names[norm])
        try:
            moments = channel_moments(input_of(args, kwargs))
            if not failed:
                set_from(names[norm], moments, samples)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    with hooked(norms.values(), before=reach), evaluating(model):
        run(model, inputs)
    if failed:
        raise failed[0]
    _require_called(called)


def call_order(
    model: nn.Module, loader: Iterable[Any], norms: Mapping[str, _BatchNorm]
) -> tuple[list[str], int]:
    """The layers in the order in which a run calls them, and the samples of a loader."""
    names = {norm: name for name, norm in norms.items()}
    calls: list[str] = []
    first: list[str] | None = None
    samples = 0

    def note(norm: Any, _args: Any, _kwargs: Any) -> None:
        calls.append(names[norm])

    with hooked(norms.values(), before=note), evaluating(model):
        for number, minibatch in enumerate(read_batches(loader), start=1):
            calls.clear()
            run(model, minibatch.inputs)
            first = list(calls) if first is None else first
            _require_same_calls(first, calls, number)
            samples += minibatch.size
    _require_called(calls)
    for name in calls:
        statistics_of(norms[name])  # refuses a layer that keeps none
        if calls.count(name) > 1:
            raise InputError(_repeated(name))
    return calls, samples


def _received(model: nn.Module, loader: Iterable[Any], norm: _BatchNorm) -> Moments:
    """Run the loader, as far as one layer, and pool what it receives.

    Where somebody watches the model by hooks, runs are completed, so that for every
    call that begins one ends.
    """
    received: list[Moments] = []
    whole = has_hooks(model)

    def stop(_norm: nn.Module, args: Any, kwargs: Any) -> None:
        received.append(channel_moments(input_of(args, kwargs)))
        if not whole:
            raise _ReachedError

    with hooked([norm], before=stop), evaluating(model):
        for minibatch in read_batches(loader):
            with suppress(_ReachedError):
                run(model, minibatch.inputs)
    total = received[0]
    for part in received[1:]:
        total = total.merge(part)
    return total


# -- what is refused ---------------------------------------------------------------------


def _require_called(calls: list[str]) -> None:
    if not calls:
        msg = "The model has BatchNorm layers, but a run does not call any."
        raise InputError(msg)


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
