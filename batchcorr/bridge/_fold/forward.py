"""With the stream: from a BatchNorm to the layers that use what it corrects.

    W (r ∘ x + s) + c = (W r) x + (c + W s),      [r ∘ x + s, z] = [r, 1] ∘ [x, z] + [s, 0]

Whoever uses the corrected tensor will find the uncorrected one, so all of them must be
able to take the correction up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._fold.rules import Along, equal, passed, why_not_passed
from batchcorr.bridge._fold.steps import (
    SHAPE_ONLY,
    arguments,
    describe,
    kind,
    shape_of,
    tensors_in,
)
from batchcorr.bridge._fold.taking import Takers, why_not_before
from batchcorr.bridge._fold.weights import concatenate, one_map

if TYPE_CHECKING:
    from collections.abc import Container

    from torch import Tensor
    from torch.fx import Node

    from batchcorr.bridge._fold.flow import Flow
    from batchcorr.models.location_scale import LocationScale

__all__ = ["carry_forward"]


def carry_forward(
    flow: Flow, path: str, correction: LocationScale, gone: Container[str]
) -> dict[str, LocationScale] | str:
    """Return what each layer after a BatchNorm would take up in front of itself.

    Parameters
    ----------
    flow
        Steps of the model.
    path
        The BatchNorm.
    correction
        What it does.
    gone
        Paths of BatchNorms that are folded already.

    Returns
    -------
    A correction by the path of the layer, or the reason why there is none.
    """
    takers = Takers(flow)
    missing: dict[Node, Along] = {}
    for node in flow.nodes:
        sources = [source for source in node.all_input_nodes if source in missing]
        owner = flow.calls.get(node)
        if owner == path:
            if sources:
                return f"{path!r} corrects its own result"
            missing[node] = Along(correction, 1)
        elif not sources or kind(node) in SHAPE_ONLY:
            continue
        elif owner is not None and owner not in gone:
            if sources != [arguments(node)["input"]]:
                return f"{describe(node)} uses it as a parameter"
            change = missing[sources[0]]
            reason = why_not_before(node, change)
            if reason:
                return reason
            takers.add(node, change.correction)
        else:
            found = _result(flow, node, missing, gone)
            if isinstance(found, str):
                return found
            missing[node] = found
    return takers.agreed("in front of")


def _result(
    flow: Flow, node: Node, missing: dict[Node, Along], gone: Container[str]
) -> Along | str:
    """Return the correction that a step's result lacks if its inputs lack theirs."""
    if flow.calls.get(node, "?") in gone:
        return missing[arguments(node)["input"]]
    if kind(node) == "cat":
        return _joined(node, missing)
    sources = tensors_in(node)
    if len(sources) != 1:
        return why_not_passed(flow, node)
    return passed(flow, node, sources[0], missing[sources[0]], back=False)


def _joined(node: Node, missing: dict[Node, Along]) -> Along | str:
    """Return the correction of a concatenation: parts without one get the identity."""
    parts: list[Node] = arguments(node)["tensors"]
    ndim = len(shape_of(node))
    axis = arguments(node)["dim"] % ndim
    known = [missing[part] for part in parts if part in missing]
    first = known[0]
    if any(len(shape_of(part)) != ndim for part in parts):
        return f"{describe(node)} puts tensors of different kinds together"
    if axis == first.axis and all(change.axis == axis for change in known):
        like = first.correction.scale[0]
        return Along(
            concatenate(
                [
                    missing[part].correction
                    if part in missing
                    else _identity(int(shape_of(part)[axis]), like)
                    for part in parts
                ]
            ),
            axis,
        )
    if len(known) == len(parts) and all(equal(change, first) for change in known):
        return first
    return f"{describe(node)} puts it together with something uncorrected"


def _identity(channels: int, like: Tensor) -> LocationScale:
    """Return the correction that changes nothing."""
    return one_map(like.new_ones(channels), like.new_zeros(channels))
