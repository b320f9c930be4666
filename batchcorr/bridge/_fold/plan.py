"""Which BatchNorm goes into which layers: each is tried until none is left that can.

Against the stream it goes into the layer before it, with the stream into all layers that
use its result. On the way it may pass steps that move values about (`moves`) and
BatchNorms that are gone already; so, when one has gone, the rest is tried again. A layer
may take up several, before and behind itself: its corrections are chained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from batchcorr.bridge._fold.moves import Along, passed
from batchcorr.bridge._fold.trace import LAYERS, rest_of
from batchcorr.bridge._fold.weights import chain
from batchcorr.bridge._norms import batch_norms, correction_of
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchcorr.bridge._fold.trace import Step, Trace, Value
    from batchcorr.models.location_scale import LocationScale

    Corrections = dict[str, LocationScale]

__all__ = ["Plan", "plan_all"]

UNTRACKED = (
    "it keeps no running statistics (track_running_stats=False): it normalizes each "
    "batch by itself, in evaluation too"
)
DEPENDS = (
    "where its result goes depends on the number of samples, so that what is exact for "
    "one number need not be for another: fold a part that takes any number"
)


@dataclass
class Plan:
    """What is to become of each layer.

    Attributes
    ----------
    before, after
        Correction that a layer takes up in front of, and behind itself.
    folded
        BatchNorms that go: the layers that take them up.
    kept
        BatchNorms that stay: the reason.
    """

    before: Corrections = field(default_factory=dict)
    after: Corrections = field(default_factory=dict)
    folded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


def plan_all(model: nn.Module, traces: Sequence[Trace]) -> Plan:
    """The plan on which the traces of calls with different numbers of samples agree."""
    norms = batch_norms(model, frozen=True)
    corrections = {
        name: correction_of(norm)
        for name, norm in norms.items()
        if norm.running_mean is not None
    }
    untracked = dict.fromkeys(norms.keys() - corrections.keys(), UNTRACKED)
    disputed: dict[str, str] = {}
    while True:
        allowed = {k: v for k, v in corrections.items() if k not in disputed}
        first, *others = [_Planner(model, trace).plan(allowed) for trace in traces]
        new = {
            name: DEPENDS
            for name in allowed
            if any(plan.folded.get(name) != first.folded.get(name) for plan in others)
        }
        if not new:
            first.kept.update(disputed | untracked)
            return first
        disputed.update(new)


class _Planner:
    """Plans by one trace."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.model, self.trace = model, trace
        self.done = Plan()
        self._names = _names_by_memory(model)

    def plan(self, corrections: Corrections) -> Plan:
        """Fold what can be, again and again: one that has gone may open the way."""
        waiting = dict(corrections)
        for _ in corrections:
            before = len(waiting)
            for name in list(waiting):
                reason = self._try(name, waiting[name])
                self.done.kept[name] = reason
                if not reason:
                    del self.done.kept[name], waiting[name]
            if len(waiting) == before:
                break
        return self.done

    def _try(self, name: str, correction: LocationScale) -> str:
        """Fold a BatchNorm, or return why it cannot be."""
        calls = self.trace.by_layer.get(name, [])
        if not calls:
            return "it is not called for inputs like the examples"
        reason = self._not_alone(name, calls)
        if reason:
            return reason
        back = self._agreed(name, correction, back=True)
        if not isinstance(back, str):
            for taker, change in back.items():
                old = self.done.after.get(taker)
                self.done.after[taker] = change if old is None else chain(old, change)
            self.done.folded[name] = tuple(back)
            return ""
        if type(rest_of(self.model.get_submodule(name))) is not nn.Identity:
            return back
        ahead = self._agreed(name, correction, back=False)
        if isinstance(ahead, str):
            return f"before it: {back}; after it: {ahead}"
        for taker, change in ahead.items():
            old = self.done.before.get(taker)
            self.done.before[taker] = change if old is None else chain(change, old)
        self.done.folded[name] = tuple(ahead)
        return ""

    # -- the way to a layer ------------------------------------------------------------

    def _agreed(
        self, name: str, correction: LocationScale, *, back: bool
    ) -> Corrections | str:
        """What each layer would take up, the same in all its calls; or why none does."""
        wanted: dict[str, dict[Step, LocationScale]] = {}
        for call in self.trace.by_layer[name]:
            if back:
                steps = self._source(call, Along(correction, 1))
            else:
                steps = self._users(call, Along(correction, 1))
            if isinstance(steps, str):
                return steps
            for step, change in steps:
                wanted.setdefault(step.layer or "", {})[step] = change
        for layer, by_call in wanted.items():
            count = len(self.trace.by_layer[layer])
            if len(by_call) < count:
                side = "behind" if back else "in front of"
                return (
                    f"{layer!r} is called {count} times, and the correction stands "
                    f"{side} {len(by_call)} of the calls"
                )
            first, *others = by_call.values()
            for other in others:
                if not torch.equal(first.scale, other.scale):
                    return f"the calls of {layer!r} would need different weights"
        return {
            layer: next(iter(by_call.values())) for layer, by_call in wanted.items()
        }

    def _source(
        self, asker: Step, change: Along
    ) -> list[tuple[Step, LocationScale]] | str:
        """The layer whose result a step corrects, against the stream."""
        value = asker.inputs[0]
        step = value.source
        others = [user for user in value.users if user is not asker]
        if step is None:
            return "it corrects an input of the model, or a constant"
        if others or value.is_output:
            user = others[0] if others else "the model's output"
            return f"the result of {step} is also used by {user}"
        if step.layer in self.done.folded:
            if type(rest_of(self.model.get_submodule(step.layer))) is not nn.Identity:
                return f"there is an activation in {step.layer!r}"
            return self._source(step, change)
        if self._is_taker(step):
            reason = self._why_not(step, change.axis, len(value.shape))
            return reason or [(step, change.correction)]
        before = passed(step, change, back=True)
        return before if isinstance(before, str) else self._source(step, before)

    def _users(
        self, call: Step, change: Along
    ) -> list[tuple[Step, LocationScale]] | str:
        """The layers that use what a step corrects, with the stream."""
        found: list[tuple[Step, LocationScale]] = []
        waiting: list[tuple[Value, Along]] = [(value, change) for value in call.outputs]
        while waiting:
            value, change = waiting.pop()
            if value.is_output:
                return "its result is part of the model's output"
            for step in value.users:
                if step.layer in self.done.folded:
                    waiting += [(out, change) for out in step.outputs]
                elif self._is_taker(step) and step.inputs == [value]:
                    reason = self._why_not(step, change.axis, len(value.shape))
                    reason = reason or _pads(step)
                    if reason:
                        return reason
                    found.append((step, change.correction))
                else:
                    after = passed(step, change, back=False)
                    if isinstance(after, str):
                        return after
                    waiting.append((step.outputs[0], after))
        return found or "nothing uses its result"

    # -- who may take a correction up --------------------------------------------------

    def _is_taker(self, step: Step) -> bool:
        return step.name in LAYERS and step.layer is not None

    def _why_not(self, step: Step, axis: int, ndim: int) -> str:
        """Why a layer cannot be changed, or has its channels elsewhere; or ""."""
        layer = step.layer or ""
        weight = self.model.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        place = ndim - 1 if step.name == "linear" else ndim - weight.ndim + 1
        if axis != place:
            return f"{step} has its channels along another axis"
        return self._not_alone(layer, self.trace.by_layer[layer])

    def _not_alone(self, name: str, calls: list[Step]) -> str:
        """Why a layer cannot be changed, or why not only its own calls would; or ""."""
        for call in calls:
            if call.problem:
                return f"{name!r} cannot be changed: {call.problem}"
        layer = self.model.get_submodule(name)
        for key, tensor in {**layer._parameters, **layer._buffers}.items():
            if tensor is None:
                continue
            own = f"{name}.{key}" if name else key
            value = self.trace.parameters.get(own)
            if value is not None and value.users:
                return f"the {key} of {name!r} is also used by {value.users[0]}"
            ties = [x for x in self._names.get(tensor.data_ptr(), []) if x != own]
            if ties:
                return f"the {key} of {name!r} is tied to {ties[0]!r}"
        return ""


def _names_by_memory(model: nn.Module) -> dict[int, list[str]]:
    """All names of parameters and buffers, by where their values lie."""
    names: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():
        own = [*module._parameters.items(), *module._buffers.items()]
        for key, value in own:
            if value is not None and value.numel():
                name = f"{prefix}.{key}" if prefix else key
                names.setdefault(value.data_ptr(), []).append(name)
    return names


def _pads(step: Step) -> str:
    """Why a layer cannot take up a correction of its input, or ""."""
    if step.name == "linear":
        return ""
    options: tuple[str, ...] = ("stride", "padding", "output_padding")
    if not step.name.startswith("conv_transpose"):
        options = ("stride", "padding")
    given = dict(zip(options, step.args[3:], strict=False)) | step.kwargs
    kernel = step.args[1].shape[2:] if len(step.args) > 1 else given["weight"].shape[2:]
    if step.name.startswith("conv_transpose"):
        stride = given.get("stride", 1)
        one = kernel.count(1) == len(kernel) and not any(_each(given.get("padding", 0)))
        one = one and all(size == 1 for size in _each(stride))
        if one and not any(_each(given.get("output_padding", 0))):
            return ""
        return f"{step} would need a bias for each position"
    padding = given.get("padding", 0)
    if padding == "same":
        padding = [size > 1 for size in kernel]
    if padding != "valid" and any(_each(padding)):
        return f"{step} pads with zeros, which are not corrected"
    return ""


def _each(option: object) -> Sequence[object]:
    """An option of a convolution for each axis."""
    return option if isinstance(option, tuple | list) else [option]
