"""Which BatchNorm goes into which layers: each is tried until none is left that can.

It goes into the layer whose result it is given, or else into all layers that are given
its own result; BatchNorms that are gone lie on the way to either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn, cast

from torch import nn

from batchcorr.bridge._fold.trace import Call, Trace, rest_of
from batchcorr.bridge._norms import batch_norms, correction_of
from batchcorr.bridge._torch import torch
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn.modules.batchnorm import _BatchNorm

    Corrections = dict[str, LocationScale]
    Found = dict[Call, LocationScale]

__all__ = ["Plan"]


def _chain(first: LocationScale, then: LocationScale) -> LocationScale:
    """The one correction that does what two of one batch do, one after the other."""
    scale, shift = then.scale * first.scale, then.scale * first.shift + then.shift
    return LocationScale(scale, shift, first.coefficients, first.nuisance)


class KeptError(Exception):
    """Why a BatchNorm is kept."""


def _keep(reason: str) -> NoReturn:
    raise KeptError(reason)


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
                done[layer] = _chain(done[layer], change)
            else:
                done[layer] = _chain(change, done[layer])
        self.folded[name] = tuple(takers)

    def _takers(
        self, name: str, find: Callable[[Call, LocationScale], Found]
    ) -> Corrections:
        """What each layer would take up, the same in all its calls."""
        own = correction_of(cast("_BatchNorm", self.model.get_submodule(name)))
        found: Found = {}
        for call in self.trace.calls[name]:
            found |= find(call, own)
        takers: Corrections = {}
        for taker, change in found.items():
            self._require_own(taker.layer)
            calls = self.trace.calls[taker.layer]
            if not found.keys() >= {*calls}:
                _keep(f"{taker.layer!r} is called {len(calls)} times, not each time so")
            if not torch.equal(
                takers.setdefault(taker.layer, change).scale, change.scale
            ):
                _keep(f"the calls of {taker.layer!r} would need different weights")
        return takers

    def _producer(self, call: Call, change: LocationScale) -> Found:
        """The layer whose result a call is given."""
        mark = call.given
        if isinstance(mark, str):
            _keep(mark)
        others = [user for user in mark.call.users if user is not call]
        if others:
            _keep(f"the result of {mark.call} is also used by {others[0]}")
        if mark.axis != call.axis:
            _keep(f"{mark.call} has its channels along another axis")
        if not torch.equal(mark.channels, torch.arange(change.scale.shape[1])):
            _keep(f"the channels of {mark.call} do not come one by one")
        if mark.maxima and bool((change.scale < 0).any()):
            _keep(f"{mark.maxima} takes maxima, and some scales are negative")
        if self._passes(mark.call):
            return self._producer(mark.call, change)
        return {mark.call: change}

    def _users(self, call: Call, change: LocationScale) -> Found:
        """The layers that are given the result of a call."""
        found: Found = {}
        for user in call.users or ["nothing"]:
            if isinstance(user, str):
                _keep(f"its result goes into {user}")
            mark = user.given
            assert not isinstance(mark, str)
            if mark.axis != user.axis:
                _keep(f"{user} has its channels along another axis")
            if mark.maxima and bool((change.scale < 0).any()):
                _keep(f"{mark.maxima} takes maxima, and some scales are negative")
            if user.border:
                _keep(user.border)
            moved = change.select(mark.channels)
            found |= self._users(user, moved) if self._passes(user) else {user: moved}
        return found

    # -- layers ----------------------------------------------------------------------------

    def _passes(self, call: Call) -> bool:
        """Whether a call is that of a BatchNorm that is gone; one that stays is in the way."""
        if call.is_norm and (call.layer not in self.folded or self._acts(call.layer)):
            _keep(f"{call} is no step that a correction of channels could pass")
        return call.is_norm

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
            if id(tensor) in self.trace.used:
                _keep(
                    f"the {key} of {name!r} is also used by {self.trace.used[id(tensor)]}"
                )
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
