r"""What is read off an observation: too few values, statistics that do not serve.

For m normal values of variance σ², normalized by the sd with divisor m,

    E[1 / sd] · σ = √(m/2) Γ((m - 2)/2) / Γ((m - 1)/2),

1.04 at m = 32, 1.09 at 16, 1.20 at 8, infinite at 2. A tenth is tolerated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from batchcorr.bridge._lint.observation import Distance
from batchcorr.bridge._lint.result import Finding
from batchcorr.bridge._norms import statistics_of
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.bridge._lint.observation import Observed

__all__ = ["find_bad_statistics", "find_small_batches", "inflation"]

TOLERATED = 0.1
"""By how much 1/sd may be too large on average."""

RECALIBRATE = "take them anew from the data it is used on (bridge.recalibrate)"


# -- sizes -----------------------------------------------------------------------------


def inflation(rows: int) -> float:
    """E[1 / sd] · σ - 1 for normal values."""
    if rows <= 2:
        return math.inf
    log_ratio = math.lgamma((rows - 2) / 2) - math.lgamma((rows - 1) / 2)
    return math.sqrt(rows / 2) * math.exp(log_ratio) - 1


def find_small_batches(norms: Mapping[str, Observed], n: int) -> list[Finding]:
    """The BatchNorm layers that meet one sample, or too few values per channel.

    One sample has no variance; one with positions is normalized by itself in training, as
    InstanceNorm does, and in evaluation by an average over samples: another function.
    """
    findings = []
    for name, one in norms.items():
        rows, excess = one.rows, inflation(one.rows)
        if not one.norm.training and one.norm.running_mean is not None:
            continue
        if rows == 1 or (n == 1 and one.samples == 1):
            rule, evidence = (
                "batch-of-one",
                {"rows": float(rows), "samples": float(one.samples)},
            )
            message = (
                "It gets one value per channel, which has no variance: torch refuses to "
                "train it."
                if rows == 1
                else f"It gets one sample, of {rows} positions: training normalizes each "
                "sample by itself, evaluation all by the same statistics."
            )
            remedy = (
                "Use larger batches (drop_last=True in the DataLoader, if it is the last "
                "one that is small), or GroupNorm, or freeze the layer with .eval()."
            )
        elif excess > TOLERATED:
            rule, evidence = "small-batch", {"rows": rows, "inflation": excess}
            message = (
                f"It gets {rows} values per channel, with which 1/sd is {excess:.0%} too "
                f"large on average for normal values; {TOLERATED:.0%} are tolerated, "
                "which takes 15 values."
            )
            remedy = (
                "Use larger micro-batches (accumulate.check measures what they cost, "
                "accumulate.exact undoes it), or GroupNorm."
            )
        else:
            continue
        findings.append(Finding(rule, name, message, evidence, remedy))
    return findings


# -- running statistics ----------------------------------------------------------------


class _Said(NamedTuple):
    """A message, a number by its name, a remedy and how severe it is."""

    message: str
    evidence: tuple[str, float]
    remedy: str
    severity: str = "fault"


def find_bad_statistics(norms: Mapping[str, Observed]) -> list[Finding]:
    """The BatchNorm layers whose statistics will not serve evaluation."""
    findings = []
    for name, one in norms.items():
        distance = None if one.norm.running_mean is None else Distance.of(one)
        said = _broken(one)
        if said is None and distance is not None:
            said = (_moving if one.norm.training else _frozen)(one, distance)
        if said is not None:
            numbers = dict([said.evidence], **(distance.numbers if distance else {}))
            rest = (said.message, numbers, said.remedy, said.severity)
            findings.append(Finding("running-statistics", name, *rest))
    return findings


def _broken(one: Observed) -> _Said | None:
    """Statistics that are missing or no statistics, and a momentum that cannot learn."""
    norm = one.norm
    if norm.running_mean is None:
        return _Said(
            "It keeps no running statistics (track_running_stats=False): in evaluation "
            "a prediction depends on what else is in the batch.",
            ("tracked", 0.0),
            "Keep them, unless batches are large and alike wherever it is used.",
        )
    mean, variance = statistics_of(norm)
    bad = ~torch.isfinite(mean) | ~torch.isfinite(variance) | (variance < 0)
    if bool(bad.any()):
        return _Said(
            f"Running statistics of {int(bad.sum())} of {len(bad)} channels are not "
            "finite, or a variance is negative: evaluation gives NaN, and updates cannot "
            "mend it.",
            ("broken_channels", float(bad.sum())),
            "Call .reset_running_stats() and " + RECALIBRATE + "; look for the step "
            "whose activations overflowed, or for who wrote them.",
        )
    momentum = norm.momentum
    if not norm.training or momentum is None or 0 < momentum < 0.99:
        return None
    how = "are those of the last batch"
    if momentum <= 0:
        how = "run away from the data" if momentum else "never move from where they are"
    return _Said(
        f"Its momentum is {momentum:g}: running statistics {how}.",
        ("momentum", float(momentum)),
        "Give it a momentum, 0.1 say, or None for a plain average. Elsewhere 0.9 or "
        "0.99 is the share of the old statistics; in torch it is that of the new.",
    )


def _frozen(one: Observed, distance: Distance) -> _Said | None:
    """A layer in evaluation mode that does not fit what comes in."""
    mean, variance = statistics_of(one.norm)
    if bool((mean == 0).all()) and bool((variance == 1).all()):
        return _Said(
            "It is in evaluation mode with the statistics it was built with, mean 0 and "
            f"variance 1, and normalizes nothing; {distance.words}.",
            ("updates", 0.0),
            "Train it, or load statistics before it is frozen.",
        )
    if one.learns_before:
        return _Said(
            "It is in evaluation mode while layers before it are trained, so that its "
            f"statistics go stale; {distance.words}.",
            ("frozen", 1.0),
            "Let it train with the rest, or freeze what comes before it as well.",
            "fault" if distance.is_far else "note",
        )
    if distance.is_far:
        return _Said(
            f"It is frozen with all before it, but {distance.words}.",
            ("frozen", 1.0),
            f"These data are not those it learnt on: {RECALIBRATE}.",
        )
    return None


def _moving(one: Observed, distance: Distance) -> _Said | None:
    """A layer in training mode whose statistics are stale, or move though it is frozen."""
    norm = one.norm
    trained = norm.weight is None or norm.weight.requires_grad or one.learns_before
    if not trained:
        return _Said(
            "It and all before it are frozen (requires_grad=False), but it is in "
            "training mode: it normalizes by the batch, and its running statistics "
            "still move.",
            ("frozen", 0.0),
            "Call .eval() on the frozen part after model.train(), in every epoch.",
        )
    updates = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    memory = 0.0 if norm.momentum is None else (1 - norm.momentum) ** updates
    if updates and memory < 0.01 and distance.is_far:
        return _Said(
            f"After {updates} updates the {distance.words}.",
            ("updates", float(updates)),
            f"The weights changed or the data did: {RECALIBRATE}.",
        )
    return None
