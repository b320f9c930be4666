r"""The frozen state of ComBat-seq, and how it is fitted.

log μ = log N + α_b + z β;   γ_b = α_b - Σ_b (n_b/n) α_b,  as edgeR's prior counts
leave it;   γ*, φ* after shrinkage, if any
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from batchcorr.errors import DesignError
from batchcorr.estimators.count_checks import require_counts
from batchcorr.models.counts.dispersion import batch_dispersions
from batchcorr.models.counts.regression import fit_features
from batchcorr.models.counts.shrinkage import average_likely_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.arrays.feature_counts import FeatureCounts
    from batchcorr.design.design import Design
    from batchcorr.estimators.inputs import SampleNames

__all__ = ["CountModel", "Shrinkage", "fit_count_model", "total_counts"]

PRIOR_COUNT = 1e-4
"""What sva has edgeR add to counts when it takes batch effects from coefficients."""

SMALLEST_MEAN = 1e-4
"""Expected counts under this count as this, with a reference."""

RAISED = -0.2
"""Batch effect from which down a reference bounds the means it raises."""

FAR = 10
"""Mean of a column over its standard deviation, from which on it is far from 0."""


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
    reference
        The batch that others are brought to and that stays; None: their mean.
    reference_mean
        Largest expected count of a feature in that batch: (G,); None without one.
    """

    adjusted: NDArray[np.bool_]
    coefficients: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma_star: NDArray[np.float64]
    phi_star: NDArray[np.float64]
    top_rate: NDArray[np.float64]
    reference: int | None = None
    reference_mean: NDArray[np.float64] | None = None

    def means(
        self, design: Design, offset: NDArray[np.float64], part: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Expected counts with and without the batch effect: (features, n)."""
        n_batches = self.phi.shape[1]
        alpha = self.coefficients[part, :n_batches][:, design.codes]
        kept = self.coefficients[part, n_batches:] @ design.columns.T
        log_mu = offset + alpha + kept
        gamma = self.gamma_star[part][:, design.codes]
        if self.reference_mean is None:
            return np.exp(log_mu), np.exp(log_mu - gamma)
        old = np.maximum(np.exp(log_mu), SMALLEST_MEAN)
        new = old * np.exp(-gamma)
        most = np.where(gamma < RAISED, self.reference_mean[part, None], np.inf)
        return old, np.minimum(new, most)

    def dispersions(self, design: Design, part: Any) -> NDArray[np.float64]:
        """The dispersion of each value: (features, n)."""
        return np.ascontiguousarray(self.phi[part][:, design.codes])

    def bound(
        self, offset: NDArray[np.float64], part: Any, factor: float
    ) -> NDArray[np.float64]:
        """The largest count that a corrected value may be: (features, n)."""
        return np.ceil(factor * self.top_rate[part, None] * np.exp(offset))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        del found["reference"]
        return {name: value for name, value in found.items() if value is not None}


class Shrinkage(NamedTuple):
    """How batch effects are drawn towards those of features with similar counts.

    Attributes
    ----------
    effects, dispersions
        Whether batch effects are, and dispersions as well.
    gene_subset
        How many random other features a feature looks at; None: all.
    random_state
        Seed of that choice.
    """

    effects: bool = False
    dispersions: bool = False
    gene_subset: int | None = None
    random_state: int = 0


def fit_count_model(
    counts: FeatureCounts,
    design: Design,
    shrinkage: Shrinkage,
    names: SampleNames,
    advance: Callable[[int], None],
    *,
    reference: int | Literal["auto"] | None = None,
) -> CountModel:
    """Fit dispersions, means and batch effects of every feature with counts everywhere.

    Counts are made dense a block of features at a time; only shrinkage, which compares
    every feature with every other, takes all those of a batch at once. With a reference
    a batch has one dispersion for all features, and the reference "auto" is that of least.

    Raises
    ------
    DesignError
        If no feature has counts in every batch.
    InputError
        If a sample has no counts in those that have; `names` names it.
    """
    rows_of = [np.flatnonzero(design.codes == b) for b in range(design.n_batches)]
    adjusted = np.concatenate(
        [
            np.all([y[:, rows].any(axis=1) for rows in rows_of], axis=0)
            for _, y in counts.blocks()
        ]
    )
    if not adjusted.any():
        msg = (
            "No feature has counts in every batch, so there is nothing that could be "
            "compared between batches."
        )
        raise DesignError(msg)
    library = total_counts(counts, adjusted)
    require_counts(library, names)
    counts, offset = counts.take(features=adjusted), np.log(library)
    phi = np.empty((counts.shape[0], design.n_batches))
    common = np.empty(design.n_batches)
    for b, rows in enumerate(rows_of):
        own, z = counts.take(rows=rows), design.columns[rows]
        common[b], phi[:, b] = batch_dispersions(own, z, offset[rows], advance)
    if reference is not None:
        code = int(np.argmin(common)) if reference == "auto" else reference
        return _to_reference(
            counts, design, offset, common, adjusted=adjusted, reference=code
        )
    fits = [_fit_block(y, design, offset, phi[part]) for part, y in counts.blocks()]
    coefficients, gamma_star, rate = map(np.concatenate, zip(*fits, strict=True))
    phi_star = phi
    if shrinkage.effects:
        fitted = coefficients, gamma_star, phi
        gamma_star, shrunk = _shrink(counts, design, offset, fitted, shrinkage)
        phi_star = shrunk if shrinkage.dispersions else phi
    return CountModel(
        adjusted=adjusted,
        coefficients=_everywhere(coefficients, adjusted),
        phi=_everywhere(phi, adjusted),
        gamma_star=_everywhere(gamma_star, adjusted),
        phi_star=_everywhere(phi_star.mean(axis=1), adjusted),
        top_rate=_everywhere(rate, adjusted),
    )


def _to_reference(
    counts: FeatureCounts,
    design: Design,
    offset: NDArray[np.float64],
    common: NDArray[np.float64],
    *,
    adjusted: NDArray[np.bool_],
    reference: int,
) -> CountModel:
    """The fit in which batches are brought to one of them (ComBat-ref)."""
    phi = np.broadcast_to(common, (counts.shape[0], len(common))).copy()
    codes, z, own = design.codes, design.columns, design.codes == reference
    parts = []
    for part, y in counts.blocks():
        fit = partial(fit_features, y, codes, z, offset, phi[part])
        alpha = fit(prior=PRIOR_COUNT)[:, : len(common)]
        coefficients = fit()
        log_mu = coefficients[:, [reference]] + offset[own]
        log_mu = log_mu + coefficients[:, len(common) :] @ z[own].T
        largest = np.exp(log_mu).max(axis=1)
        rate = (y / np.exp(offset)).max(axis=1)
        parts.append((coefficients, alpha - alpha[:, [reference]], largest, rate))
    coefficients, gamma, largest, rate = map(np.concatenate, zip(*parts, strict=True))
    return CountModel(
        adjusted=adjusted,
        coefficients=_everywhere(coefficients, adjusted),
        phi=_everywhere(phi, adjusted),
        gamma_star=_everywhere(gamma, adjusted),
        phi_star=_everywhere(phi[:, reference], adjusted),
        top_rate=_everywhere(rate, adjusted),
        reference=reference,
        reference_mean=_everywhere(largest, adjusted),
    )


def total_counts(
    counts: FeatureCounts, adjusted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Total count of each sample over the adjusted features: (n,)."""
    library = np.zeros(counts.shape[1])
    for _, block in counts.take(features=adjusted).blocks():
        library += block.sum(axis=0)
    return library


def _fit_block(
    y: NDArray[np.float64],
    design: Design,
    offset: NDArray[np.float64],
    phi: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients (g, B + p), batch effects γ (g, B) and top rates (g,) of features.

    γ is the level of a batch about the mean level, from two fits with a prior count, as
    sva has edgeR do: the first for the mean level α, the second with α in the offset.
    Columns far from 0 are centred meanwhile: exp of their α may be infinite.
    """
    codes, n_batches = design.codes, design.n_batches
    centre = design.columns.mean(axis=0)
    centre[abs(centre) < FAR * design.columns.std(axis=0)] = 0.0
    fit = partial(fit_features, y, codes, design.columns - centre, offset, phi)
    first = fit(prior=PRIOR_COUNT)[:, :n_batches]
    level = (first * (design.counts / len(design.codes))).sum(axis=1)
    gamma = fit(prior=PRIOR_COUNT, shift=level)[:, :n_batches]
    coefficients = fit()
    coefficients[:, :n_batches] -= (coefficients[:, n_batches:] @ centre)[:, None]
    return coefficients, gamma, (y / np.exp(offset)).max(axis=1)


def _shrink(
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


def _everywhere(
    values: NDArray[np.float64], adjusted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Values for all features: 0 for those that are not adjusted."""
    everywhere = np.zeros((len(adjusted), *values.shape[1:]))
    everywhere[adjusted] = values
    return everywhere
