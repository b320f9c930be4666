r"""Which BatchNorm goes into which layers: each is tried until none is left that can.

Against the flow it goes into the layer before it, with the flow into all layers that use
its result. On the way it may pass BatchNorms that are gone, and steps f that move or
average values: those with, for all x,

    f(r ∘ x + s) = r' ∘ f(x) + s'

with r', s' the same numbers, perhaps along another axis, repeated or picked out. Whether
and how is found by trying: every value is given the number of its channel as a label,
and the labels go through the step. If along one axis of the result each place has one
label, and it is that of a channel, this is the axis of the channels: reshapes move
labels about, an average of equal labels is the label, and an average in which there are
zeros from the border is none. Maxima keep labels too, and corrections with r ≥ 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from torch import nn

from batchcorr.bridge._batches import map_tensors
from batchcorr.bridge._fold.trace import LAYERS, Step, Trace, Value, rest_of
from batchcorr.bridge._norms import batch_norms, correction_of
from batchcorr.bridge._torch import torch
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

    Corrections = dict[str, LocationScale]

__all__ = ["Plan", "chain"]

MAXIMA = {f"{a}max_pool{k}d" for a in ("", "adaptive_") for k in (1, 2, 3)}
MOVES = (
    {"clone", "contiguous", "detach", "alpha_dropout", "feature_alpha_dropout"}
    | {"dropout", "dropout1d", "dropout2d", "dropout3d"}
    | {"__getitem__", "flatten", "ravel", "reshape", "reshape_as", "squeeze"}
    | {"unflatten", "unsqueeze", "view", "view_as", "permute", "transpose", "movedim"}
    | {f"{a}avg_pool{k}d" for a in ("", "adaptive_") for k in (1, 2, 3)}
    | {"mean"}
    | MAXIMA
)


def chain(first: LocationScale, then: LocationScale) -> LocationScale:
    """The one correction that does what two of one batch do, one after the other."""
    scale, shift = then.scale * first.scale, then.scale * first.shift + then.shift
    return LocationScale(scale, shift, first.coefficients, first.nuisance)


class KeptError(Exception):
    """Why a BatchNorm is kept."""


def _keep(reason: str) -> NoReturn:
    raise KeptError(reason)


class Along(NamedTuple):
    """A correction along one axis of a tensor, counted from the front."""

    correction: LocationScale
    axis: int


@dataclass
class Plan:
    """What becomes of each layer, by the trace of one call.

    `before` and `after` have the correction that a layer takes up in front of and behind
    itself, `folded` the layers that take a BatchNorm up, and `kept` why one stays.
    """

    model: nn.Module
    trace: Trace
    before: Corrections = field(default_factory=dict)
    after: Corrections = field(default_factory=dict)
    folded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fold what can be, again and again: one that has gone may open the way."""
        waiting, before = list(batch_norms(self.model, frozen=True)), -1
        while len(waiting) != before:
            before = len(waiting)
            for name in list(waiting):
                try:
                    self._fold(name)
                except KeptError as reason:
                    self.kept[name] = str(reason)
                else:
                    self.kept.pop(name, None)
                    waiting.remove(name)

    def _fold(self, name: str) -> None:
        """Fold a BatchNorm into the layer before it, or else into those after it."""
        if name not in self.trace.calls:
            _keep("it is not called for inputs like the examples")
        self._require_own(name)
        try:
            takers, done = self._takers(name, self._producer), self.after
        except KeptError as behind:
            if self._acts(name):
                raise
            try:
                takers, done = self._takers(name, self._users), self.before
            except KeptError as ahead:
                reason = f"before it: {behind}; after it: {ahead}"
                raise KeptError(reason) from ahead
        for layer, change in takers.items():
            if layer not in done:
                done[layer] = change
            elif done is self.after:
                done[layer] = chain(done[layer], change)
            else:
                done[layer] = chain(change, done[layer])
        self.folded[name] = tuple(takers)

    def _takers(self, name: str, find: Any) -> Corrections:
        """What each layer would take up, the same in all its calls."""
        own = correction_of(cast("_BatchNorm", self.model.get_submodule(name)))
        found = {
            step: change
            for call in self.trace.calls[name]
            for step, change in find(call, Along(own, 1))
        }
        takers: Corrections = {}
        for step, change in found.items():
            layer = step.layer or ""
            first = takers.setdefault(layer, change)
            calls = self.trace.calls[layer]
            if not found.keys() >= {*calls}:
                _keep(f"{layer!r} is called {len(calls)} times, and not each time so")
            if not torch.equal(first.scale, change.scale):
                _keep(f"the calls of {layer!r} would need different weights")
        return takers

    # -- the way to a layer ------------------------------------------------------------

    def _producer(self, asker: Step, change: Along) -> list[tuple[Step, LocationScale]]:
        """The layer whose result a step corrects, against the flow."""
        value = asker.inputs[0]
        step = value.source
        if step is None:
            _keep("it corrects an input of the model, or a constant")
        users = [str(user) for user in value.users if user is not asker]
        users += ["the model's output"] * value.is_output
        if users:
            _keep(f"the result of {step} is also used by {users[0]}")
        if self._takes(step, change, value):
            return [(step, change.correction)]
        return self._producer(step, self._passed(step, change, back=True))

    def _users(self, step: Step, change: Along) -> list[tuple[Step, LocationScale]]:
        """The layers that use what a step gives, with the flow."""
        value = step.outputs[0]
        if value.is_output:
            _keep("its result is part of the model's output")
        if not value.users:
            _keep("nothing uses its result")
        found: list[tuple[Step, LocationScale]] = []
        for user in value.users:
            if self._takes(user, change, value):
                _require_no_border(user)
                found.append((user, change.correction))
            else:
                found += self._users(user, self._passed(user, change, back=False))
        return found

    def _passed(self, step: Step, change: Along, *, back: bool) -> Along:
        """The correction beyond a step that it can pass, `back` from its result."""
        if step.layer in self.folded and not self._acts(step.layer):
            return change
        if step.name in LAYERS:
            _keep(
                f"the weight of {step} is computed each time it is called (weight norm, "
                "pruning …): make it a plain parameter to have it folded"
            )
        if step.name not in MOVES or len(step.inputs) != 1 or len(step.outputs) != 1:
            _keep(f"{step} is no step that a correction of channels could pass")
        if step.name in MAXIMA and bool((change.correction.scale < 0).any()):
            _keep(f"{step} takes maxima, and some scales are negative")
        for axis in range(len(step.inputs[0].shape)) if back else [change.axis]:
            place, index = _where(step, axis)
            if place is not None and not back:
                return Along(change.correction.select(index), place)
            every = torch.arange(change.correction.scale.shape[1])
            if place == change.axis and torch.equal(index, every):
                return Along(change.correction, axis)
        _keep(f"{step} leaves no axis of its own to the channels")

    # -- who may take a correction up --------------------------------------------------

    def _takes(self, step: Step, change: Along, value: Value) -> bool:
        """Whether a step is the call of a layer, which must be able to take it up."""
        if step.name not in LAYERS or step.layer is None:
            return False
        kernel = 0 if step.name == "linear" else int(step.name[-2])  # its dimensions
        if change.axis != len(value.shape) - 1 - kernel:
            _keep(f"{step} has its channels along another axis")
        self._require_own(step.layer)
        return True

    def _acts(self, name: str) -> bool:
        """Whether a BatchNorm module does something after it has normalized."""
        return type(rest_of(self.model.get_submodule(name))) is not nn.Identity

    def _require_own(self, name: str) -> None:
        """Refuse a layer that cannot be changed, or not without changing others."""
        for call in self.trace.calls[name]:
            if call.problem:
                _keep(f"{name!r} cannot be changed: {call.problem}")
        layer = self.model.get_submodule(name)
        for key, tensor in {**layer._parameters, **layer._buffers}.items():
            if tensor is None:
                continue
            users = self.trace.parameters[id(tensor)].users
            if users:
                _keep(f"the {key} of {name!r} is also used by {users[0]}")
            own = f"{name}.{key}".lstrip(".")
            ties = [other for other in self._ties[tensor.data_ptr()] if other != own]
            if ties:
                _keep(f"the {key} of {name!r} is tied to {ties[0]!r}")

    @cached_property
    def _ties(self) -> dict[int, list[str]]:
        """All names of parameters and buffers, by where their values lie."""
        names: dict[int, list[str]] = {}
        for prefix, module in self.model.named_modules():
            for key, tensor in {**module._parameters, **module._buffers}.items():
                if tensor is not None:
                    name = f"{prefix}.{key}".lstrip(".")
                    names.setdefault(tensor.data_ptr(), []).append(name)
        return names


def _tried(step: Step, fill: Any) -> Tensor:
    """What a step gives for other tensors in place of its own."""
    assert step.function is not None
    args, kwargs = map_tensors((step.args, step.kwargs), fill, Value)
    return cast("Tensor", step.function(*args, **kwargs))


def _where(step: Step, axis: int) -> tuple[int | None, Tensor]:
    """The axis that one of the input becomes, and which channel is at each place of it."""
    source = step.inputs[0]
    count, ndim = source.shape[axis], len(source.shape)
    labels = torch.arange(1.0, count + 1, dtype=torch.float64)
    labels = labels.reshape([-1 if k == axis else 1 for k in range(ndim)])
    labels = labels.expand(source.shape).contiguous()
    moved = _tried(step, lambda v: labels if v is source else torch.empty(v.shape))
    whole = moved.round()
    if torch.allclose(moved, whole, rtol=0, atol=1e-9) and whole.min() >= 1:
        for k in sorted(range(moved.ndim), key=lambda k: (k == 0, k)):
            rows = whole.movedim(k, 0).reshape(moved.shape[k], -1)
            if bool((rows == rows[:, :1]).all()):
                return k, rows[:, 0].long() - 1
    return None, labels


def _require_no_border(step: Step) -> None:
    """Refuse a convolution of which some results see less than the whole kernel."""
    if step.name == "linear":
        return

    def ones(value: Value) -> Tensor:  # and a bias of zeros
        shape = value.shape
        return torch.full(shape, float(len(shape) > 1), dtype=torch.float64)

    weight = ones(step.args[1] if len(step.args) > 1 else step.kwargs["weight"])
    seen = _tried(step, ones)
    if bool((seen != weight.numel() / seen.shape[1 - weight.ndim]).any()):
        transposed = step.name.startswith("conv_transpose")
        _keep(
            f"{step} would need a bias for each position"
            if transposed
            else f"{step} pads with zeros, which are not corrected"
        )
