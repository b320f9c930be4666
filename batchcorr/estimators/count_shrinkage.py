r"""Shrinkage of a count model: γ* and φ* drawn towards those of features like them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr.models.counts.shrinkage import average_likely_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.feature_counts import FeatureCounts
    from batchcorr.design.design import Design

__all__ = ["Shrinkage", "shrink"]


class Shrinkage(NamedTuple):
    """How batch effects are drawn towards those of features with similar counts.

    Attributes
    ----------
    dispersions
        Whether dispersions are, too.
    gene_subset
        How many random other features a feature looks at; None: all.
    random_state
        Seed of that choice.
    """

    dispersions: bool = False
    gene_subset: int | None = None
    random_state: int = 0


def shrink(
    counts: FeatureCounts,
    design: Design,
    offset: NDArray[np.float64],
    fitted: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    shrinkage: Shrinkage,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """γ* and φ* of each batch, (G, B) each, from coefficients, γ and φ."""
    coefficients, gamma, phi = fitted
    slopes = coefficients[:, design.n_batches :]
    random = np.random.default_rng(shrinkage.random_state)
    gamma_star, phi_star = np.empty_like(gamma), np.empty_like(phi)
    for b in range(design.n_batches):
        rows = np.flatnonzero(design.codes == b)
        log_mu = offset[rows] + coefficients[:, [b]] + slopes @ design.columns[rows].T
        drawn = None
        if shrinkage.gene_subset is not None:
            drawn = _draws(random, len(gamma), shrinkage.gene_subset)
        gamma_star[:, b], phi_star[:, b] = average_likely_counts(
            counts.take(rows=rows).whole(),
            np.exp(log_mu),
            np.ascontiguousarray(gamma[:, b]),
            np.ascontiguousarray(phi[:, b]),
            drawn,
        )
    return gamma_star, phi_star


def _draws(random: np.random.Generator, n_features: int, size: int) -> NDArray[np.intp]:
    """Positions of `size` of the other features for every feature, without repeats."""
    others = n_features - 1
    size = min(size, others)
    drawn = np.empty((n_features, size), dtype=np.intp)
    step = max(1, (1 << 22) // max(others, 1))
    for first in range(0, n_features, step):
        rows = slice(first, min(first + step, n_features))
        keys = random.random((rows.stop - rows.start, others))
        drawn[rows] = np.argpartition(keys, size - 1, axis=1)[:, :size]
    return drawn
