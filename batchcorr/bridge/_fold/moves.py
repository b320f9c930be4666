r"""What a correction may pass on its way to a layer: steps that move or average values.

A step f lets a correction along an axis pass if, for all x,

    f(r ∘ x + s) = r' ∘ f(x) + s'

with r', s' the same numbers, perhaps along another axis, repeated or picked out. Whether
and how is found by trying: every value is given the number of its channel as a label,
and the labels go through the step. If along one axis of the result each place has one
label, and it is that of a channel, this is the axis of the channels: reshapes move
labels about, an average of equal labels is the label, and an average in which there are
zeros from the border is none. Maxima keep labels too, and corrections with r ≥ 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from batchcorr.bridge._batches import map_tensors
from batchcorr.bridge._fold.trace import LAYERS, Value
from batchcorr.bridge._fold.weights import one_map
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge._fold.trace import Step
    from batchcorr.models.location_scale import LocationScale

__all__ = ["Along", "passed"]

MAXIMA = {f"{a}max_pool{k}d" for a in ("", "adaptive_") for k in (1, 2, 3)}
MOVES = (
    {"clone", "contiguous", "detach", "to", "alpha_dropout", "feature_alpha_dropout"}
    | {"dropout", "dropout1d", "dropout2d", "dropout3d"}
    | {"__getitem__", "flatten", "ravel", "reshape", "reshape_as", "squeeze"}
    | {"unflatten", "unsqueeze", "view", "view_as", "permute", "transpose", "movedim"}
    | {f"{a}avg_pool{k}d" for a in ("", "adaptive_") for k in (1, 2, 3)}
    | {"mean"}
    | MAXIMA
)


class Along(NamedTuple):
    """A correction along one axis of a tensor, counted from the front."""

    correction: LocationScale
    axis: int


def passed(step: Step, change: Along, *, back: bool) -> Along | str:
    """Carry a correction over a step, `back` from its result; or say why it cannot pass."""
    reason = _closed(step, change)
    if reason:
        return reason
    source = step.inputs[0]
    axes = range(len(source.shape)) if back else [change.axis]
    for axis in axes:
        place = _where(step, source, axis)
        if place is not None and not back:
            return Along(change.correction.select(place[1]), place[0])
        if place is not None and place[0] == change.axis:
            before = _undone(change.correction, place[1], source.shape[axis])
            if before is not None:
                return Along(before, axis)
    return f"{step} leaves no axis of its own to the channels"


def _closed(step: Step, change: Along) -> str:
    """Why a step lets no such correction pass, wherever it lies; or ""."""
    if step.name in LAYERS:
        return (
            f"the weight of {step} is computed each time it is called (weight norm, "
            "pruning …): make it a plain parameter to have it folded"
        )
    if step.name not in MOVES or len(step.inputs) != 1 or len(step.outputs) != 1:
        return f"{step} is no step that a correction of channels could pass"
    source, result = step.inputs[0], step.outputs[0]
    if source.dtype != result.dtype or source.device != result.device:
        return f"{step} changes the type of numbers or the device"
    if step.name in MAXIMA and bool((change.correction.scale < 0).any()):
        return f"{step} takes maxima, and some scales are negative"
    return ""


def _where(step: Step, source: Value, axis: int) -> tuple[int, Tensor] | None:
    """Where an axis of the input is in the result, and which channel is at each place."""
    count = source.shape[axis]
    shape = [count if k == axis else 1 for k in range(len(source.shape))]
    labels = torch.arange(1.0, count + 1, dtype=torch.float64).reshape(shape)
    labels = labels.expand(source.shape).contiguous()

    def fill(value: Value) -> Tensor:
        return labels if value is source else torch.empty(value.shape)

    assert step.function is not None
    args, kwargs = map_tensors((step.args, step.kwargs), fill, Value)
    moved: Tensor = step.function(*args, **kwargs)
    whole = moved.round()
    if not torch.allclose(moved, whole, rtol=0, atol=1e-9) or moved.ndim == 0:
        return None
    if float(whole.min()) < 1 or float(whole.max()) > count:
        return None
    for k in sorted(range(moved.ndim), key=lambda k: (k == 0, k)):
        rows = whole.movedim(k, 0).reshape(moved.shape[k], -1)
        if bool((rows == rows[:, :1]).all()):
            return k, rows[:, 0].long() - 1
    return None


def _undone(
    correction: LocationScale, index: Tensor, channels: int
) -> LocationScale | None:
    """The correction of which `index` picks out the given one, if there is one."""
    scale = correction.scale.new_ones(channels)
    shift = correction.shift.new_zeros(channels)
    scale[index], shift[index] = correction.scale[0], correction.shift[0]
    found = one_map(scale, shift)
    again = found.select(index)
    same = torch.equal(again.scale, correction.scale)
    return found if same and torch.equal(again.shift, correction.shift) else None
