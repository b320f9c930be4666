"""Set the statistics of BatchNorm layers one after the other, each on corrected inputs.

What a layer receives depends on the layers before it. A single minibatch is corrected in
one forward pass: each layer gets its statistics when it is reached. Of several minibatches
the layer needs all, so that they are run once per layer, as far as that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._channels import channel_moments
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._running import evaluating, has_hooks, hooked, input_of, run
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError, some
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "Estimator",
    "ReachedError",
    "Statistics",
    "correct",
    "not_finite",
    "put",
    "received",
    "restore",
    "snapshot",
    "watch",
]

Statistics: TypeAlias = "dict[str, tuple[Tensor, Tensor]]"
"""Running mean and variance of layers, by name."""

Estimator: TypeAlias = (
    "Callable[[str, _BatchNorm, Moments, int], tuple[Tensor, Tensor]]"
)
"""A layer's mean and variance from the moments that came in, and how many samples."""


def snapshot(norms: Mapping[str, _BatchNorm]) -> Statistics:
    """The statistics that layers have, to the bit; those without any are left out."""
    return {
        name: (norm.running_mean.clone(), norm.running_var.clone())
        for name, norm in norms.items()
        if norm.running_mean is not None and norm.running_var is not None
    }


def restore(norms: Mapping[str, _BatchNorm], values: Statistics) -> None:
    """Set the statistics of layers, whatever they are."""
    with torch.no_grad():
        for name, (mean, variance) in values.items():
            cast("Tensor", norms[name].running_mean).copy_(mean)
            cast("Tensor", norms[name].running_var).copy_(variance)


def put(norms: Mapping[str, _BatchNorm], values: Statistics) -> None:
    """Set the statistics of layers; refuse those that do not fit into its numbers."""
    for name, new in values.items():
        kind = cast("Tensor", norms[name].running_mean).dtype
        if not all(bool(torch.isfinite(value.to(kind)).all()) for value in new):
            most = max(float(value.abs().max()) for value in new)
            msg = (
                f"The BatchNorm layer {name!r} would get statistics up to {most:.3g}, "
                f"which its {kind} does not hold: recalibrate model.float(), or keep the "
                "BatchNorm layers in float32."
            )
            raise InputError(msg)
        restore(norms, {name: new})


def correct(
    model: nn.Module,
    loader: Iterable[Any],
    norms: Mapping[str, _BatchNorm],
    estimate: Estimator,
) -> tuple[Statistics, int]:
    """Estimate and set every layer's statistics: those, in order of calls, and samples."""
    if isinstance(loader, Iterator):
        msg = (
            "The loader is an iterator, which can be read only once, but there may be "
            "one run for each layer: give a DataLoader, or list(loader)."
        )
        raise InputError(msg)
    new: Statistics = {}

    def set_from(name: str, moments: Moments, samples: int) -> None:
        if not bool(torch.isfinite(moments.mean + moments.squares).all()):
            raise InputError(not_finite(name))
        new[name] = estimate(name, norms[name], moments, samples)
        put(norms, {name: new[name]})

    batches = read_batches(loader)
    only, another = next(batches), next(batches, None)
    if another is None:
        watch(
            *(model, [only.inputs], norms),
            lambda name, x: set_from(name, channel_moments(x), only.size),
        )
        return new, only.size
    order, samples = watch(model, loader, norms, lambda *_: None)
    for name in order:
        set_from(name, received(model, loader, norms, name), samples)
    return new, samples


def received(
    model: nn.Module, loader: Iterable[Any], norms: Mapping[str, _BatchNorm], name: str
) -> Moments:
    """The moments of what a layer receives."""
    parts: list[Moments] = []

    def note(reached: str, x: Tensor) -> None:
        if reached == name:
            parts.append(channel_moments(x))

    watch(model, loader, norms, note, until=name)
    return reduce(Moments.merge, parts)


class ReachedError(BaseException):
    """The rest of a run is not needed; no `Exception`, which a model might catch."""


def watch(
    model: nn.Module,
    loader: Iterable[Any],
    norms: Mapping[str, _BatchNorm],
    note: Callable[[str, Tensor], None],
    until: str | None = None,
) -> tuple[list[str], int]:
    """Note what each layer receives when it is reached: their order, and the samples.

    Runs go no further than a layer they are wanted `until`; where somebody watches the
    model by hooks they do, so that every call ends.
    """
    names = {norm: name for name, norm in norms.items()}
    calls: list[str] = []
    first: list[str] = []
    failed: list[Exception] = []  # raised after the run: a model might catch it
    samples, whole = 0, has_hooks(model)

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
        if name == until and not whole:
            raise ReachedError

    with hooked(norms.values(), before=reach), evaluating(model):
        for number, minibatch in enumerate(read_batches(loader), start=1):
            calls.clear()
            with suppress(ReachedError):
                run(model, minibatch.inputs)
            if failed:
                raise failed[0]
            first = first if number > 1 else list(calls)
            samples += minibatch.size
            if calls != first:
                others = map(repr, sorted({*first} ^ {*calls}))
                msg = (
                    f"Batch {number} of the loader calls other BatchNorm layers than the "
                    f"first one, or in another order ({some(others)}): a layer that is "
                    "called in some batches only has not all samples of the domain. Give "
                    "minibatches that all pass the same layers."
                )
                raise InputError(msg)
    if not first:
        msg = "The model has BatchNorm layers, but a run does not call any."
        raise InputError(msg)
    return first, samples


def not_finite(name: str) -> str:
    """What to say of a layer that receives NaN."""
    return (
        f"The BatchNorm layer {name!r} receives values that are not finite (NaN): the "
        "model or its inputs are broken before it."
    )
