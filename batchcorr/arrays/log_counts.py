"""Counts that are read as logarithms of counts per million, a block of features at a time.

A kind of matrix that is never whole: its moments are those of `models.voom.log_cpm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.feature_parts import joined
from batchcorr.arrays.passes import moments
from batchcorr.models.voom import log_cpm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.arrays.feature_counts import FeatureCounts
    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]

__all__ = ["LogCounts", "weighted_moments"]


@dataclass(frozen=True)
class LogCounts:
    """Logarithms of counts, (n, G).

    Attributes
    ----------
    counts
        The counts.
    sizes
        Library size of each sample: (n,).
    """

    counts: FeatureCounts
    sizes: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Samples × features, (n, G)."""
        n_features, n_rows = self.counts.shape
        return n_rows, n_features


@moments.register(LogCounts)
def weighted_moments(
    x: LogCounts,
    design: Design,
    *,
    weights: Callable[[slice], Floats] | None = None,
) -> Moments:
    """The moments of logarithms of counts, with a weight of each value.

    Parameters
    ----------
    x
        The counts.
    design
        Batch and columns of each row.
    weights
        Gives the weights of a block of features, (n, width); None: they are alike.
    """
    parts = []
    for part, block in x.counts.blocks():
        logs = np.ascontiguousarray(log_cpm(block.T, x.sizes))
        parts.append(moments(logs, design, weights=weights and weights(part)))
    return joined(parts)
