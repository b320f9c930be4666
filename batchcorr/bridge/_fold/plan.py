"""Which BatchNorm goes into which layers: each is tried until none is left that can.

A folded BatchNorm is the identity from then on, which may open the way for another; so
the rest is tried again. A layer may take up several, before and behind itself: its
corrections are chained, and its weights computed once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchcorr.bridge._fold.backward import carry_back
from batchcorr.bridge._fold.forward import carry_forward
from batchcorr.bridge._fold.weights import chain

if TYPE_CHECKING:
    from batchcorr.bridge._fold.flow import Flow
    from batchcorr.models.location_scale import LocationScale

__all__ = ["Plan", "make_plan"]


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

    before: dict[str, LocationScale] = field(default_factory=dict)
    after: dict[str, LocationScale] = field(default_factory=dict)
    folded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def effect(self, path: str, own: LocationScale) -> LocationScale:
        """Return what a BatchNorm does with all that it has taken up."""
        if path in self.before:
            own = chain(self.before[path], own)
        return chain(own, self.after[path]) if path in self.after else own


def make_plan(flow: Flow, corrections: dict[str, LocationScale]) -> Plan:
    """Return where each correction goes, or why it stays.

    Parameters
    ----------
    flow
        Steps of the model.
    corrections
        What each BatchNorm does, by its path, in the order of execution.
    """
    plan = Plan()
    waiting = dict(corrections)
    count = -1
    while count != len(waiting):
        count = len(waiting)
        for path in list(waiting):
            reason = _try(plan, flow, path, plan.effect(path, waiting[path]))
            if reason:
                plan.kept[path] = reason
            else:
                plan.kept.pop(path, None)
                del waiting[path]
    return plan


def _try(plan: Plan, flow: Flow, path: str, correction: LocationScale) -> str:
    """Fold a BatchNorm, or return why it cannot be."""
    if path in flow.fixed:
        return flow.fixed[path]
    if not flow.calls_of(path):
        return "no call of it was found for inputs like the examples"
    back = carry_back(flow, path, correction, plan.folded)
    if not isinstance(back, str):
        for taker, change in back.items():
            known = plan.after.get(taker)
            plan.after[taker] = change if known is None else chain(known, change)
        plan.folded[path] = tuple(reversed(back))
        return ""
    ahead = carry_forward(flow, path, correction, plan.folded)
    if not isinstance(ahead, str):
        for taker, change in ahead.items():
            known = plan.before.get(taker)
            plan.before[taker] = change if known is None else chain(change, known)
        plan.folded[path] = tuple(ahead)
        return ""
    return f"before it: {back}; after it: {ahead}"
