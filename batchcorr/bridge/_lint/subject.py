r"""A copy of the model to experiment on, in float64, and one at no special point.

Symmetries are exact in exact arithmetic. On the copy for symmetries they stand out from
rounding, because the ε of its normalizations are next to nothing beside the variances;
and they are those of the network rather than of a moment in its life, because constant
tensors (γ = 0 in a residual branch, biases of zero) are replaced by general ones.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from batchcorr.bridge._torch import torch
from batchcorr.bridge._training.intercept import Intercept
from batchcorr.bridge._training.samples import convert, leaves, n_samples
from batchcorr.bridge._training.step import Step, fixed_seed, require_any
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from batchcorr.bridge._lint.observation import Observed

__all__ = ["NORMS", "Subject"]

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Layers with an ε; `_NormBase` is that of BatchNorm and InstanceNorm."""

ENOUGH = 8
"""Samples that make a batch general."""


@dataclass(frozen=True)
class Subject:
    """A model to experiment on, and the batch it is tried on.

    Attributes
    ----------
    step
        The training step of the copy.
    batch
        The batch, in the dtype of the copy.
    dtype
        The dtype all is measured in.
    """

    step: Step
    batch: Any
    dtype: torch.dtype

    @classmethod
    def of(cls, step: Step, batch: Any) -> Subject:
        """Copy a model in float64, or in float32 where it insists on that.

        Raises
        ------
        InputError
            If it cannot be copied.
        """
        try:
            own = copy.deepcopy(step.model)
        except RuntimeError as error:
            msg = f"The model cannot be copied to experiment on: {error}"
            raise InputError(msg) from error
        own.zero_grad()
        wide = cls._in(step, own, batch, torch.float64)
        try:
            wide.run()
        except RuntimeError:
            # Something in the model or the loss is written for its dtype: run in the
            # narrower one, this raises again whatever had another reason.
            narrow = cls._in(step, own, batch, torch.float32)
            narrow.run()
            return narrow
        return wide

    @classmethod
    def _in(
        cls, step: Step, model: nn.Module, batch: Any, dtype: torch.dtype
    ) -> Subject:
        def cast(value: Tensor) -> Tensor:
            value = value.detach()
            return value.to(dtype) if value.is_floating_point() else value

        return cls(Step(model.to(dtype), step.loss), convert(batch, cast), dtype)

    @property
    def tolerance(self) -> float:
        """Half the digits of the dtype: below it a change is none."""
        return math.sqrt(torch.finfo(self.dtype).eps)

    def run(
        self,
        changed: dict[str, Tensor] | None = None,
        mode: AbstractContextManager[Any] | None = None,
        seed: int = 0,
    ) -> list[Tensor]:
        """Return the loss, then the model's outputs; a seed always draws the same."""
        outputs: list[Tensor] = []

        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs.extend(v for v in leaves(output) if v.is_floating_point())

        handle = self.step.model.register_forward_hook(note)
        try:
            with fixed_seed(self.step.devices, seed), mode or Intercept():
                loss = self.step(self.batch, parameters=changed)
        finally:
            handle.remove()
        return [loss, *outputs]

    def change(self, changed: dict[str, Tensor]) -> float:
        """Return how much loss and outputs change with some parameters, relatively.

        It is infinite where it cannot be told: nothing is finite then, or all zero.
        """
        with torch.no_grad():
            changes = [
                float((after - before).abs().max() / before.abs().max())
                for before, after in zip(self.before, self.run(changed), strict=True)
                if bool(before.any())
            ]
        known = bool(changes) and all(math.isfinite(value) for value in changes)
        return max(changes) if known else math.inf

    @cached_property
    def before(self) -> list[Tensor]:
        """Loss and outputs as they are."""
        with torch.no_grad():
            return self.run()

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the trainable parameters that the loss depends on."""
        parameters = self.step.parameters
        found = torch.autograd.grad(
            self.run()[0], list(parameters.values()), allow_unused=True
        )
        return {
            name: gradient
            for name, gradient in zip(parameters, require_any(found), strict=True)
            if gradient is not None
        }

    def general(self, norms: Mapping[str, Observed]) -> Subject:
        """Return a subject at no special point, whose normalizations have hardly an ε."""
        model = copy.deepcopy(self.step.model)
        small = float(torch.finfo(self.dtype).eps) ** 0.75
        for name, module in model.named_modules():
            if isinstance(module, NORMS) and module.eps is not None:
                variance = norms[name].variance.mean().item() if name in norms else 1.0
                module.eps = min(module.eps, small * variance) or small
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                _generalize(parameter, generator)
        return replace(self, step=Step(model, self.step.loss))

    def enlarged(self) -> Subject:
        """Return a subject with a batch of eight samples at least."""
        n = n_samples(self.batch)
        return replace(self, batch=convert(self.batch, lambda v: _enlarge(v, n)))


def _generalize(parameter: Tensor, generator: torch.Generator) -> None:
    """Replace a constant tensor by a general one near it."""
    if parameter.numel() == 0 or bool((parameter != parameter.flatten()[0]).any()):
        return
    noise = torch.randn(parameter.shape, generator=generator).to(parameter)
    value = float(parameter.flatten()[0])
    width = 1.0 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
    tiny = abs(value) < 0.01
    parameter += 0.5 * width * noise if tiny else 0.1 * value * noise


def _enlarge(value: Tensor, n: int) -> Tensor:
    """Return a tensor of at least eight samples: repeated, numbers with some noise."""
    if n >= ENOUGH or not value.ndim:
        return value
    value = value.repeat(-(-ENOUGH // n), *[1] * (value.ndim - 1))
    if value.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(value[n:].shape, generator=generator).to(value)
        value[n:] += 0.3 * (float(value.std()) or 1.0) * noise
    return value
