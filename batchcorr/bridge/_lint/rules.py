r"""What is read off an observation: too few values, statistics that do not serve.

For m normal values of variance σ², normalized by the sd with divisor m,

    E[1 / sd] · σ = √(m/2) Γ((m - 2)/2) / Γ((m - 1)/2),

1.04 at m = 32, 1.09 at 16, 1.20 at 8, infinite at 2. A tenth is tolerated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from batchcorr.bridge._lint.norms import Distance
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._combat_norm import ComBatNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchcorr.bridge._lint.norms import Observed
    from batchcorr.bridge._lint.result import Finding

__all__ = ["find_faults", "inflation"]

TOLERATED = 0.1
"""By how much 1/sd may be too large on average."""

RECALIBRATE = "take them anew from the data it is used on (bridge.recalibrate)"


def find_faults(seen: Sequence[Observed], n: int) -> list[Finding]:
    """What the rules say of layers in a batch of n samples, once of each layer."""
    found: dict[tuple[str, str], Finding] = {}
    said = [*(_too_few(one, n) for one in seen), *(_statistics(one) for one in seen)]
    for finding in said:
        if finding is not None:
            found.setdefault((finding.rule, finding.layer), finding)
    return list(found.values())


def inflation(rows: int) -> float:
    """E[1 / sd] · σ - 1 for normal values."""
    if rows <= 2:
        return math.inf
    log_ratio = math.lgamma((rows - 2) / 2) - math.lgamma((rows - 1) / 2)
    return math.sqrt(rows / 2) * math.exp(log_ratio) - 1


def _too_few(one: Observed, n: int) -> Finding | None:
    """One sample, or too few values per channel.

    One sample has no variance; one with positions is normalized by itself in training, as
    InstanceNorm does, and in evaluation by an average over samples: another function.
    """
    rows, excess = one.rows, inflation(one.rows)
    frozen = not one.norm.training and one.norm.running_mean is not None
    if frozen or isinstance(one.norm, ComBatNorm):  # which is made for few
        return None
    if rows == 1 or (n == 1 and one.samples == 1):
        message = (
            f"It gets one sample, of {rows} positions: training normalizes each sample "
            "by itself, evaluation all by the same statistics."
            if rows > 1
            else "It gets one value per channel, which has no variance: torch refuses to "
            "train it."
        )
        remedy = (
            "Use larger batches (drop_last=True in the DataLoader, if it is the last one "
            "that is small), or GroupNorm, or freeze the layer with .eval()."
        )
        numbers = {"rows": float(rows), "samples": float(one.samples)}
        return one.finding("batch-of-one", message, numbers, remedy)
    if excess > TOLERATED:
        message = (
            f"It gets {rows} values per channel, with which 1/sd is {excess:.0%} too "
            f"large on average for normal values; {TOLERATED:.0%} are tolerated, which "
            "takes 15 values."
        )
        remedy = (
            "Use larger micro-batches (accumulate.check measures what they cost, "
            "accumulate.exact undoes it for torch's own), or GroupNorm."
        )
        numbers = {"rows": rows, "inflation": excess}
        return one.finding("small-batch", message, numbers, remedy)
    return None


class _Said(NamedTuple):
    """What to say of statistics, with places for numbers, and a remedy."""

    message: str
    remedy: str


SAID = {
    "untracked": _Said(
        "It keeps no running statistics (track_running_stats=False): in evaluation a "
        "prediction depends on what else is in the batch.",
        "Keep them, unless batches are large and alike wherever it is used.",
    ),
    "broken": _Said(
        "Running statistics of {number:g} of {channels} channels are not finite, or a "
        "variance is negative: evaluation gives NaN, and updates cannot mend it.",
        f"Call .reset_running_stats() and {RECALIBRATE}; look for the step whose "
        "activations overflowed, or for who wrote them.",
    ),
    "momentum": _Said(
        "With a momentum of {number:g} running statistics do not follow the data: up to 0 "
        "they stay or run away, from 0.99 on they are those of the last batch.",
        "Give it a momentum, 0.1 say, or None for a plain average. Elsewhere 0.9 or 0.99 "
        "is the share of the old statistics; in torch it is that of the new.",
    ),
    "moving": _Said(
        "It and all before it are frozen (requires_grad=False), but it is in training "
        "mode: it normalizes by the batch, and its running statistics still move.",
        "Call .eval() on the frozen part after model.train(), in every epoch.",
    ),
    "far": _Said(
        "After {number:g} updates the {distance}.",
        f"The weights changed or the data did: {RECALIBRATE}.",
    ),
    "as built": _Said(
        "It is in evaluation mode with the statistics it was built with, mean 0 and "
        "variance 1, and normalizes nothing; {distance}.",
        "Train it, or load statistics before it is frozen.",
    ),
    "stale": _Said(
        "It is in evaluation mode while layers before it are trained, so that its "
        "statistics go stale; {distance}.",
        "Let it train with the rest, or freeze what comes before it as well.",
    ),
    "other data": _Said(
        "It is frozen with all before it, but {distance}.",
        f"These data are not those it learnt on: {RECALIBRATE}.",
    ),
}


def _statistics(one: Observed) -> Finding | None:
    """Running statistics that will not serve evaluation: the first fault there is."""
    norm, rule = one.norm, "running-statistics"
    if norm.running_mean is None:
        message, remedy = SAID["untracked"]
        return one.finding(rule, message, {"tracked": 0.0}, remedy)
    mean, variance = statistics_of(norm)
    distance, momentum = Distance.of(one), norm.momentum
    broken = ~torch.isfinite(mean) | ~torch.isfinite(variance) | (variance < 0)
    rate = 0.1 if momentum is None else momentum
    if broken.any():
        case, name, number = "broken", "broken_channels", float(broken.sum())
    elif norm.training:
        trained = norm.weight is None or norm.weight.requires_grad or one.learns_before
        forgotten = momentum is None or (1 - rate) ** one.updates < 0.01
        if not 0 < rate < 0.99:
            case, name, number = "momentum", "momentum", float(rate)
        elif not trained:
            case, name, number = "moving", "frozen", 0.0
        elif one.updates and forgotten and distance.is_far:
            case, name, number = "far", "updates", float(one.updates)
        else:
            return None
    elif bool((mean == 0).all()) and bool((variance == 1).all()):
        case, name, number = "as built", "updates", 0.0
    elif one.learns_before or distance.is_far:
        case = "stale" if one.learns_before else "other data"
        name, number = "frozen", 1.0
    else:
        return None
    message, remedy = SAID[case]
    message = message.format(number=number, channels=len(mean), distance=distance)
    numbers = {name: number, **distance.numbers}
    fits = case == "stale" and not distance.is_far
    return one.finding(rule, message, numbers, remedy, "note" if fits else "fault")
