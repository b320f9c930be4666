"""Set the statistics of BatchNorm layers one after the other, each on corrected inputs.

What a layer receives depends on the layers before it. A single minibatch is corrected in
one forward pass: each layer gets its statistics when it is reached. Of several minibatches
the layer needs all, so that they are run once per layer, as far as that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._channels import channel_moments
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._running import evaluating, has_hooks, hooked, input_of, run
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.models.moments import Moments

__all__ = [
    "Estimator",
    "Statistics",
    "correct",
    "not_finite",
    "put",
    "received",
    "watch",
]

Statistics: TypeAlias = "dict[str, tuple[Tensor, Tensor]]"
"""Running mean and variance of layers, by name."""

Estimator: TypeAlias = (
    "Callable[[str, _BatchNorm, Moments, int], tuple[Tensor, Tensor]]"
)
"""Gives a layer's mean and variance from the moments of what came in, and of how many
samples."""


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
    found: Statistics = {}

    def set_from(name: str, moments: Moments, samples: int) -> None:
        if not bool(torch.isfinite(moments.mean + moments.squares).all()):
            raise InputError(not_finite(name))
        found[name] = estimate(name, norms[name], moments, samples)
        put(norms, {name: found[name]})

    batches = read_batches(loader)
    only, another = next(batches), next(batches, None)
    if another is None:
        watch(
            *(model, [only.inputs], norms),
            lambda name, x: set_from(name, channel_moments(x), only.size),
        )
        return found, only.size
    order, samples = watch(model, loader, norms, lambda _name, _x: None)
    for name in order:
        set_from(name, received(model, loader, norms[name]), samples)
    return found, samples


def put(norms: Mapping[str, _BatchNorm], values: Statistics) -> None:
    """Set the statistics of layers; refuse those that do not fit into its numbers."""
    for name, new in values.items():
        buffers = norms[name].running_mean, norms[name].running_var
        for buffer, value in zip(buffers, new, strict=True):
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


def watch(
    model: nn.Module,
    loader: Iterable[Any],
    norms: Mapping[str, _BatchNorm],
    note: Callable[[str, Tensor], None],
) -> tuple[list[str], int]:
    """Run a loader, and note what each layer receives when it is reached.

    Returns the layers in the order of their calls, each once and the same in every
    minibatch, and how many samples there are.
    """
    names = {norm: name for name, norm in norms.items()}
    calls: list[str] = []
    first: list[str] = []
    failed: list[Exception] = []  # raised after the run: a model might catch it
    samples = 0

    def reach(norm: Any, args: Any, kwargs: Any) -> None:
        name = names[norm]
        try:
            if name in calls:
                msg = (
                    f"The BatchNorm layer {name!r} is called 2 times or more in one run: "
                    "its places have different inputs but share their statistics. Give "
                    "each place a layer of its own."
                )
                raise InputError(msg)
            calls.append(name)
            statistics_of(norm)  # refuses a layer that keeps none
            if not failed:
                note(name, input_of(args, kwargs))
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    with hooked(norms.values(), before=reach), evaluating(model):
        for number, minibatch in enumerate(read_batches(loader), start=1):
            calls.clear()
            run(model, minibatch.inputs)
            if failed:
                raise failed[0]
            first = first if number > 1 else list(calls)
            samples += minibatch.size
            if calls != first:
                others = sorted(set(first) ^ set(calls))
                msg = (
                    f"Batch {number} of the loader calls other BatchNorm layers than the "
                    f"first one, or in another order ({some(map(repr, others))}): the "
                    "samples of a layer that is called in some batches only are not "
                    "those of the domain. Give minibatches that all pass the same layers."
                )
                raise InputError(msg)
    if not first:
        msg = "The model has BatchNorm layers, but a run does not call any."
        raise InputError(msg)
    return first, samples


class _ReachedError(BaseException):
    """The layer that was asked for has been reached: the rest need not be run.

    Not an `Exception`, which a model might catch.
    """


def received(model: nn.Module, loader: Iterable[Any], norm: _BatchNorm) -> Moments:
    """The moments of what a layer receives; runs go no further than that layer.

    Where somebody watches the model by hooks, runs are completed, so that for every
    call that begins one ends.
    """
    parts: list[Moments] = []
    whole = has_hooks(model)

    def stop(_norm: nn.Module, args: Any, kwargs: Any) -> None:
        parts.append(channel_moments(input_of(args, kwargs)))
        if not whole:
            raise _ReachedError

    with hooked([norm], before=stop), evaluating(model):
        for minibatch in read_batches(loader):
            with suppress(_ReachedError):
                run(model, minibatch.inputs)
    return reduce(lambda one, other: one.merge(other), parts)


def not_finite(name: str) -> str:
    """What to say of a layer that receives NaN."""
    return (
        f"The BatchNorm layer {name!r} receives values that are not finite (NaN): the "
        "model or its inputs are broken before it."
    )
