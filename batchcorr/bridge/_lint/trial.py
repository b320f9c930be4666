r"""A copy of a model that may be changed, to see what changes nothing.

Symmetries are exact in exact arithmetic. On a *general* copy, in float64, they stand out
from rounding, because the ε of its normalizations are next to nothing beside the
variances; and they are those of the network rather than of a moment in its life, because
constant tensors (γ = 0 in a residual branch, biases of zero) are replaced by general ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from batchcorr.bridge._batches import leaves, map_tensors, n_samples, take
from batchcorr.bridge._intercept import Intercept
from batchcorr.bridge._running import copy_of, hooked, input_of, seeded
from batchcorr.bridge._step import Step
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["NORMS", "Trial", "copied", "enlarged", "general_trial"]

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Layers with an ε; `_NormBase` is that of BatchNorm and InstanceNorm."""

FEW = 8
"""Samples that make a batch general: fewer are repeated with noise."""


class _OneProcess(_BatchNorm):
    """A SyncBatchNorm on one process: BatchNorm of any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:
        del input


def copied(step: Step) -> Step:
    """The step of a copy of the model, SyncBatchNorm on one process."""
    own = copy_of(step.model)
    for module in own.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = _OneProcess  # type: ignore[assignment]
    own.zero_grad()
    return Step(own, step.loss)


def general_trial(step: Step, batch: Any) -> Trial:
    """A trial on eight samples in float64; where model or loss insist, as they want it."""
    whole = enlarged(batch)
    try:
        return Trial(step, take(whole, torch.arange(FEW, device="cpu")), torch.float64)
    except InputError:  # written for float32, or a size of batch
        return Trial(step, whole, torch.float32)


class Trial:
    """A general copy of a model and the batch it is tried on.

    Attributes
    ----------
    values
        The loss, and the model's outputs, before the copy is changed further.
    gradients
        Those of the parameters that have one, by name.
    sizes
        How large the output of each module with parameters is, by name.
    """

    def __init__(self, step: Step, batch: Any, dtype: torch.dtype) -> None:
        self.step = Step(copy_of(step.model).to(dtype), step.loss)
        self.tolerance = math.sqrt(torch.finfo(dtype).eps)  # below it a change is none
        self.batch = map_tensors(
            batch, lambda x: x.detach().to(dtype if x.is_floating_point() else x.dtype)
        )
        self._remove_eps()
        _move_constants(self.step.model)
        owners = {name.rpartition(".")[0] for name in self.step.parameters}
        names = {self.step.model.get_submodule(owner): owner for owner in owners}
        self.sizes = dict.fromkeys(owners, 0.0)

        def note(module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
            floats = [value for value in leaves(output) if value.is_floating_point()]
            found = [float(v.detach().square().mean().sqrt()) for v in floats]
            self.sizes[names[module]] = max([*found, self.sizes[names[module]]])

        with hooked(names, after=note):
            loss, *outputs = self.run()
        pairs = zip(self.step.parameters, self.step.gradients(loss), strict=True)
        self.gradients = {name: value for name, value in pairs if value is not None}
        self.values = [value.detach() for value in (loss, *outputs)]

    def _remove_eps(self) -> None:
        """Make every ε next to nothing beside the variance that comes in."""
        small = self.tolerance**1.5
        norms = [m for m in self.step.model.modules() if isinstance(m, NORMS)]

        def note(norm: Any, args: Any, kwargs: Any) -> None:
            variance = float(input_of(args, kwargs).detach().var(correction=0))
            if norm.eps is not None:
                norm.eps = min(norm.eps, small * variance) or small

        with hooked(norms, before=note):
            self.run()

    def run(self) -> list[Tensor]:
        """The loss, then the model's outputs; random numbers are always the same."""
        outputs: list[Tensor] = []
        with seeded(self.step.devices), Intercept():
            loss = self.step(self.batch, outputs)
        return [loss, *(out for out in outputs if out.is_floating_point())]

    def change(self, values: Mapping[str, Tensor]) -> float:
        """How much loss and outputs change with other values of parameters, relatively.

        It is infinite where it cannot be told: nothing is finite then, or all zero.
        """
        parameters = self.step.parameters
        with torch.no_grad():
            before = {name: parameters[name].clone() for name in values}
            for name, value in values.items():
                parameters[name].copy_(value)
            after = self.run()
            for name, value in before.items():
                parameters[name].copy_(value)
            changes = [
                float((new - old).abs().max() / old.abs().max())
                for old, new in zip(self.values, after, strict=True)
                if bool(old.any())
            ]
        finite = bool(changes) and all(math.isfinite(value) for value in changes)
        return max(changes) if finite else math.inf


def _move_constants(model: nn.Module) -> None:
    """Give constant parameters general values near their own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                noise = torch.randn(
                    parameter.shape, generator=generator, device="cpu"
                ).to(parameter)
                value = float(parameter.flatten()[0])
                width = 1.0 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                tiny = abs(value) < 0.01
                parameter.add_(noise, alpha=0.5 * width if tiny else 0.1 * value)


def enlarged(batch: Any) -> Any:
    """A batch of at least eight samples: repeated, numbers with some noise."""
    n = n_samples(batch)

    def enlarge(value: Tensor) -> Tensor:
        if not value.ndim or n >= FEW:
            return value
        value = value.repeat(-(-FEW // n), *[1] * (value.ndim - 1))
        if value.is_floating_point():
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(value[n:].shape, generator=generator, device="cpu").to(
                value
            )
            value[n:] += 0.3 * (float(value.std()) or 1.0) * noise
        return value

    return map_tensors(batch, enlarge)
