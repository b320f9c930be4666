r"""A copy of the model to experiment on: as it is, and one at no special point.

Symmetries are exact in exact arithmetic. On the general copy, in float64, they stand out
from rounding, because the ε of its normalizations are next to nothing beside the
variances; and they are those of the network rather than of a moment in its life, because
constant tensors (γ = 0 in a residual branch, biases of zero) are replaced by general ones.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from batchcorr.bridge._batches import leaves, map_tensors, n_samples, take
from batchcorr.bridge._intercept import Quiet
from batchcorr.bridge._lint.observed import Observed, Unmoved
from batchcorr.bridge._running import hooked, seeded
from batchcorr.bridge._step import Step
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

__all__ = ["NORMS", "Subject", "copied"]

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Layers with an ε; `_NormBase` is that of BatchNorm and InstanceNorm."""

FEW = 8
"""Samples that make a batch general: fewer are repeated with noise."""


class _OneProcess(_BatchNorm):
    """A SyncBatchNorm on one process: BatchNorm of any number of axes."""

    def _check_input_dim(self, input: Tensor) -> None:
        del input


class _Counting(Quiet):
    """Lets random layers draw, and counts them."""

    def answer(
        self, number: int, drawn: Callable[[], Any], still: Callable[[], Any]
    ) -> Any:
        """What a random function gives."""
        del number, still
        return drawn()


def copied(step: Step) -> Step:
    """The step of a copy of the model, SyncBatchNorm on one process.

    Raises
    ------
    InputError
        If the model cannot be copied.
    """
    try:
        own = copy.deepcopy(step.model)
    except RuntimeError as error:
        msg = f"The model cannot be copied to experiment on: {error}"
        raise InputError(msg) from error
    for module in own.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = _OneProcess  # type: ignore[assignment]
    own.zero_grad()
    return Step(own, step.loss)


@dataclass(frozen=True)
class Subject:
    """The step of a copy that may be changed, and the batch it is tried on."""

    step: Step
    batch: Any

    @classmethod
    def of(
        cls, step: Step, batch: Any, norms: Mapping[str, Observed], *, general: bool
    ) -> Subject:
        """A subject in float64, or in float32 where the model or loss insist on it.

        Parameters
        ----------
        step, batch
            The step of a copy.
        norms
            What its BatchNorms meet.
        general
            Whether it is to be at no special point, on eight samples; else the weights
            are those of the model, on eight samples at least.
        """
        n = n_samples(batch)
        whole = batch if n >= FEW else map_tensors(batch, lambda x: _enlarged(x, n))
        few = take(batch, torch.arange(FEW)) if n > FEW and general else whole
        for dtype, samples in ((torch.float64, few), (torch.float64, whole)):
            subject = cls._in(dtype, step, samples, norms, general=general)
            try:
                _ = subject.gradients
            except (RuntimeError, InputError):
                # Something in the model or the loss is written for its dtype, or for
                # the size of the batch.
                continue
            return subject
        return cls._in(torch.float32, step, whole, norms, general=general)

    @classmethod
    def _in(
        cls,
        dtype: torch.dtype,
        step: Step,
        batch: Any,
        norms: Mapping[str, Observed],
        *,
        general: bool,
    ) -> Subject:
        model = copy.deepcopy(step.model).to(dtype)
        if general:
            _generalize(model, norms, dtype)

        def cast(value: Tensor) -> Tensor:
            value = value.detach()
            return value.to(dtype) if value.is_floating_point() else value

        return cls(Step(model, step.loss), map_tensors(batch, cast))

    @property
    def tolerance(self) -> float:
        """Half the digits of the dtype: below it a change is none."""
        dtype = next(iter(self.step.parameters.values())).dtype
        return math.sqrt(torch.finfo(dtype).eps)

    def run(
        self, mode: AbstractContextManager[Any] | None = None, seed: int = 0
    ) -> list[Tensor]:
        """The loss, then the model's outputs; a seed always draws the same."""
        outputs: list[Tensor] = []
        with seeded(self.step.devices, seed), mode or Unmoved():
            loss = self.step(self.batch, outputs)
        return [loss, *(out for out in outputs if out.is_floating_point())]

    def change(self, values: Mapping[str, Tensor]) -> float:
        """How much loss and outputs change with other values of parameters, relatively.

        It is infinite where it cannot be told: nothing is finite then, or all zero.
        """
        with torch.no_grad():
            before = self.before
            kept = {name: self.step.parameters[name].clone() for name in values}
            for name, value in values.items():
                self.step.parameters[name].copy_(value)
            after = self.run()
            for name, value in kept.items():
                self.step.parameters[name].copy_(value)
            changes = [
                float((new - old).abs().max() / old.abs().max())
                for old, new in zip(before, after, strict=True)
                if bool(old.any())
            ]
        finite = bool(changes) and all(math.isfinite(value) for value in changes)
        return max(changes) if finite else math.inf

    @cached_property
    def _first(self) -> tuple[list[Tensor], tuple[Tensor | None, ...], int]:
        """Loss and outputs, the gradient, and how many random layers there are."""
        with _Counting() as counting:
            loss, *outputs = self.run()
        gradients = self.step.gradients(loss)
        before = [value.detach() for value in (loss, *outputs)]
        return before, gradients, counting.draws

    @property
    def before(self) -> list[Tensor]:
        """Loss and outputs as they are."""
        return self._first[0]

    @property
    def is_random(self) -> bool:
        """Whether the model draws random numbers."""
        return self._first[2] > 0

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the trainable parameters that the loss depends on."""
        pairs = zip(self.step.parameters, self._first[1], strict=True)
        return {name: gradient for name, gradient in pairs if gradient is not None}

    @cached_property
    def sizes(self) -> dict[str, float]:
        """Root mean square of what each module with parameters of its own gives."""
        sizes: dict[str, float] = {}
        owners = {name.rpartition(".")[0] for name in self.step.parameters}
        names = {id(self.step.model.get_submodule(owner)): owner for owner in owners}

        def note(module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
            floats = [value for value in leaves(output) if value.is_floating_point()]
            size = max((float(v.square().mean().sqrt()) for v in floats), default=0.0)
            name = names[id(module)]
            sizes[name] = max(size, sizes.get(name, 0.0))

        modules = [self.step.model.get_submodule(owner) for owner in owners]
        with torch.no_grad(), hooked(modules, after=note):
            self.run()
        return sizes


def _generalize(
    model: nn.Module, norms: Mapping[str, Observed], dtype: torch.dtype
) -> None:
    """Take all ε down to next to nothing, and constant tensors off their point."""
    small = float(torch.finfo(dtype).eps) ** 0.75
    for name, module in model.named_modules():
        if isinstance(module, NORMS) and module.eps is not None:
            variance = 1.0
            if name in norms:
                variance = float(norms[name].deviations[2].mean())
            module.eps = min(module.eps, small * variance) or small
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                value = float(parameter.flatten()[0])
                width = 1.0 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                tiny = abs(value) < 0.01
                parameter.add_(noise, alpha=0.5 * width if tiny else 0.1 * value)


def _enlarged(value: Tensor, n: int) -> Tensor:
    """A tensor of at least eight samples: repeated, numbers with some noise."""
    if not value.ndim:
        return value
    value = value.repeat(-(-FEW // n), *[1] * (value.ndim - 1))
    if value.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(value[n:].shape, generator=generator).to(value)
        value[n:] += 0.3 * (float(value.std()) or 1.0) * noise
    return value
