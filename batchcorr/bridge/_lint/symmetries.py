r"""Parameters whose change changes nothing: redundant biases, lengths of weights.

A bias is redundant if f(b + δ) = f(b) for any δ, and so ∂L/∂b = 0: BatchNorm takes it away
with the mean, whatever linear layer stands between them. A weight is scale-invariant if
f(aW) = f(W) for a > 0, and so ⟨W, ∇⟩ = 0: BatchNorm makes it so in each output unit by
itself, LayerNorm and GroupNorm, or a ReLU and a layer between, only as a whole.

The gradient says which may be so; these are then changed, all at once, and only where
something changes, half of them at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._lint.subject import NORMS
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from batchcorr.bridge._lint.subject import Subject

__all__ = ["Invariance", "find_redundant_biases", "scale_invariant"]


class Invariance(NamedTuple):
    """How a weight is invariant: the cosine of W and ∇, and the change by scaling."""

    by_unit: bool
    cosine: float
    change: float


def _unchanging(
    subject: Subject, trials: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Of parameters with two other values each: those that change nothing, and by what."""
    if not trials:
        return {}
    change = max(
        subject.change({name: values[k] for name, values in trials.items()})
        for k in (0, 1)
    )
    if change <= subject.tolerance:
        return dict.fromkeys(trials, change)
    if len(trials) == 1:
        return {}
    names = list(trials)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    one, other = ({name: trials[name] for name in half} for half in halves)
    return _unchanging(subject, one) | _unchanging(subject, other)


def find_redundant_biases(subject: Subject) -> list[Finding]:
    """The biases whose change changes nothing.

    The shift of a normalization comes with the layer and does no harm: it is left in
    peace, even where the next one takes it away.
    """
    largest = max((float(g.abs().max()) for g in subject.gradients.values()), default=0)
    slopes = {
        name: float(gradient.abs().max()) / largest
        for name, gradient in subject.gradients.items()
        if largest and _is_bias(subject, name, gradient)
    }
    flat = [name for name, slope in slopes.items() if slope <= subject.tolerance]
    sizes = {name: subject.sizes.get(name.rpartition(".")[0]) or 1.0 for name in flat}
    trials = {
        name: _stepped(subject.step.parameters[name].detach(), sizes[name], seed)
        for seed, name in enumerate(flat)
    }
    findings = []
    for name, change in _unchanging(subject, trials).items():
        layer, _, last = name.rpartition(".")
        size = sizes[name]
        message = (
            f"What comes after it cancels {last!r}: steps of {2 * size:.2g} to "
            f"{4 * size:.2g} change loss and outputs by {change:.1e} (relative), and its "
            f"gradient is {slopes[name]:.1e} of the largest."
        )
        remedy = (
            "Build the layer without it (bias=False). In a trained model set it to zero "
            "and, if a BatchNorm follows, take its running statistics anew."
        )
        evidence = {"change": change, "gradient": slopes[name]}
        findings.append(Finding("redundant-bias", layer, message, evidence, remedy))
    return findings


def _is_bias(subject: Subject, name: str, value: Tensor) -> bool:
    """Whether a parameter is a bias that its layer could do without."""
    owner, _, last = name.rpartition(".")
    if isinstance(subject.step.model.get_submodule(owner), NORMS):
        return False
    return value.ndim == 1 or "bias" in last


def _stepped(value: Tensor, size: float, seed: int) -> tuple[Tensor, Tensor]:
    """A bias after large steps either way.

    Steps are two to four times what the layer gives, so that a dead unit wakes up.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(value.shape, generator=generator).to(value)
    signs = torch.randn(value.shape, generator=generator).to(value).sign()
    step = max(size, float(value.abs().max())) * (2 + 2 * draw) * signs
    return value + step, value - step


def scale_invariant(subject: Subject) -> dict[str, Invariance]:
    """The trainable weights whose length changes nothing, by name.

    Scaled with one factor for each unit along the first or second axis, else as a whole.
    """
    found: dict[str, Invariance] = {}
    left: dict[str, dict[int | None, float]] = {}
    for name, gradient in subject.gradients.items():
        if gradient.ndim > 1 and bool(gradient.any()):
            cosines = {axis: _cosine(subject, name, axis) for axis in (0, 1, None)}
            left[name] = {a: c for a, c in cosines.items() if c <= subject.tolerance}
    while left := {name: cosines for name, cosines in left.items() if cosines}:
        tried = {name: next(iter(cosines.items())) for name, cosines in left.items()}
        trials = {
            name: _scaled(subject.step.parameters[name].detach(), axis, seed)
            for seed, (name, (axis, _)) in enumerate(tried.items())
        }
        for name, change in _unchanging(subject, trials).items():
            axis, cosine = tried[name]
            units = axis is not None and subject.gradients[name].shape[axis] > 1
            found[name] = Invariance(units, cosine, change)
        left = {
            name: dict(list(cosines.items())[1:])
            for name, cosines in left.items()
            if name not in found
        }
    return {name: found[name] for name in subject.step.parameters if name in found}


def _cosine(subject: Subject, name: str, axis: int | None) -> float:
    """Cosine of a weight and its gradient, the largest of all slices along an axis."""
    weight, gradient = subject.step.parameters[name].detach(), subject.gradients[name]
    rest = [k for k in range(weight.ndim) if k != axis]
    lengths = (weight**2).sum(rest).sqrt() * (gradient**2).sum(rest).sqrt()
    return float((weight * gradient).sum(rest).abs().max() / lengths.max())


def _scaled(weight: Tensor, axis: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """A weight times 2^-2 … 2^-1 or 2^1 … 2^2 in each slice, and the other way round."""
    shape = [size if k == axis else 1 for k, size in enumerate(weight.shape)]
    generator = torch.Generator().manual_seed(seed)
    power = 2 * torch.rand(shape, generator=generator).to(weight) - 1
    power = torch.where(power < 0, power - 1, power + 1)
    return weight * 2**power, weight * 2**-power
