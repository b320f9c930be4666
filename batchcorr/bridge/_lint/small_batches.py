r"""Batches too small for BatchNorm: the noise of 1/sd, and that it is too large on average.

For m normal values with variance σ², normalized by the sd with divisor m,

    E[1 / sd] · σ = √(m/2) Γ((m - 2)/2) / Γ((m - 1)/2),

1.04 at m = 32, 1.09 at 16, 1.20 at 8, infinite at 2. The threshold is a tenth.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from batchcorr.bridge._lint.batch_of_one import is_of_one
from batchcorr.bridge._lint.result import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.bridge._lint.observation import Observed

__all__ = ["find_small_batches", "inflation"]

TOLERATED = 0.1
"""By how much 1/sd may be too large on average."""


def inflation(rows: int) -> float:
    """Return E[1 / sd] · σ - 1 for normal values.

    Examples
    --------
    >>> [round(inflation(rows), 3) for rows in (2, 8, 16, 64)]
    [inf, 0.204, 0.088, 0.02]
    """
    if rows <= 2:
        return math.inf
    log_ratio = math.lgamma((rows - 2) / 2) - math.lgamma((rows - 1) / 2)
    return math.sqrt(rows / 2) * math.exp(log_ratio) - 1


def find_small_batches(norms: Mapping[str, Observed], n: int) -> list[Finding]:
    """Return the BatchNorm layers with too few values per channel."""
    return [
        _finding(name, one.rows)
        for name, one in norms.items()
        if one.by_batch and not is_of_one(one, n) and inflation(one.rows) > TOLERATED
    ]


def _finding(name: str, rows: int) -> Finding:
    excess = inflation(rows)
    return Finding(
        rule="small-batch",
        layer=name,
        message=(
            f"It gets {rows} values per channel, with which 1/sd is {excess:.0%} too "
            f"large on average for normal values; {TOLERATED:.0%} are tolerated, which "
            "takes 15 values."
        ),
        evidence={"rows": rows, "inflation": excess},
        remedy=(
            "Use larger micro-batches (accumulate.check measures what they cost, "
            "accumulate.exact undoes it), or GroupNorm."
        ),
    )
