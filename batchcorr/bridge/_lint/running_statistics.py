r"""Running statistics that are missing, not learnt, stale, or far from the data.

Evaluation is only as good as they are. They are far when they differ from the batch by
more than half a standard deviation, or a factor of two in variance, and by more than three
standard errors: those of N independent samples, whose positions are not replicates,

    (x̄_c - running mean_c) / sd_c,     log(running variance_c / v_c),

root mean squares over channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.bridge._lint.observation import Observed

__all__ = ["find_bad_statistics"]

SHIFT, RATIO, ERRORS = 0.5, 2.0, 3.0
"""What is far: standard deviations, a factor of the variance, standard errors."""

_RECALIBRATE = "take them anew from the data it is used on (bridge.recalibrate)"


@dataclass(frozen=True)
class _Distance:
    """Distances of running statistics from a batch, with what chance alone gives."""

    shift: float
    shift_error: float
    log_ratio: float
    log_ratio_error: float

    @property
    def is_far(self) -> bool:
        return (
            self.shift > max(SHIFT, ERRORS * self.shift_error)
        ) or self.log_ratio > max(math.log(RATIO), ERRORS * self.log_ratio_error)

    @property
    def words(self) -> str:
        return (
            f"running means are {self.shift:.2g} standard deviations from the batch's "
            f"(chance: {self.shift_error:.2g}), variances a factor of "
            f"{math.exp(self.log_ratio):.2g} (chance: {math.exp(self.log_ratio_error):.2g})"
        )

    @property
    def numbers(self) -> dict[str, float]:
        return {"shift": self.shift, "variance_factor": math.exp(self.log_ratio)}


def find_bad_statistics(norms: Mapping[str, Observed]) -> list[Finding]:
    """Return the BatchNorm layers whose statistics will not serve evaluation."""
    found = (_find(name, one) for name, one in norms.items())
    return [finding for finding in found if finding is not None]


def _find(name: str, one: Observed) -> Finding | None:
    norm = one.norm
    if norm.running_mean is None or norm.running_var is None:
        return _finding(
            name,
            "It keeps no running statistics (track_running_stats=False): in evaluation "
            "a prediction depends on what else is in the batch.",
            {"tracked": 0.0},
            "Keep them, unless batches are large and alike wherever it is used.",
        )
    updates = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    distance = _distance(one)
    if not norm.training:
        return _find_frozen(name, one, distance)
    if norm.momentum == 0:
        return _finding(
            name,
            "Its momentum is 0: running statistics never move from where they are; "
            f"{distance.words}.",
            {"momentum": 0.0, **distance.numbers},
            "Give it a momentum, 0.1 say, or None for a plain average.",
        )
    memory = 0.0 if norm.momentum is None else (1 - norm.momentum) ** updates
    if updates and memory < 0.01 and distance.is_far:
        return _finding(
            name,
            f"After {updates} updates the {distance.words}.",
            {"updates": float(updates), **distance.numbers},
            f"The weights changed or the data did: {_RECALIBRATE}.",
        )
    return None


def _find_frozen(name: str, one: Observed, distance: _Distance) -> Finding | None:
    mean, variance = statistics_of(one.norm)
    if bool((mean == 0).all()) and bool((variance == 1).all()):
        return _finding(
            name,
            "It is in evaluation mode with the statistics it was built with, mean 0 and "
            f"variance 1, and normalizes nothing; {distance.words}.",
            {"updates": 0.0, **distance.numbers},
            "Train it, or load statistics before it is frozen.",
        )
    if one.learns_before:
        return _finding(
            name,
            "It is in evaluation mode while layers before it are trained, so that its "
            f"statistics go stale; {distance.words}.",
            {"frozen": 1.0, **distance.numbers},
            "Let it train with the rest, or freeze what comes before it as well.",
        )
    if distance.is_far:
        return _finding(
            name,
            f"It is frozen with all before it, but {distance.words}.",
            {"frozen": 1.0, **distance.numbers},
            f"These data are not those it learnt on: {_RECALIBRATE}.",
        )
    return None


def _finding(
    name: str, message: str, evidence: dict[str, float], remedy: str
) -> Finding:
    return Finding("running-statistics", name, message, evidence, remedy)


def _distance(one: Observed) -> _Distance:
    """Return how far the running statistics are from those of what came in."""
    mean, variance = statistics_of(one.norm)
    inputs = [
        x.double().flatten(2) if x.ndim > 2 else x.double()[:, :, None]
        for x in one.inputs
    ]
    means = torch.cat([x.mean(2) for x in inputs])
    centre = means.mean(0)
    squares = torch.cat([(x - centre[:, None]).square().mean(2) for x in inputs])
    own = squares.mean(0) + one.norm.eps
    shift = (centre - mean) / own.sqrt()
    log_ratio = ((variance + one.norm.eps) / own).log()
    n = len(means)
    if n < 2:
        return _Distance(_rms(shift), math.inf, _rms(log_ratio), math.inf)
    return _Distance(
        shift=_rms(shift),
        shift_error=_rms(means.std(0) / own.sqrt()) / n**0.5,
        log_ratio=_rms(log_ratio),
        log_ratio_error=_rms(squares.std(0) / own) / n**0.5,
    )


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())
