r"""What a correction may pass on its way to weights that can take it up.

A step f lets a correction along an axis pass if, for all x,

    f(r ∘ x + s) = r' ∘ f(x) + s'

with r', s' the same values, perhaps along another axis or repeated. Averages do (pooling
without padding, interpolation, padding by the tensor's own values), maxima do if r ≥ 0,
multiples by a number k with s' = k s, and so does whatever only moves values about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchcorr.bridge._fold.flow import LAYERS, NORMS
from batchcorr.bridge._fold.moves import permuted, reduced, reshaped
from batchcorr.bridge._fold.steps import (
    arguments,
    describe,
    kind,
    path_of,
    shape_of,
    value_of,
)
from batchcorr.bridge._fold.weights import one_map, same

if TYPE_CHECKING:
    from torch.fx import Node

    from batchcorr.bridge._fold.flow import Flow
    from batchcorr.models.location_scale import LocationScale

__all__ = ["Along", "equal", "passed", "why_not_passed"]

SAME = (
    "alias",
    "clone",
    "contiguous",
    "detach",
    "alpha_dropout",
    "dropout",
    "feature_alpha_dropout",
    "feature_dropout",
    "getitem",
    "to",
    "_to_copy",
)
AVERAGES = {
    **{f"avg_pool{k}d": k for k in (1, 2, 3)},
    **{f"adaptive_avg_pool{k}d": k for k in (1, 2, 3)},
    **{f"upsample_nearest{k}d": k for k in (1, 2, 3)},
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "upsample_trilinear3d": 3,
}
MAXIMA = {
    **{f"max_pool{k}d": k for k in (1, 2, 3)},
    **{f"max_pool{k}d_with_indices": k for k in (1, 2, 3)},
    **{f"adaptive_max_pool{k}d": k for k in (1, 2, 3)},
}
RESHAPES = (
    "_unsafe_view",
    "flatten",
    "reshape",
    "squeeze",
    "unflatten",
    "unsqueeze",
    "view",
)
PERMUTATIONS = ("movedim", "permute", "swapaxes", "swapdims", "t", "transpose")


@dataclass(frozen=True)
class Along:
    """A correction along one axis of a tensor.

    Attributes
    ----------
    correction
        One scale and one shift for each position along the axis.
    axis
        Counted from the front.
    """

    correction: LocationScale
    axis: int


def equal(a: Along, b: Along) -> bool:
    """Whether two changes are one."""
    return a.axis == b.axis and same(a.correction, b.correction)


def passed(
    flow: Flow, step: Node, source: Node, change: Along, *, back: bool
) -> Along | str:
    """Carry a correction over a step of one input, or say why it cannot pass.

    Parameters
    ----------
    flow
        Steps of the model.
    step
        What is computed.
    source
        The one tensor from which it is.
    change
        Correction of the step's result if `back`, else of its source.
    back
        Whether to go from the result to the source.

    Returns
    -------
    The correction on the other side, or the reason why there is none.
    """
    name, where = kind(step), describe(step)
    other = _other_kind(step, source)
    if other:
        return f"{where} {other}"
    if name in SAME:
        return _same(step, change)
    if name in {*AVERAGES, *MAXIMA, "pad"}:
        over = _padded if name == "pad" else _pooled
        return over(step, source, change)
    if name in {"mul", "div"}:
        return _multiplied(step, source, change, back=back)
    moved = _moved(step, source, change, back=back)
    if moved is None:
        return why_not_passed(flow, step)
    return f"{where} {moved}" if isinstance(moved, str) else Along(*moved)


def _other_kind(step: Node, source: Node) -> str:
    """Return what a step changes of its tensor beside the values, or "" if nothing."""
    result, given = value_of(step), value_of(source)
    if getattr(result, "dtype", given.dtype) != given.dtype:
        return "changes the type of numbers"
    if getattr(result, "device", given.device) != given.device:
        return "moves it to another device"
    return ""


def _moved(
    step: Node, source: Node, change: Along, *, back: bool
) -> tuple[LocationScale, int] | str | None:
    """Carry a correction over a step that moves values; None: it is no such step."""
    name, correction, axis = kind(step), change.correction, change.axis
    before, after = shape_of(source), shape_of(step)
    if name in RESHAPES:
        return reshaped(
            correction, axis, *((after, before) if back else (before, after))
        )
    if name in PERMUTATIONS:
        return correction, permuted(step, axis, len(before), back=back)
    if name == "mean" and "dim" in arguments(step):
        return reduced(arguments(step), correction, axis, len(before), back=back)
    return None


def why_not_passed(flow: Flow, step: Node) -> str:
    """Return why no correction passes a step, where no rule for it is known."""
    if step.op == "output":
        return "its result is part of the model's output"
    if step.op == "placeholder":
        return f"it corrects {describe(step)}"
    if kind(step) in {*LAYERS, *NORMS} and path_of(step) in flow.fixed:
        return f"{path_of(step)!r} cannot be changed: {flow.fixed[path_of(step)]}"
    return f"{describe(step)} is no step that a correction of channels could pass"


def _same(step: Node, change: Along) -> Along | str:
    """Carry a correction over a step that changes nothing in evaluation mode."""
    if kind(step) == "getitem":
        return change if step.args[1] == 0 else f"{describe(step)} gives indices"
    if "dropout" in kind(step) and arguments(step)["train"]:
        return f"{describe(step)} is active in evaluation mode"
    return change


def _multiplied(step: Node, source: Node, change: Along, *, back: bool) -> Along | str:
    """Carry a correction over a multiplication by a number that is not 0."""
    given = arguments(step)
    number = given["other"]
    plain = isinstance(number, int | float) and math.isfinite(number) and number != 0
    if given["self"] is not source or not plain or given.get("rounding_mode"):
        return f"{describe(step)} is no multiplication by one number"
    multiple = float(number) if kind(step) == "mul" else 1 / number
    scale, shift = change.correction.scale[0], change.correction.shift[0]
    shift = shift / multiple if back else shift * multiple
    return Along(one_map(scale, shift), change.axis)


def _pooled(step: Node, source: Node, change: Along) -> Along | str:
    """Carry a correction over averages and maxima of positions in a channel."""
    name = kind(step)
    axes = AVERAGES.get(name) or MAXIMA[name]
    if change.axis >= len(shape_of(source)) - axes:
        return f"{describe(step)} mixes the axis that the correction lies along"
    if name in MAXIMA and bool((change.correction.scale < 0).any()):
        return f"{describe(step)} takes maxima, and some scales are negative"
    if name.startswith("avg_pool"):
        given = arguments(step)
        padded = any(given["padding"]) and given["count_include_pad"]
        if padded or given.get("divisor_override") is not None:
            return f"{describe(step)} averages zeros in that are not in its input"
    return change


def _padded(step: Node, source: Node, change: Along) -> Along | str:
    """Carry a correction over padding by the tensor's own values."""
    given = arguments(step)
    if given["mode"] == "constant":
        return f"{describe(step)} pads with a constant"
    if change.axis >= len(shape_of(source)) - len(given["pad"]) // 2:
        return f"{describe(step)} pads the axis that the correction lies along"
    return change
