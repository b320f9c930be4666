"""What every BatchNorm of a model meets in one training step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F  # noqa: N812

from batchcorr.bridge._intercept import Call, Intercept
from batchcorr.bridge._norms import batch_norms
from batchcorr.bridge._running import hooked, input_of, seeded
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._step import Step

__all__ = ["Observed", "Unmoved", "observe"]


class Unmoved(Intercept):
    """Normalizes by the batch and leaves the running statistics alone."""

    def answer(self, call: Call) -> Tensor:
        """The output of a call; torch refuses one value per channel."""
        x = call.input
        if x.numel() <= x.shape[1]:
            return super().answer(call)
        return F.batch_norm(
            x, None, None, call.weight, call.bias, training=True, eps=call.eps
        )


@dataclass
class Observed:
    """What one BatchNorm was called with.

    Attributes
    ----------
    norm
        The layer, in the copy.
    rows, samples
        Values per channel and length of the first axis in the smallest call.
    means, variances
        Mean and variance of each sample and channel over positions, call by call.
    learns_before
        Whether an input depends on something that is trained.
    """

    norm: _BatchNorm
    rows: int = 0
    samples: int = 0
    means: list[Tensor] = field(default_factory=list)
    variances: list[Tensor] = field(default_factory=list)
    learns_before: bool = False

    def add(self, x: Tensor) -> None:
        """Look at the input of a call."""
        rows, samples = x.numel() // x.shape[1], int(x.shape[0])
        self.rows = min(self.rows or rows, rows)
        self.samples = min(self.samples or samples, samples)
        self.learns_before |= x.requires_grad
        positions = x.detach().double().reshape(samples, x.shape[1], -1)
        variance, mean = torch.var_mean(positions, dim=2, correction=0)
        self.means.append(mean)
        self.variances.append(variance)

    @property
    def by_batch(self) -> bool:
        """Whether it normalizes by the batch, not by frozen statistics."""
        return self.norm.training or self.norm.running_mean is None

    @property
    def deviations(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean of each channel (C,); each sample's mean and square about it: (N, C)."""
        means, variances = torch.cat(self.means), torch.cat(self.variances)
        centre = means.mean(0)
        return centre, means, variances + (means - centre).square()


def observe(step: Step, batch: Any) -> dict[str, Observed]:
    """What each BatchNorm that is called meets in one step, by name."""
    norms = batch_norms(step.model, needed=False)
    found = {id(norm): Observed(norm) for norm in norms.values()}

    def note(norm: nn.Module, args: Any, kwargs: Any) -> None:
        found[id(norm)].add(input_of(args, kwargs))

    with hooked(norms.values(), before=note), seeded(step.devices), Unmoved():
        step(batch)
    return {
        name: found[id(norm)] for name, norm in norms.items() if found[id(norm)].rows
    }
