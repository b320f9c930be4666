r"""What each BatchNorm meets in one training step, and what is wrong with it.

Few values: for m normal values of variance σ², normalized by the sd with divisor m,

    E[1 / sd] · σ = √(m/2) Γ((m - 2)/2) / Γ((m - 1)/2),

1.04 at m = 32, 1.09 at 16, 1.20 at 8, infinite at 2. A tenth is tolerated.

Running statistics are far from a batch when they differ by more than half a standard
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
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import is_batch_norm, statistics_of
from batchcorr.bridge._running import hooked, input_of, random_states, seeded, wide
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._combat_norm import ComBatNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from batchcorr.bridge._step import Step

__all__ = ["Observed", "find_faults", "inflation", "observe"]

TOLERATED = 0.1
"""By how much 1/sd may be too large on average."""

SHIFT, RATIO, ERRORS = 0.5, 2.0, 3.0
"""What is far: standard deviations, a factor of the variance, standard errors."""


# -- what it meets ---------------------------------------------------------------------


@dataclass
class Observed:
    """A BatchNorm of the copy, how often its statistics have moved, and what came in."""

    layer: str
    norm: Any
    updates: int
    inputs: list[Tensor] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Values per channel in the smallest call."""
        return min(x.numel() // x.shape[1] for x in self.inputs)

    @property
    def samples(self) -> int:
        """Samples in the smallest call."""
        return min(map(len, self.inputs))

    @property
    def learns_before(self) -> bool:
        """Whether an input depends on something that is trained."""
        return any(x.requires_grad for x in self.inputs)


def observe(step: Step, batch: Any) -> tuple[list[Observed], bool]:
    """What each BatchNorm that is called meets, and whether random numbers are drawn."""
    seen = {
        norm: Observed(name, norm, int(norm.num_batches_tracked or 0))
        for name, norm in step.model.named_modules()
        if is_batch_norm(norm)
    }

    def note(norm: Any, args: Any, kwargs: Any) -> None:
        seen[norm].inputs.append(input_of(args, kwargs).clone())

    with hooked(seen, before=note), seeded(step.devices), Intercept():
        before = random_states(step.devices)
        step(batch)
        after = random_states(step.devices)
    draws = not all(torch.equal(before[device], after[device]) for device in before)
    return [one for one in seen.values() if one.inputs], draws


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
        samples = [wide(x.detach()).reshape(*x.shape[:2], -1) for x in one.inputs]
        means = torch.cat([x.mean(2) for x in samples])
        within = torch.cat([x.var(2, correction=0) for x in samples])
        centre, n = means.mean(0), len(means)
        squares = within + (means - centre).square()
        own = squares.mean(0) + one.norm.eps

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

    def __str__(self) -> str:
        return (
            f"running means are {self.shift:.2g} standard deviations from the batch's "
            f"(chance: {self.shift_error:.2g}), variances a factor of "
            f"{_factor(self.log_ratio):.2g} (chance: {_factor(self.log_ratio_error):.2g})"
        )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _factor(log_ratio: float) -> float:
    return math.exp(min(log_ratio, 700))


# -- what is wrong ---------------------------------------------------------------------


def find_faults(seen: Sequence[Observed], n: int) -> list[Finding]:
    """What the rules say of layers in a batch of n samples."""
    said = [*(_too_few(one, n) for one in seen), *map(_statistics, seen)]
    return [finding for finding in said if finding is not None]


def inflation(rows: int) -> float:
    """E[1 / sd] · σ - 1 for normal values."""
    if rows <= 2:
        return math.inf
    log_ratio = math.lgamma((rows - 2) / 2) - math.lgamma((rows - 1) / 2)
    return math.sqrt(rows / 2) * math.exp(log_ratio) - 1


def _too_few(one: Observed, n: int) -> Finding | None:
    """One sample, which has no variance but that of its positions, or too few values."""
    numbers: dict[str, float]
    rows, excess = one.rows, inflation(one.rows)
    frozen = not one.norm.training and one.norm.running_mean is not None
    if frozen or isinstance(one.norm, ComBatNorm):  # which is made for few
        return None
    if rows == 1 or (n == 1 and one.samples == 1):
        rule, numbers = "batch-of-one", {"rows": rows, "samples": one.samples}
        message = (
            f"It gets one sample, of {rows} values per channel: training normalizes each "
            "sample by itself (torch refuses a single value), evaluation all alike."
        )
        remedy = (
            "Use larger batches (drop_last=True in the DataLoader, if it is the last one "
            "that is small), or GroupNorm, or freeze the layer with .eval()."
        )
    elif excess > TOLERATED:
        rule, numbers = "small-batch", {"rows": rows, "inflation": excess}
        message = (
            f"It gets {rows} values per channel, with which 1/sd is {excess:.0%} too "
            f"large on average for normal values; {TOLERATED:.0%} are tolerated, which "
            "takes 15 values."
        )
        remedy = (
            "Use larger micro-batches (accumulate.check measures what they cost, "
            "accumulate.exact undoes it for torch's own), or GroupNorm."
        )
    else:
        return None
    return Finding(rule, one.layer, message, numbers, remedy)


def _statistics(one: Observed) -> Finding | None:
    """Running statistics that will not serve evaluation: the first fault there is."""
    norm, anew = one.norm, "take them anew (bridge.recalibrate)"
    severity = "fault"
    numbers: dict[str, float] = {"updates": one.updates}
    if norm.running_mean is None:
        message = (
            "It keeps no running statistics (track_running_stats=False): in evaluation a "
            "prediction depends on what else is in the batch."
        )
        remedy = "Keep them, unless batches are large and alike wherever it is used."
        return Finding("running-statistics", one.layer, message, {}, remedy)
    mean, variance = statistics_of(norm)
    distance, rate = _Distance.of(one), 0.1 if norm.momentum is None else norm.momentum
    trained = norm.weight is None or norm.weight.requires_grad or one.learns_before
    settled = norm.momentum is None or (1 - rate) ** one.updates < 0.01
    used = (one.updates > 0 and settled) or not norm.training
    broken = ~torch.isfinite(mean) | ~torch.isfinite(variance) | (variance < 0)
    if broken.any():
        numbers = {"broken_channels": int(broken.sum())}
        message = (
            f"Running statistics of {broken.sum()} of {len(mean)} channels are not finite, "
            "or a variance is negative: evaluation gives NaN, and updates cannot mend it."
        )
        remedy = (
            f"Call .reset_running_stats() and {anew}; look for the step whose "
            "activations overflowed, or for who wrote them."
        )
    elif norm.training and not 0 < rate < 0.99:
        numbers = {"momentum": rate}
        message = (
            f"With a momentum of {rate:g} running statistics do not follow the data: up "
            "to 0 they stay or run away, from 0.99 on they are those of the last batch."
        )
        remedy = (
            "Give it a momentum, 0.1 say, or None for a plain average. Elsewhere 0.9 or "
            "0.99 is the share of the old statistics; in torch it is that of the new."
        )
    elif norm.training and not trained:
        message = (
            "It and all before it are frozen (requires_grad=False), but it is in training "
            "mode: it normalizes by the batch, and its running statistics still move."
        )
        remedy = "Call .eval() on the frozen part after model.train(), in every epoch."
    elif not norm.training and one.learns_before:
        severity = "fault" if distance.is_far else "note"
        message = (
            "It is in evaluation mode while layers before it are trained, so that its "
            f"statistics go stale; {distance}."
        )
        remedy = "Let it train with the rest, or freeze what comes before it as well."
    elif used and distance.is_far:
        frozen = "" if norm.training else ", in evaluation mode,"
        message = f"After {one.updates} updates{frozen} the {distance}."
        remedy = f"The weights changed, the data did, or it was never trained: {anew}."
    else:
        return None
    numbers = {**numbers, **distance.numbers}
    return Finding("running-statistics", one.layer, message, numbers, remedy, severity)
