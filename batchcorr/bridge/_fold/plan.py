r"""Which BatchNorm goes into which layers: each is tried until none is left that can.

It goes into the layer whose result it is given, or else into all layers that are given
its own result; BatchNorms that are gone lie on the way to either. A layer y = W x + c
takes up a correction (r, s) behind it, or before it, as

    W' = r ∘ W,   c' = r ∘ c + s,         W' = W ∘ r,   c' = c + Σ W s

with r along the output channels of W, or its input channels, and the sum over input
channels and positions of the kernel. All of it in float64, rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, cast

from torch import nn

from batchcorr.bridge._norms import batch_norms, correction_of, rest_of
from batchcorr.bridge._running import wide
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._fold.trace import Call, Mark, Trace
    from batchcorr.models.location_scale import LocationScale

    Corrections = dict[str, LocationScale]
    Changes = dict[Call, LocationScale]

__all__ = ["Plan"]


class KeptError(Exception):
    """Why a BatchNorm is kept."""


def _keep(reason: str) -> NoReturn:
    raise KeptError(reason)


def _require_same_channels(
    mark: Mark, axis: int, layer: Call, change: LocationScale
) -> None:
    """Refuse channels along another axis, and maxima that become minima."""
    if mark.axis != axis:
        _keep(f"{layer} has its channels along another axis")
    if mark.maxima and bool((change.scale < 0).any()):
        _keep(f"{mark.maxima} takes maxima, and some scales are negative")


@dataclass
class Plan:
    """What becomes of each layer, by the trace of one call.

    `folded` has the layers that take a BatchNorm up, `kept` why one stays, and `weights`
    what weight and bias of a layer become, in float64.
    """

    model: nn.Module
    trace: Trace
    weights: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    folded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fold what can be, again and again: one that has gone may open the way."""
        waiting, before = list(batch_norms(self.model)), -1
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
            takers, behind_it = self._takers(name, self._producer), True
        except KeptError as behind:
            if self._acts(name):
                raise
            try:
                takers, behind_it = self._takers(name, self._users), False
            except KeptError as ahead:
                reason = f"before it: {behind}; after it: {ahead}"
                raise KeptError(reason) from ahead
        for taker, change in takers.items():
            layer = self.model.get_submodule(taker)
            old = self.weights.get(taker) or _weights_of(layer)
            self.weights[taker] = _taken_up(layer, *old, change, behind=behind_it)
        self.folded[name] = tuple(takers)

    def _takers(
        self, name: str, find: Callable[[Call, LocationScale], Changes]
    ) -> Corrections:
        """What each layer would take up, the same in all its calls."""
        own = correction_of(cast("_BatchNorm", self.model.get_submodule(name)))
        changes: Changes = {}
        for call in self.trace.calls[name]:
            changes |= find(call, own)
        takers: Corrections = {}
        for taker, change in changes.items():
            self._require_own(taker.layer)
            calls = self.trace.calls[taker.layer]
            if not changes.keys() >= {*calls}:
                _keep(f"{taker.layer!r} is called {len(calls)} times, not each time so")
            if not torch.equal(
                takers.setdefault(taker.layer, change).scale, change.scale
            ):
                _keep(f"the calls of {taker.layer!r} would need different weights")
        return takers

    def _producer(self, call: Call, change: LocationScale) -> Changes:
        """The layer whose result a call is given."""
        mark = call.given
        if isinstance(mark, str):
            _keep(mark)
        others = [user for user in mark.call.users if user is not call]
        if others:
            _keep(f"the result of {mark.call} is also used by {others[0]}")
        _require_same_channels(mark, call.axis, mark.call, change)
        if not torch.equal(
            mark.channels, torch.arange(change.scale.shape[1], device="cpu")
        ):
            _keep(f"the channels of {mark.call} do not come one by one")
        if self._passes(mark.call):
            return self._producer(mark.call, change)
        return {mark.call: change}

    def _users(self, call: Call, change: LocationScale) -> Changes:
        """The layers that are given the result of a call."""
        changes: Changes = {}
        for user in call.users or ["nothing"]:
            if isinstance(user, str):
                _keep(f"its result goes into {user}")
            mark = user.given
            assert not isinstance(mark, str)
            _require_same_channels(mark, user.axis, user, change)
            if user.border:
                _keep(user.border)
            moved = change.select(mark.channels)
            changes |= self._users(user, moved) if self._passes(user) else {user: moved}
        return changes

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
        """Refuse a layer that cannot be changed, or whose weights others use, too.

        Weights tied to another layer's are no matter: this layer gets new ones.
        """
        for call in self.trace.calls[name]:
            if call.problem:
                _keep(f"{name!r} cannot be changed: {call.problem}")
        layer = self.model.get_submodule(name)
        for key, tensor in {**layer._parameters, **layer._buffers}.items():
            if id(tensor) in self.trace.used:
                _keep(
                    f"the {key} of {name!r} is also used by {self.trace.used[id(tensor)]}"
                )

    def rewrite(self) -> None:
        """Change the layers of the model as planned."""
        layer: Any
        for name, new in self.weights.items():
            layer = self.model.get_submodule(name)
            for key, value in zip(("weight", "bias"), new, strict=True):
                old = getattr(layer, key, None)
                old = layer.weight if old is None else old
                like_old = nn.Parameter(value.to(old), requires_grad=old.requires_grad)
                setattr(layer, key, like_old)
        gone = {self.model.get_submodule(name) for name in self.folded}
        for parent in list(self.model.modules()):
            for key, child in parent._modules.items():
                if child in gone:
                    parent._modules[key] = rest_of(child).eval()


def _weights_of(layer: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer in float64, zeros where it has none."""
    weight, bias = wide(layer.weight.detach()), layer._parameters.get("bias")
    if bias is None:
        return weight, weight.new_zeros(
            getattr(layer, "out_channels", 0) or layer.out_features
        )
    return weight, wide(bias.detach())


def _taken_up(
    layer: Any, weight: Tensor, bias: Tensor, change: LocationScale, *, behind: bool
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer that has taken up a correction behind or before it.

    The weight is (out, in / groups, …), of a transposed convolution (in, out / groups, …).
    """
    groups = getattr(layer, "groups", 1)
    transposed = getattr(layer, "transposed", False)
    first, second = weight.shape[:2]
    blocks = weight.reshape(groups, first // groups, second, -1)
    if transposed:
        blocks = blocks.transpose(1, 2)
    _, n_out, n_in, _ = blocks.shape  # groups, outputs, inputs, positions
    if behind:
        blocks = blocks * change.scale.reshape(groups, n_out, 1, 1)
        bias = change.scale[0] * bias + change.shift[0]
    else:
        shift = change.shift.reshape(groups, 1, n_in, 1)
        bias = bias + (blocks * shift).sum((2, 3)).reshape(-1)
        blocks = blocks * change.scale.reshape(groups, 1, n_in, 1)
    if transposed:
        blocks = blocks.transpose(1, 2)
    return blocks.reshape(weight.shape), bias
