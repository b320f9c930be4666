r"""Redundant biases: f(b + δ) = f(b) for any δ, and ∂L/∂b = 0.

A bias that is the same for all rows of a channel is part of the mean that BatchNorm takes
away, whatever linear layer stands between them. Behind a nonlinearity, on another axis, or
before a normalization that takes away less than it adds, it is not. The shift of a
normalization itself comes with the layer and does no harm: it is left in peace, even
where the next one takes it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._lint.subject import NORMS
from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.samples import leaves

if TYPE_CHECKING:
    from torch import Tensor, nn

    from batchcorr.bridge._lint.subject import Subject

__all__ = ["find_redundant_biases"]


def find_redundant_biases(subject: Subject) -> list[Finding]:
    """Return the biases whose change changes nothing."""
    gradients = subject.gradients
    largest = max((float(g.abs().max()) for g in gradients.values()), default=0.0)
    slopes = {
        name: float(gradient.abs().max()) / largest
        for name, gradient in gradients.items()
        if largest and _is_bias(subject, name, gradient)
    }
    flat = [name for name, slope in slopes.items() if slope <= subject.tolerance]
    sizes = _output_sizes(subject, flat)
    findings = []
    for name in flat:
        change = _change(subject, name, sizes[name])
        if change <= subject.tolerance:
            findings.append(_finding(name, slopes[name], change, sizes[name]))
    return findings


def _is_bias(subject: Subject, name: str, value: Tensor) -> bool:
    """Whether a parameter is a bias that its layer could do without."""
    owner, _, last = name.rpartition(".")
    if isinstance(subject.step.model.get_submodule(owner), NORMS):
        return False
    return value.ndim == 1 or "bias" in last


def _output_sizes(subject: Subject, names: list[str]) -> dict[str, float]:
    """Return the root mean square of what the owner of each parameter puts out."""
    model = subject.step.model
    sizes: dict[str, float] = {}

    def note(owner: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            for value in leaves(output):
                if value.is_floating_point():
                    size = float(value.square().mean().sqrt())
                    sizes[owner] = max(size, sizes.get(owner, 0.0))

        return hook

    handles = [
        model.get_submodule(owner).register_forward_hook(note(owner))
        for owner in {name.rpartition(".")[0] for name in names}
    ]
    try:
        with torch.no_grad():
            subject.run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: sizes.get(name.rpartition(".")[0]) or 1.0 for name in names}


def _change(subject: Subject, name: str, size: float) -> float:
    """Return the change of loss and outputs by large steps either way.

    Steps are two to four times what the values are, so that a dead unit wakes up.
    """
    value = subject.step.parameters[name].detach()
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(value.shape, generator=generator).to(value)
    signs = torch.randn(value.shape, generator=generator).to(value).sign()
    large = max(size, float(value.abs().max()))
    step = large * (2 + 2 * draw) * signs
    return max(subject.change({name: value + s * step}) for s in (1, -1))


def _finding(name: str, slope: float, change: float, size: float) -> Finding:
    layer, _, last = name.rpartition(".")
    return Finding(
        rule="redundant-bias",
        layer=layer,
        message=(
            f"What comes after it cancels {last!r}: steps of {2 * size:.2g} to "
            f"{4 * size:.2g} change loss and outputs by {change:.1e} (relative), and its "
            f"gradient is {slope:.1e} of the largest."
        ),
        evidence={"change": change, "gradient": slope},
        remedy=(
            f"Build {layer or 'the layer'} without it (bias=False). In a trained model "
            "set it to zero and, if a BatchNorm follows, take its running statistics "
            "anew."
        ),
    )
