"""Against the stream: from a BatchNorm to the layers that made what it corrects.

    r ∘ (a + b) + s = (r ∘ a + s) + r ∘ b,      r ∘ [a, b] + s = [r₁ ∘ a + s₁, r₂ ∘ b + s₂]

Every tensor on the way is changed, so all who use it must want the same of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._fold.rules import Along, equal, passed, why_not_passed
from batchcorr.bridge._fold.steps import (
    arguments,
    describe,
    kind,
    shape_of,
    tensors_in,
    users,
    value_of,
)
from batchcorr.bridge._fold.taking import Takers, why_not_after
from batchcorr.bridge._fold.weights import one_map
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Container

    from torch.fx import Node

    from batchcorr.bridge._fold.flow import Flow
    from batchcorr.models.location_scale import LocationScale

__all__ = ["carry_back"]

Wanted = list[tuple["Node", Along]]


def carry_back(
    flow: Flow, path: str, correction: LocationScale, gone: Container[str]
) -> dict[str, LocationScale] | str:
    """Return what each layer before a BatchNorm would take up behind itself.

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
    asked: dict[Node, Wanted] = {}
    for call in flow.calls_of(path):
        asked.setdefault(arguments(call)["input"], []).append(
            (call, Along(correction, 1))
        )
    for node in reversed(flow.nodes):
        if node not in asked:
            continue
        change = _agreed(node, asked[node])
        if isinstance(change, str):
            return change
        owner = flow.calls.get(node)
        if owner is not None and owner not in gone:
            if owner == path:
                return f"{path!r} corrects its own result"
            reason = why_not_after(node, change)
            if reason:
                return reason
            takers.add(node, change.correction)
            continue
        sources = _sources(flow, node, change, gone)
        if isinstance(sources, str):
            return sources
        for source, wanted in sources:
            asked.setdefault(source, []).append((node, wanted))
    return takers.agreed("behind")


def _agreed(node: Node, wanted: Wanted) -> Along | str:
    """Return the one change that all users of a tensor ask for."""
    askers = {user for user, _ in wanted}
    others = [user for user in users(node) if user not in askers]
    if others:
        return f"the result of {describe(node)} is also used by {describe(others[0])}"
    first = wanted[0][1]
    if not all(equal(first, other) for _, other in wanted):
        return f"the result of {describe(node)} would have to be two things at once"
    return first


def _sources(
    flow: Flow, node: Node, change: Along, gone: Container[str]
) -> list[tuple[Node, Along]] | str:
    """Return what is wanted of the tensors that a step is computed from."""
    if flow.calls.get(node, "?") in gone:
        return [(arguments(node)["input"], change)]
    if kind(node) in {"add", "sub"}:
        return _summands(node, change)
    if kind(node) == "cat":
        return _parts(node, change)
    sources = tensors_in(node)
    if len(sources) != 1:
        return why_not_passed(flow, node)
    found = passed(flow, node, sources[0], change, back=True)
    return found if isinstance(found, str) else [(sources[0], found)]


def _summands(node: Node, change: Along) -> list[tuple[Node, Along]] | str:
    """Give all summands the scale, and the first one the shift."""
    given = arguments(node)
    zero = torch.zeros_like(change.correction.shift[0])
    shifts = (change.correction.shift[0], zero)
    found = []
    for name, shift in zip(("self", "other"), shifts, strict=True):
        source: Any = given[name]
        if not isinstance(source, torch.fx.Node) or given["alpha"] != 1:
            return f"{describe(node)} adds a number or a multiple"
        shape = shape_of(source)
        axis = change.axis - len(shape_of(node)) + len(shape)
        if axis < 0 or str(shape[axis]) != str(shape_of(node)[change.axis]):
            return f"{describe(node)} adds one value to several channels"
        if value_of(source).dtype != value_of(node).dtype:
            return f"{describe(node)} adds different types of numbers"
        scale = change.correction.scale[0]
        found.append((source, Along(one_map(scale, shift), axis)))
    return found


def _parts(node: Node, change: Along) -> list[tuple[Node, Along]] | str:
    """Give each part of a concatenation its channels' correction."""
    given = arguments(node)
    ndim = len(shape_of(node))
    found, start = [], 0
    for part in given["tensors"]:
        shape = shape_of(part)
        if len(shape) != ndim or value_of(part).dtype != value_of(node).dtype:
            return f"{describe(node)} puts tensors of different kinds together"
        if given["dim"] % ndim != change.axis:
            found.append((part, change))
            continue
        stop = start + int(shape[change.axis])
        channels = torch.arange(start, stop, device=change.correction.scale.device)
        found.append((part, Along(change.correction.select(channels), change.axis)))
        start = stop
    return found
