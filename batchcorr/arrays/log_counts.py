"""Counts that are read as logarithms of counts per million, a block of features at a time.

A kind of matrix that is never whole: its moments are those of `models.voom.log_cpm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from batchcorr.arrays.feature_parts import joined
from batchcorr.arrays.passes import moments
from batchcorr.models.voom import log_cpm, log_library_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from batchcorr.arrays.feature_counts import FeatureCounts
    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]
    Weights = Floats | Callable[[slice], Floats] | None

__all__ = ["LogCounts"]


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

    @cached_property
    def log_sizes(self) -> Floats:
        """What the logarithms lack to be those of counts: (n,)."""
        return log_library_sizes(self.sizes)

    @property
    def shape(self) -> tuple[int, int]:
        """Samples × features, (n, G)."""
        n_features, n_rows = self.counts.shape
        return n_rows, n_features

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Yield which features are in each block, and their logarithms, (n, width)."""
        for part, block in self.counts.blocks():
            yield part, log_cpm(block.T, self.log_sizes)


@moments.register(LogCounts)
def _moments(x: LogCounts, design: Design, *, weights: Weights = None) -> Moments:
    """The moments of logarithms of counts.

    Parameters
    ----------
    x
        The counts.
    design
        Batch and columns of each row.
    weights
        Of samples (n,) or values (n, G), or what gives those of a block of features.
    """
    parts = []
    for part, logs in x.blocks():
        own = weights(part) if callable(weights) else weights
        own = own[:, part] if own is not None and own.shape == x.shape else own
        parts.append(moments(logs, design, weights=own))
    return joined(parts)
