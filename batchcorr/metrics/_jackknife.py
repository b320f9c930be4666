r"""Intervals of scores, whatever they are: leave a tenth of the samples out, ten times.

    SE² = (m - 1)/m Σ_j (θ_(j) - θ̄)²,          θ ± t_{m-1} SE

with θ_(j) the score without the j-th group of samples (Quenouille, Tukey).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["GROUPS", "interval", "jackknife", "jackknife_groups"]

GROUPS = 10
"""Groups of samples that are left out in turn."""


def jackknife_groups(
    codes: NDArray[np.generic], random: np.random.Generator
) -> NDArray[np.intp]:
    """A group for each sample, evenly in every batch: (n,)."""
    groups = np.empty(len(codes), dtype=np.intp)
    order = random.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    groups[order] = np.arange(len(codes)) % GROUPS
    return groups


def jackknife(
    score: Callable[[NDArray[np.bool_]], float], groups: NDArray[np.intp]
) -> tuple[float, float]:
    """The 95 % interval of a score of the samples that a mask leaves in.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(5, 1, 1000)
    >>> low, high = jackknife(lambda rows: x[rows].mean(), np.arange(1000) % 10)
    >>> low < 5 < high and 0.05 < high - low < 0.3
    True
    """
    every = np.ones(len(groups), dtype=bool)
    left_out = [score(groups != group) for group in np.unique(groups)]
    return interval(score(every), left_out)


def interval(value: float, left_out: list[float]) -> tuple[float, float]:
    """The interval, from a score and the scores without each group; NaN if one is."""
    values, m = np.array(left_out), len(left_out)
    if m < 2:
        return float("nan"), float("nan")
    error = np.sqrt((m - 1) / m * ((values - values.mean()) ** 2).sum())
    reach = stdtrit(m - 1, 0.975) * error
    return float(value - reach), float(value + reach)
