"""Where a correction can be taken up: before or after which layers, along which axis.

Behind a layer a correction along its output channels always can. In front of one it can
along the input channels, unless the layer pads with zeros, which are not corrected; a
transposed convolution sees a different number of inputs at each place and takes none but
where it has one tap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._fold.flow import NORMS
from batchcorr.bridge._fold.stand_ins import StandIn
from batchcorr.bridge._fold.steps import arguments, describe, kind, shape_of
from batchcorr.bridge._fold.weights import same

if TYPE_CHECKING:
    from torch.fx import Node

    from batchcorr.bridge._fold.flow import Flow
    from batchcorr.bridge._fold.rules import Along
    from batchcorr.models.location_scale import LocationScale

__all__ = ["Takers", "why_not_after", "why_not_before"]


class Takers:
    """The layers that would take up a correction, and what each of their calls wants."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._wanted: dict[str, dict[Node, LocationScale]] = {}

    def add(self, call: Node, correction: LocationScale) -> None:
        """Note that one call of a layer is to take up a correction."""
        self._wanted.setdefault(self._flow.calls[call], {})[call] = correction

    def agreed(self, side: str) -> dict[str, LocationScale] | str:
        """Return the correction of each layer, or why its calls do not agree."""
        for path, wanted in self._wanted.items():
            if isinstance(self._flow.model.get_submodule(path), StandIn):
                return f"{path!r} makes its correction itself and takes up no other"
            count = len(self._flow.calls_of(path))
            if len(wanted) < count:
                return (
                    f"{path!r} is called {count} times, and the correction stands "
                    f"{side} {len(wanted)} of the calls"
                )
            first, *others = wanted.values()
            if not all(same(first, other) for other in others):
                return f"the calls of {path!r} would need different weights"
        return {
            path: next(iter(calls.values())) for path, calls in self._wanted.items()
        }


def why_not_after(call: Node, change: Along) -> str:
    """Return why a layer cannot take up a correction of its result, or ""."""
    if change.axis != _channel_axis(call):
        return f"{describe(call)} has its channels along another axis"
    return ""


def why_not_before(call: Node, change: Along) -> str:
    """Return why a layer cannot take up a correction of its input, or ""."""
    if change.axis != _channel_axis(call):
        return f"{describe(call)} has its channels along another axis"
    given = arguments(call)
    if kind(call).startswith("conv_transpose"):
        if _is_one_tap(given):
            return ""
        return f"{describe(call)} would need a bias for each position"
    if kind(call).startswith("conv") and _pads(call, given["padding"]):
        return f"{describe(call)} pads with zeros, which are not corrected"
    return ""


def _channel_axis(call: Node) -> int:
    """Return the channel axis of a layer's input and result, counted from the front."""
    ndim = len(shape_of(call))
    if kind(call) in NORMS:
        return 1
    if kind(call) == "linear":
        return ndim - 1
    weight: Any = arguments(call)["weight"]
    return ndim - len(shape_of(weight)) + 1


def _pads(call: Node, padding: Any) -> bool:
    """Whether a convolution sees zeros beyond the border of its input."""
    if padding == "same":
        weight: Any = arguments(call)["weight"]
        return any(size > 1 for size in shape_of(weight)[2:])
    return padding != "valid" and any(padding)


def _is_one_tap(given: dict[str, Any]) -> bool:
    """Whether every output of a transposed convolution sees exactly one input."""
    kernel = shape_of(given["weight"])[2:]
    return (
        all(size == 1 for size in (*kernel, *given["stride"]))
        and not any(given["padding"])
        and not any(given["output_padding"])
    )
