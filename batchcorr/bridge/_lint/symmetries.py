r"""Parameters whose change changes nothing: redundant biases, lengths of weights.

A bias is redundant if f(b + δ) = f(b) for any δ, and so ∂L/∂b = 0: BatchNorm takes it away
with the mean, whatever linear layer stands between them. A weight is scale-invariant if
f(aW) = f(W) for a > 0, and so ⟨W, ∇⟩ = 0: any normalization makes it so, and a ReLU or a
layer without bias between does not change it.

The gradient says which may be so; these are then changed, all at once, and only where
something changes, half of them at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._lint.trial import NORMS
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from batchcorr.bridge._lint.trial import Trial

__all__ = [
    "Invariance",
    "find_decayed_weights",
    "find_redundant_biases",
    "scale_invariant",
]


class Invariance(NamedTuple):
    """How invariant a weight is: the cosine of W and ∇, and the change by scaling."""

    cosine: float
    change: float


def _unchanging(
    trial: Trial, values: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Of parameters with two other values each: those that change nothing, and by what."""
    if not values:
        return {}
    change = max(
        trial.change({name: pair[k] for name, pair in values.items()}) for k in (0, 1)
    )
    if change <= trial.tolerance:
        return dict.fromkeys(values, change)
    if len(values) == 1:
        return {}
    names = list(values)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    one, other = ({name: values[name] for name in half} for half in halves)
    return _unchanging(trial, one) | _unchanging(trial, other)


def find_redundant_biases(trial: Trial) -> list[Finding]:
    """The biases whose change changes nothing.

    The shift of a normalization comes with the layer and does no harm: it is left in
    peace, even where the next one takes it away.
    """
    parameters, sizes, values = trial.step.parameters, {}, {}
    slopes = {name: float(g.abs().max()) for name, g in trial.gradients.items()}
    largest = max(slopes.values(), default=0) or 1.0
    for seed, (name, gradient) in enumerate(trial.gradients.items()):
        owner, _, last = name.rpartition(".")
        is_bias = gradient.ndim == 1 or "bias" in last
        of_norm = isinstance(trial.step.model.get_submodule(owner), NORMS)
        if is_bias and not of_norm and slopes[name] <= trial.tolerance * largest:
            sizes[name] = trial.sizes[owner] or 1.0
            values[name] = _stepped(parameters[name].detach(), sizes[name], seed)
    findings = []
    for name, change in _unchanging(trial, values).items():
        layer, _, last = name.rpartition(".")
        size, slope = sizes[name], slopes[name] / largest
        message = (
            f"What comes after it cancels {last!r}: steps of {2 * size:.2g} to "
            f"{4 * size:.2g} change loss and outputs by {change:.1e} (relative), and its "
            f"gradient is {slope:.1e} of the largest."
        )
        remedy = (
            "Build the layer without it (bias=False). In a trained model set it to zero "
            "and, if a BatchNorm follows, take its running statistics anew."
        )
        evidence = {"change": change, "gradient": slope}
        findings.append(Finding("redundant-bias", layer, message, evidence, remedy))
    return findings


def _stepped(value: Tensor, size: float, seed: int) -> tuple[Tensor, Tensor]:
    """A bias after large steps either way.

    Steps are two to four times what the layer gives, so that a dead unit wakes up.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(value.shape, generator=generator, device="cpu").to(value)
    signs = torch.randn(value.shape, generator=generator, device="cpu").to(value).sign()
    step = max(size, float(value.abs().max())) * (2 + 2 * draw) * signs
    return value + step, value - step


def scale_invariant(trial: Trial) -> dict[str, Invariance]:
    """The trainable weights whose length changes nothing, by name."""
    cosines, values = {}, {}
    for seed, (name, gradient) in enumerate(trial.gradients.items()):
        if gradient.ndim < 2 or not bool(gradient.any()):
            continue
        weight = trial.step.parameters[name].detach()
        cosine = float((weight * gradient).sum() / (weight.norm() * gradient.norm()))
        if abs(cosine) <= trial.tolerance:
            generator = torch.Generator().manual_seed(seed)
            factor = 2 + 2 * float(
                torch.rand(1, generator=generator, device="cpu")
            )  # each its own
            values[name] = weight * factor, weight / factor
            cosines[name] = abs(cosine)
    unchanging = _unchanging(trial, values)
    return {name: Invariance(cosines[name], unchanging[name]) for name in unchanging}


def find_decayed_weights(
    invariant: Mapping[str, Invariance], decay: Mapping[str, float]
) -> list[Finding]:
    """The scale-invariant weights that an optimizer decays: a note, no fault.

    Decay shrinks a length that means nothing, and by that raises the effective learning
    rate of the direction: it is a schedule, which one may want.
    """
    findings = []
    for name, (cosine, change) in invariant.items():
        if name not in decay:
            continue
        message = (
            f"Weight decay of {decay[name]:g} on {name}, whose length means nothing: "
            f"scaling it by ¼ to 4 changes loss and outputs by {change:.1e} "
            f"(relative), and the cosine of weight and gradient is {cosine:.1e}. Decay "
            "sets how fast it turns, by about √(2 · learning rate · decay) a step."
        )
        remedy = (
            "Keep it knowingly, as a schedule of the effective learning rate; or give "
            "the optimizer bridge.lint(…).parameter_groups(weight_decay=…), where only "
            "ordinary weights decay."
        )
        evidence = {"weight_decay": decay[name], "change": change, "cosine": cosine}
        rule, layer = "decay-on-scale-invariant-weight", name.rpartition(".")[0]
        findings.append(Finding(rule, layer, message, evidence, remedy, "note"))
    return findings
