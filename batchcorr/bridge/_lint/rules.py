r"""What is read off sizes: minibatches that are too small, and decay that does nothing.

For m normal values of variance σ², normalized by the sd with divisor m,

    E[1 / sd] · σ = √(m/2) Γ((m - 2)/2) / Γ((m - 1)/2),

1.04 at m = 32, 1.09 at 16, 1.20 at 8, infinite at 2. A tenth is tolerated. One sample has
no variance; one with positions is normalized by itself in training, as InstanceNorm does,
and in evaluation by an average over samples, which is another function.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchcorr.bridge._lint.result import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.bridge._lint.statistics import Observed
    from batchcorr.bridge._lint.symmetries import Invariance

__all__ = ["find_decayed_weights", "find_small_batches", "inflation"]

TOLERATED = 0.1
"""By how much 1/sd may be too large on average."""


# -- decay -----------------------------------------------------------------------------


def find_decayed_weights(
    invariant: Mapping[str, Invariance], decay: Mapping[str, float]
) -> list[Finding]:
    """The scale-invariant weights that an optimizer decays: a note, no fault.

    Decay shrinks a length that means nothing, and by that raises the effective learning
    rate of the direction: it is a schedule, which one may want.
    """
    findings = []
    for name in invariant.keys() & decay.keys():
        by_unit, cosine, change = invariant[name]
        how = "each of its output units" if by_unit else "it as a whole"
        message = (
            f"Weight decay of {decay[name]:g} on {name}, whose length means nothing: "
            f"scaling {how} by ¼ to 4 changes loss and outputs by {change:.1e} "
            f"(relative), and the cosine of weight and gradient is {cosine:.1e}. Decay "
            "sets how fast it turns, by about √(2 · learning rate · decay) a step."
        )
        remedy = (
            "Keep it knowingly, as a schedule of the effective learning rate; or give "
            "the optimizer result.parameter_groups(weight_decay=…), where only ordinary "
            "weights decay."
        )
        evidence = {"weight_decay": decay[name], "change": change, "cosine": cosine}
        rule, layer = "decay-on-scale-invariant-weight", name.rpartition(".")[0]
        findings.append(Finding(rule, layer, message, evidence, remedy, "note"))
    order = {name.rpartition(".")[0]: k for k, name in enumerate(invariant)}
    return sorted(findings, key=lambda finding: order[finding.layer])


# -- sizes -----------------------------------------------------------------------------


def inflation(rows: int) -> float:
    """E[1 / sd] · σ - 1 for normal values."""
    if rows <= 2:
        return math.inf
    log_ratio = math.lgamma((rows - 2) / 2) - math.lgamma((rows - 1) / 2)
    return math.sqrt(rows / 2) * math.exp(log_ratio) - 1


def find_small_batches(norms: Mapping[str, Observed], n: int) -> list[Finding]:
    """The BatchNorm layers that meet one sample, or too few values per channel."""
    findings = []
    for name, one in norms.items():
        rows, excess = one.rows, inflation(one.rows)
        if not one.norm.training and one.norm.running_mean is not None:
            continue
        if rows == 1 or (n == 1 and one.samples == 1):
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
            evidence = {"rows": float(rows), "samples": float(one.samples)}
            findings.append(Finding("batch-of-one", name, message, evidence, remedy))
        elif excess > TOLERATED:
            message = (
                f"It gets {rows} values per channel, with which 1/sd is {excess:.0%} too "
                f"large on average for normal values; {TOLERATED:.0%} are tolerated, "
                "which takes 15 values."
            )
            remedy = (
                "Use larger micro-batches (accumulate.check measures what they cost, "
                "accumulate.exact undoes it), or GroupNorm."
            )
            evidence = {"rows": float(rows), "inflation": excess}
            findings.append(Finding("small-batch", name, message, evidence, remedy))
    return findings
