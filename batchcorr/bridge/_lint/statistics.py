r"""Running statistics: broken, frozen, moving where they should not, far from the data.

They are far when they differ from the batch by more than half a standard deviation, or a
factor of two in variance, and by more than three standard errors: those of N independent
samples, whose positions are not replicates,

    (x̄_c - running mean_c) / sd_c,     log(running variance_c / v_c),

root mean squares over channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.bridge._intercept import Intercept
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import batch_norms, statistics_of
from batchcorr.bridge._running import hooked, input_of, seeded
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.nn.modules.batchnorm import _BatchNorm

    from batchcorr.bridge._step import Step

__all__ = ["Observed", "find_bad_statistics", "observe"]

SHIFT, RATIO, ERRORS = 0.5, 2.0, 3.0
"""What is far: standard deviations, a factor of the variance, standard errors."""

RECALIBRATE = "take them anew from the data it is used on (bridge.recalibrate)"


# -- what comes into each BatchNorm ------------------------------------------------------


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


def observe(step: Step, batch: Any) -> dict[str, Observed]:
    """What each BatchNorm that is called meets in one step, by name."""
    norms = batch_norms(step.model, needed=False)
    found = {norm: Observed(norm) for norm in norms.values()}

    def note(norm: Any, args: Any, kwargs: Any) -> None:
        found[norm].add(input_of(args, kwargs))

    with hooked(norms.values(), before=note), seeded(step.devices), Intercept():
        step(batch)
    return {name: found[norm] for name, norm in norms.items() if found[norm].rows}


# -- running statistics ----------------------------------------------------------------


def find_bad_statistics(norms: Mapping[str, Observed]) -> list[Finding]:
    """The BatchNorm layers whose statistics will not serve evaluation."""
    findings = []
    for name, one in norms.items():
        distance = _Distance.of(one) if one.norm.running_mean is not None else None
        said = _broken(one) or _frozen(one, distance) or _moving(one, distance)
        if said is not None:
            message, evidence, remedy, severity = said
            numbers = dict(evidence, **(distance.numbers if distance else {}))
            findings.append(
                Finding("running-statistics", name, message, numbers, remedy, severity)
            )
    return findings


class _Said(NamedTuple):
    """A message, its numbers, a remedy and how severe it is."""

    message: str
    evidence: dict[str, float]
    remedy: str
    severity: str = "fault"


class _Distance(NamedTuple):
    """Distances of running statistics from a batch, with what chance alone gives."""

    shift: float
    shift_error: float
    log_ratio: float
    log_ratio_error: float

    @classmethod
    def of(cls, one: Observed) -> _Distance:
        """How far the running statistics are from those of what came in."""
        mean, variance = statistics_of(one.norm)
        means = torch.cat(one.means)
        centre = means.mean(0)
        squares = torch.cat(one.variances) + (means - centre).square()
        own = squares.mean(0) + one.norm.eps
        shift = (centre - mean.to(own)) / own.sqrt()
        log_ratio = ((variance.to(own) + one.norm.eps).clamp_min(1e-300) / own).log()
        n = len(means)
        if n < 2:
            return cls(_rms(shift), math.inf, _rms(log_ratio), math.inf)
        return cls(
            shift=_rms(shift),
            shift_error=_rms(means.std(0) / own.sqrt()) / n**0.5,
            log_ratio=_rms(log_ratio),
            log_ratio_error=_rms(squares.std(0) / own) / n**0.5,
        )

    @property
    def is_far(self) -> bool:
        return self.shift > max(SHIFT, ERRORS * self.shift_error) or (
            self.log_ratio > max(math.log(RATIO), ERRORS * self.log_ratio_error)
        )

    @property
    def words(self) -> str:
        return (
            f"running means are {self.shift:.2g} standard deviations from the batch's "
            f"(chance: {self.shift_error:.2g}), variances a factor of "
            f"{math.exp(min(self.log_ratio, 700)):.2g} (chance: "
            f"{math.exp(min(self.log_ratio_error, 700)):.2g})"
        )

    @property
    def numbers(self) -> dict[str, float]:
        ratio = math.exp(min(self.log_ratio, 700))
        return {"shift": self.shift, "variance_factor": ratio}


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _broken(one: Observed) -> _Said | None:
    """Statistics that are missing or no statistics, and a momentum that cannot learn."""
    norm = one.norm
    if norm.running_mean is None or norm.running_var is None:
        return _Said(
            "It keeps no running statistics (track_running_stats=False): in evaluation "
            "a prediction depends on what else is in the batch.",
            {"tracked": 0.0},
            "Keep them, unless batches are large and alike wherever it is used.",
        )
    mean, variance = statistics_of(norm)
    bad = ~torch.isfinite(mean) | ~torch.isfinite(variance) | (variance < 0)
    if bool(bad.any()):
        return _Said(
            f"Running statistics of {int(bad.sum())} of {len(bad)} channels are not "
            "finite, or a variance is negative: evaluation gives NaN, and updates cannot "
            "mend it.",
            {"broken_channels": float(bad.sum())},
            "Call .reset_running_stats() and " + RECALIBRATE + "; look for the step "
            "whose activations overflowed, or for who wrote them.",
        )
    momentum = norm.momentum
    if not norm.training or momentum is None or 0 < momentum < 0.99:
        return None
    what = {True: "never move from where they are", False: "run away from the data"}
    how = what[momentum == 0] if momentum <= 0 else "are those of the last batch"
    return _Said(
        f"Its momentum is {momentum:g}: running statistics {how}.",
        {"momentum": float(momentum)},
        "Give it a momentum, 0.1 say, or None for a plain average. Elsewhere 0.9 or "
        "0.99 is the share of the old statistics; in torch it is that of the new.",
    )


def _frozen(one: Observed, distance: _Distance | None) -> _Said | None:
    """A layer in evaluation mode that does not fit what comes in."""
    if one.norm.training or distance is None:
        return None
    mean, variance = statistics_of(one.norm)
    if bool((mean == 0).all()) and bool((variance == 1).all()):
        return _Said(
            "It is in evaluation mode with the statistics it was built with, mean 0 and "
            f"variance 1, and normalizes nothing; {distance.words}.",
            {"updates": 0.0},
            "Train it, or load statistics before it is frozen.",
        )
    if one.learns_before:
        return _Said(
            "It is in evaluation mode while layers before it are trained, so that its "
            f"statistics go stale; {distance.words}.",
            {"frozen": 1.0},
            "Let it train with the rest, or freeze what comes before it as well.",
            "fault" if distance.is_far else "note",
        )
    if distance.is_far:
        return _Said(
            f"It is frozen with all before it, but {distance.words}.",
            {"frozen": 1.0},
            f"These data are not those it learnt on: {RECALIBRATE}.",
        )
    return None


def _moving(one: Observed, distance: _Distance | None) -> _Said | None:
    """A layer in training mode whose statistics are stale, or move though it is frozen."""
    norm = one.norm
    if not norm.training or distance is None:
        return None
    if (
        norm.weight is not None
        and not norm.weight.requires_grad
        and not one.learns_before
    ):
        return _Said(
            "It and all before it are frozen (requires_grad=False), but it is in "
            "training mode: it normalizes by the batch, and its running statistics "
            "still move.",
            {"frozen": 0.0},
            "Call .eval() on the frozen part after model.train(), in every epoch.",
        )
    updates = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    memory = 0.0 if norm.momentum is None else (1 - norm.momentum) ** updates
    if updates and memory < 0.01 and distance.is_far:
        return _Said(
            f"After {updates} updates the {distance.words}.",
            {"updates": float(updates)},
            f"The weights changed or the data did: {RECALIBRATE}.",
        )
    return None
