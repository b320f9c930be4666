r"""The frozen state of ComBat-seq, and how it is fitted.

log μ = log N + α_b + z β;   γ_b = α_b - Σ_b (n_b/n) α_b,  as edgeR's prior counts
leave it;   γ*, φ* after shrinkage, if any
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.errors import DesignError, InputError, some
from batchcorr.estimators.matrix import is_sparse
from batchcorr.models.counts.dispersion import batch_dispersions
from batchcorr.models.counts.regression import fit_features
from batchcorr.models.counts.shrinkage import average_likely_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.design.design import Design

__all__ = ["CountModel", "fit_count_model"]

PRIOR_COUNT = 1e-4
"""What sva has edgeR add to counts when it takes batch effects from coefficients."""


@dataclass(frozen=True)
class CountModel:
    """Coefficients and dispersions of G features in B batches, p covariates.

    Attributes
    ----------
    adjusted
        Features that have counts in every batch: (G,).
    coefficients
        α of each batch, then β: (G, B + p).
    phi
        Dispersions: (G, B).
    gamma_star
        Batch effects to remove: (G, B).
    phi_star
        Dispersion after correction: (G,).
    top_rate
        Largest share of a library that a feature had: (G,).
    """

    adjusted: NDArray[np.bool_]
    coefficients: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma_star: NDArray[np.float64]
    phi_star: NDArray[np.float64]
    top_rate: NDArray[np.float64]

    def offset(self, counts: Any) -> NDArray[np.float64]:
        """Return the log library size of each sample, over the adjusted features."""
        return _log_library(counts[:, np.flatnonzero(self.adjusted)])

    def means(
        self, design: Design, offset: NDArray[np.float64], part: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return expected counts with and without the batch effect: (features, n)."""
        n_batches = self.phi.shape[1]
        alpha = self.coefficients[part, :n_batches][:, design.codes]
        kept = self.coefficients[part, n_batches:] @ design.columns.T
        log_mu = offset + alpha + kept
        moved = log_mu - self.gamma_star[part][:, design.codes]
        return np.exp(log_mu), np.exp(moved)

    def dispersions(self, design: Design, part: slice) -> NDArray[np.float64]:
        """Return the dispersion of each value: (features, n)."""
        return np.ascontiguousarray(self.phi[part][:, design.codes])

    def bound(
        self, offset: NDArray[np.float64], part: slice, factor: float
    ) -> NDArray[np.float64]:
        """Return the largest count that a corrected value may be: (features, n)."""
        return np.ceil(factor * self.top_rate[part, None] * np.exp(offset))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def fit_count_model(
    counts: Any,
    design: Design,
    *,
    shrink: bool,
    shrink_dispersion: bool,
    gene_subset: int | None,
    random_state: int,
    advance: Callable[[int], None],
) -> CountModel:
    """Fit dispersions, means and batch effects of every feature with counts everywhere.

    Raises
    ------
    DesignError
        If no feature has counts in every batch.
    InputError
        If a sample has no counts.
    """
    adjusted = np.ones(counts.shape[1], dtype=bool)
    rows_of = [np.flatnonzero(design.codes == b) for b in range(design.n_batches)]
    for rows in rows_of:
        adjusted &= np.asarray(counts[rows].sum(axis=0)).ravel() > 0
    if not adjusted.any():
        msg = (
            "No feature has counts in every batch, so there is nothing that could be "
            "compared between batches."
        )
        raise DesignError(msg)
    kept = counts[:, np.flatnonzero(adjusted)]
    offset = _log_library(kept)
    if is_sparse(kept):
        kept = kept.toarray()
    y = np.ascontiguousarray(kept.T, dtype=np.float64)
    del kept
    z = design.columns
    phi = np.empty((len(y), design.n_batches))
    for b, rows in enumerate(rows_of):
        _, phi[:, b] = batch_dispersions(
            np.ascontiguousarray(y[:, rows]), z[rows], offset[rows], advance
        )
    coefficients = fit_features(y, design.codes, z, offset, phi)
    gamma_star = _batch_effects(y, design, offset, phi)
    phi_star = phi
    if shrink:
        random = np.random.default_rng(random_state)

        def means(rows: NDArray[np.intp], b: int) -> NDArray[np.float64]:
            slope = coefficients[:, design.n_batches :] @ z[rows].T
            mu: NDArray[np.float64] = np.exp(
                offset[rows] + coefficients[:, [b]] + slope
            )
            return mu

        def draws() -> NDArray[np.intp] | None:
            return None if gene_subset is None else _draws(random, len(y), gene_subset)

        gamma_star, shrunk = _shrink(y, design, means, (gamma_star, phi), draws)
        phi_star = shrunk if shrink_dispersion else phi
    rate = (y / np.exp(offset)).max(axis=1)
    return CountModel(
        adjusted=adjusted,
        coefficients=_spread(coefficients, adjusted),
        phi=_spread(phi, adjusted),
        gamma_star=_spread(gamma_star, adjusted),
        phi_star=_spread(phi_star.mean(axis=1), adjusted),
        top_rate=_spread(rate, adjusted),
    )


def _log_library(counts: Any) -> NDArray[np.float64]:
    library = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    empty = np.flatnonzero(library <= 0)
    if empty.size:
        msg = (
            f"{empty.size} of {library.size} samples (rows "
            f"{some(empty)}) have no counts in the features that all "
            "batches share, so that nothing can be said of their library: drop them."
        )
        raise InputError(msg)
    logs: NDArray[np.float64] = np.log(library)
    return logs


def _batch_effects(
    y: NDArray[np.float64],
    design: Design,
    offset: NDArray[np.float64],
    phi: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return γ of each batch, (G, B): the level of the batch about the mean level.

    Two fits with a prior count, as sva has edgeR do: the first for the mean level α,
    the second with α in the offset.
    """
    z, n_batches = design.columns, design.n_batches
    weights = design.counts / design.n_rows
    first = fit_features(y, design.codes, z, offset, phi, prior=PRIOR_COUNT)
    level = first[:, :n_batches] @ weights
    second = fit_features(
        y, design.codes, z, offset, phi, prior=PRIOR_COUNT, shift=level
    )
    return second[:, :n_batches]


def _shrink(
    y: NDArray[np.float64],
    design: Design,
    means: Callable[[NDArray[np.intp], int], NDArray[np.float64]],
    effects: tuple[NDArray[np.float64], NDArray[np.float64]],
    draws: Callable[[], NDArray[np.intp] | None],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return γ* and φ* of each batch, (G, B) each, from γ and φ."""
    gamma, phi = effects
    gamma_star, phi_star = np.empty_like(gamma), np.empty_like(phi)
    for b in range(design.n_batches):
        rows = np.flatnonzero(design.codes == b)
        gamma_star[:, b], phi_star[:, b] = average_likely_counts(
            np.ascontiguousarray(y[:, rows]),
            means(rows, b),
            np.ascontiguousarray(gamma[:, b]),
            np.ascontiguousarray(phi[:, b]),
            draws(),
        )
    return gamma_star, phi_star


def _draws(random: np.random.Generator, n_features: int, size: int) -> NDArray[np.intp]:
    """Return `size` of the other features for every feature, without repeats."""
    others = n_features - 1
    size = min(size, others)
    drawn = np.empty((n_features, size), dtype=np.intp)
    step = max(1, (1 << 22) // max(others, 1))
    for first in range(0, n_features, step):
        rows = slice(first, min(first + step, n_features))
        keys = random.random((rows.stop - rows.start, others))
        drawn[rows] = np.argpartition(keys, size - 1, axis=1)[:, :size]
    return drawn


def _spread(
    values: NDArray[np.float64], adjusted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return values for all features, 0 for those that are not adjusted."""
    everywhere = np.zeros((len(adjusted), *values.shape[1:]))
    everywhere[adjusted] = values
    return everywhere
