r"""Scale-invariant weights: f(aW) = f(W) for a > 0, and so ⟨W, ∇⟩ = 0.

BatchNorm makes a weight invariant in each output unit by itself; LayerNorm and GroupNorm,
or a ReLU and a layer between, only as a whole. Both are tried: with one factor for each
unit along the first or second axis, and with one factor for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

    from batchcorr.bridge._lint.subject import Subject

__all__ = ["Invariance", "scale_invariant"]


@dataclass(frozen=True)
class Invariance:
    """How a weight is invariant: the cosine of W and ∇, and the change by scaling."""

    by_unit: bool
    cosine: float
    change: float


def scale_invariant(subject: Subject) -> dict[str, Invariance]:
    """Return the trainable weights whose length changes nothing, by name."""
    found = {}
    for name, gradient in subject.gradients.items():
        if gradient.ndim < 2 or not bool(gradient.any()):
            continue
        for axis in (0, 1, None):
            invariance = _try(subject, name, gradient, axis)
            if invariance is not None:
                found[name] = invariance
                break
    return found


def _try(
    subject: Subject, name: str, gradient: Tensor, axis: int | None
) -> Invariance | None:
    """Return the evidence if a weight is invariant with one factor per slice."""
    weight = subject.step.parameters[name].detach()
    rest = [k for k in range(weight.ndim) if k != axis]

    def total(values: Tensor) -> Tensor:
        return values.sum(dim=rest, keepdim=True)

    lengths = total(weight**2).sqrt() * total(gradient**2).sqrt()
    cosine = float(total(weight * gradient).abs().max() / lengths.max())
    if not cosine <= subject.tolerance:
        return None
    generator = torch.Generator().manual_seed(0)
    power = 2 * torch.rand(lengths.shape, generator=generator).to(weight) - 1
    power = torch.where(power < 0, power - 1, power + 1)  # 2^-2 … 2^-1, 2^1 … 2^2
    change = max(subject.change({name: weight * 2 ** (s * power)}) for s in (1, -1))
    if change > subject.tolerance:
        return None
    return Invariance(axis is not None and lengths.numel() > 1, cosine, change)
