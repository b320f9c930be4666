r"""What each BatchNorm meets in one training step.

Running statistics are far from it when they differ by more than half a standard
deviation, or a factor of two in variance, and by more than three standard errors: those
of N independent samples, whose positions are not replicates,

    (x̄_c - running mean_c) / sd_c,     log(running variance_c / v_c),

root mean squares over channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.bridge._intercept import Intercept
from batchcorr.bridge._norms import batch_norms, statistics_of
from batchcorr.bridge._running import hooked, input_of, random_states, seeded, wide
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._step import Step

__all__ = ["Distance", "Observed", "observe"]

SHIFT, RATIO, ERRORS = 0.5, 2.0, 3.0
"""What is far: standard deviations, a factor of the variance, standard errors."""


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
        positions = wide(x.detach()).reshape(samples, x.shape[1], -1)
        mean = positions.mean(2)
        self.means.append(mean)
        self.variances.append((positions - mean[:, :, None]).square_().mean(2))


def observe(step: Step, batch: Any) -> tuple[dict[str, Observed], bool]:
    """What each BatchNorm that is called meets, and whether random numbers are drawn."""
    norms = batch_norms(step.model, needed=False)
    found = {norm: Observed(norm) for norm in norms.values()}

    def note(norm: Any, args: Any, kwargs: Any) -> None:
        found[norm].add(input_of(args, kwargs))

    with hooked(norms.values(), before=note), seeded(step.devices), Intercept():
        before = random_states(step.devices)
        step(batch)
        after = random_states(step.devices)
    draws = not all(torch.equal(before[device], after[device]) for device in before)
    return {
        name: found[norm] for name, norm in norms.items() if found[norm].rows
    }, draws


class Distance(NamedTuple):
    """Distances of running statistics from a batch, with what chance alone gives."""

    shift: float
    shift_error: float
    log_ratio: float
    log_ratio_error: float

    @classmethod
    def of(cls, one: Observed) -> Distance:
        """How far the running statistics are from those of what came in."""
        mean, variance = statistics_of(one.norm)
        means = torch.cat(one.means)
        centre = means.mean(0)
        squares = torch.cat(one.variances) + (means - centre).square()
        own = squares.mean(0) + one.norm.eps
        n = len(means)

        def error(each: Tensor) -> float:
            return _rms(each.std(0)) / n**0.5 if n > 1 else math.inf

        return cls(
            shift=_rms((centre - mean) / own.sqrt()),
            shift_error=error(means / own.sqrt()),
            log_ratio=_rms(((variance + one.norm.eps).clamp_min(1e-300) / own).log()),
            log_ratio_error=error(squares / own),
        )

    @property
    def is_far(self) -> bool:
        return self.shift > max(SHIFT, ERRORS * self.shift_error) or (
            self.log_ratio > max(math.log(RATIO), ERRORS * self.log_ratio_error)
        )

    @property
    def numbers(self) -> dict[str, float]:
        return {"shift": self.shift, "variance_factor": _factor(self.log_ratio)}

    @property
    def words(self) -> str:
        return (
            f"running means are {self.shift:.2g} standard deviations from the batch's "
            f"(chance: {self.shift_error:.2g}), variances a factor of "
            f"{_factor(self.log_ratio):.2g} (chance: {_factor(self.log_ratio_error):.2g})"
        )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _factor(log_ratio: float) -> float:
    return math.exp(min(log_ratio, 700))
