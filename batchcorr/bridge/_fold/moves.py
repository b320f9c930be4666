"""Steps that move values about or average over axes: where a channel axis goes.

In a reshape the channel of every value is written into a tensor of labels, which is
reshaped too: if then one axis alone tells the channel, that is the axis of the channels,
perhaps each repeated. Flattening (C, H, W) repeats each channel H·W times; the way back
is open only where this holds the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import SymInt
    from torch.fx import Node

    from batchcorr.models.location_scale import LocationScale

__all__ = ["permuted", "reduced", "reshaped"]

Sizes: TypeAlias = "Sequence[int | SymInt]"


def reshaped(
    correction: LocationScale, axis: int, before: Sizes, after: Sizes
) -> tuple[LocationScale, int] | str:
    """Return a correction and its axis after a reshape, or why it has none."""
    front = _equal_sizes(before, after)
    if axis < front:
        return correction, axis
    back = _equal_sizes(before[front:][::-1], after[front:][::-1])
    if axis >= len(before) - back:
        return correction, axis + len(after) - len(before)
    inner = before[front : len(before) - back]
    outer = after[front : len(after) - back]
    if not all(isinstance(size, int) for size in (*inner, *outer)):
        return "mixes channels with samples"
    channels = int(inner[axis - front])
    shape = [channels if k == axis - front else 1 for k in range(len(inner))]
    labels = torch.arange(channels).reshape(shape).expand([int(n) for n in inner])
    labels = labels.reshape([int(n) for n in outer])
    order = sorted(range(len(outer)), key=lambda k: outer[k] != channels)
    for place in order:
        rows = (
            labels.movedim(place, 0).flatten(1) if labels.ndim > 1 else labels[:, None]
        )
        if bool((rows == rows[:, :1]).all()):
            index = rows[:, 0].to(correction.scale.device)
            return correction.select(index), front + place
    return "moves channels so that no axis of the result tells them apart"


def _equal_sizes(a: Sizes, b: Sizes) -> int:
    """Return how many sizes agree from the front on; symbols by their formula."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if str(x) != str(y):
            break
        count += 1
    return count


def permuted(step: Node, axis: int, ndim: int, *, back: bool) -> int:
    """Return where a permutation of axes puts one, or where it was before.

    The step itself is asked, on a tensor whose axes have different lengths.
    """
    target: Any = step.target
    probe = torch.empty([2 + k for k in range(ndim)], device="meta")
    origin = [size - 2 for size in target(probe, *step.args[1:]).shape]
    return origin[axis] if back else origin.index(axis)


def reduced(
    given: dict[str, Any],
    correction: LocationScale,
    axis: int,
    ndim: int,
    *,
    back: bool,
) -> tuple[LocationScale, int] | str:
    """Return a correction and its axis after (or before) a mean over other axes."""
    dims = {dim % ndim for dim in given["dim"] or range(ndim)}
    left = [k for k in range(ndim) if given["keepdim"] or k not in dims]
    source = left[axis] if back else axis
    if source in dims:
        return "averages over the channels"
    return correction, (source if back else left.index(source))
