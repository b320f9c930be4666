r"""The frozen state of ComBat-seq, and how it is fitted.

log μ = log N + α_b + z β + w η;   γ_b = α_b - Σ_b (n_b/n) α_b,  as edgeR's prior counts
leave it;   γ*, φ* after shrinkage, if any;   log μ* = log μ - γ*_b - (w - w̄) η
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from batchcorr.errors import DesignError
from batchcorr.estimators.count_checks import require_counts
from batchcorr.estimators.count_shrinkage import shrink
from batchcorr.models.counts.dispersion import batch_dispersions
from batchcorr.models.counts.regression import fit_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.arrays.feature_counts import FeatureCounts
    from batchcorr.design.design import Design
    from batchcorr.estimators.count_shrinkage import Shrinkage
    from batchcorr.estimators.inputs import SampleNames

__all__ = ["CountModel", "fit_count_model", "total_counts"]

PRIOR_COUNT = 1e-4
"""What sva has edgeR add to counts when it takes batch effects from coefficients."""

SMALLEST_MEAN = 1e-4
"""Expected counts under this count as this, with a reference."""

RAISED = -0.2
"""Batch effect from which down a reference bounds the means it raises."""

LARGEST_LOG = 300.0
"""Logarithm over which no expected count goes, however far covariates are from those of fit."""

FAR = 10
"""Mean of a column over its standard deviation, from which on it is far from 0."""


def _exp(logarithm: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(np.minimum(logarithm, LARGEST_LOG))


@dataclass(frozen=True)
class CountModel:
    """Coefficients and dispersions of G features in B batches, p covariates, q nuisances.

    Attributes
    ----------
    adjusted
        Features that have counts in every batch: (G,).
    coefficients
        α of each batch, then β and η: (G, B + p + q).
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
    nuisance_mean
        w̄ of the samples of `fit`: (q,); None without nuisances.
    """

    adjusted: NDArray[np.bool_]
    coefficients: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma_star: NDArray[np.float64]
    phi_star: NDArray[np.float64]
    top_rate: NDArray[np.float64]
    reference: int | None = None
    reference_mean: NDArray[np.float64] | None = None
    nuisance_mean: NDArray[np.float64] | None = None

    def means(
        self,
        design: Design,
        offset: NDArray[np.float64],
        part: slice | NDArray[np.intp],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Expected counts with and without the effects to remove: (features, n)."""
        n_batches, coefficients = self.phi.shape[1], self.coefficients[part]
        alpha = coefficients[:, :n_batches][:, design.codes]
        log_mu = offset + alpha + coefficients[:, n_batches:] @ design.columns.T
        removed = self.gamma_star[part][:, design.codes]
        if self.nuisance_mean is not None:
            q = len(self.nuisance_mean)
            w = design.columns[:, -q:] - self.nuisance_mean
            removed += coefficients[:, -q:] @ w.T
        if self.reference_mean is None:
            return _exp(log_mu), _exp(log_mu - removed)
        old = np.maximum(_exp(log_mu), SMALLEST_MEAN)
        new = old * _exp(-removed)
        most = np.where(removed < RAISED, self.reference_mean[part, None], np.inf)
        return old, np.minimum(new, most)

    def dispersions(
        self, design: Design, part: slice | NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """The dispersion of each value: (features, n)."""
        return np.ascontiguousarray(self.phi[part][:, design.codes])

    def bound(
        self, offset: NDArray[np.float64], part: slice | NDArray[np.intp], factor: float
    ) -> NDArray[np.float64]:
        """The largest count that a corrected value may be: (features, n)."""
        return np.ceil(factor * self.top_rate[part, None] * np.exp(offset))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        del found["reference"]
        return {name: value for name, value in found.items() if value is not None}


def fit_count_model(
    counts: FeatureCounts,
    design: Design,
    names: SampleNames,
    advance: Callable[[int], None],
    *,
    fitted: list[int],
    shrinkage: Shrinkage | None = None,
    reference: int | Literal["auto"] | None = None,
) -> CountModel:
    """Fit dispersions, means and batch effects of every feature with counts everywhere.

    Counts are made dense a block of features at a time; only shrinkage, which compares
    every feature with every other, takes all those of a batch at once. With a reference
    a batch has one dispersion for all features, and the reference "auto" is that of least.
    `fitted` are the columns of the design to fit; those of the others are 0.

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
            "No feature has counts in every batch, so that batches cannot be compared."
        )
        raise DesignError(msg)
    library = total_counts(counts, adjusted)
    require_counts(library, names)
    counts, offset = counts.take(features=adjusted), np.log(library)
    z, n_batches = design.columns[:, fitted], design.n_batches
    phi, common = np.empty((counts.shape[0], n_batches)), np.empty(n_batches)
    for b, rows in enumerate(rows_of):
        own = counts.take(rows=rows)
        common[b], phi[:, b] = batch_dispersions(own, z[rows], offset[rows], advance)
    if reference is not None:
        reference = int(np.argmin(common)) if reference == "auto" else reference
        phi = np.broadcast_to(common, phi.shape).copy()
    part_of = replace(design, columns=z)
    fits = [
        _fit_block(y, part_of, offset, phi[part], reference)
        for part, y in counts.blocks()
    ]
    found, gamma_star, rate, largest = map(np.concatenate, zip(*fits, strict=True))
    coefficients = np.zeros((len(found), n_batches + design.columns.shape[1]))
    coefficients[:, [*range(n_batches), *(n_batches + k for k in fitted)]] = found
    phi_star = phi.mean(axis=1) if reference is None else phi[:, reference]
    if shrinkage is not None:
        parts = coefficients, gamma_star, phi
        gamma_star, shrunk = shrink(counts, design, offset, parts, shrinkage)
        phi_star = shrunk.mean(axis=1) if shrinkage.dispersions else phi_star
    nuisances = design.columns[:, design.kept :]
    return CountModel(
        adjusted=adjusted,
        coefficients=_everywhere(coefficients, adjusted),
        phi=_everywhere(phi, adjusted),
        gamma_star=_everywhere(gamma_star, adjusted),
        phi_star=_everywhere(phi_star, adjusted),
        top_rate=_everywhere(rate, adjusted),
        reference=reference,
        reference_mean=None if reference is None else _everywhere(largest, adjusted),
        nuisance_mean=nuisances.mean(axis=0) if nuisances.size else None,
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
    reference: int | None,
) -> tuple[NDArray[np.float64], ...]:
    """Coefficients (g, B + p + q), γ (g, B), top rates and reference means (g,).

    γ is the level of a batch about that of the reference, or about the mean level α, which
    takes a second fit, with α in the offset. Both have a prior count, as sva has edgeR do.
    Nuisances are measured from their mean, and so are covariates far from 0 meanwhile: exp
    of their α may be infinite.
    """
    codes, n_batches, kept = design.codes, design.n_batches, design.kept
    centre = design.columns.mean(axis=0)
    near = abs(centre) < FAR * design.columns.std(axis=0)
    near[kept:] = False
    centre[near] = 0.0
    z = design.columns - centre
    fit = partial(fit_features, y, codes, z, offset, phi)
    gamma = fit(prior=PRIOR_COUNT)[:, :n_batches]
    coefficients = fit()
    largest = np.zeros(len(y))
    if reference is None:
        level = (gamma * (design.counts / len(codes))).sum(axis=1)
        gamma = fit(prior=PRIOR_COUNT, shift=level)[:, :n_batches]
    else:
        gamma = gamma - gamma[:, [reference]]
        own, slopes = codes == reference, coefficients[:, n_batches:][:, :kept]
        log_mu = coefficients[:, [reference]] + offset[own] + slopes @ z[own, :kept].T
        largest = np.exp(log_mu).max(axis=1)
    coefficients[:, :n_batches] -= (coefficients[:, n_batches:] @ centre)[:, None]
    return coefficients, gamma, (y / np.exp(offset)).max(axis=1), largest


def _everywhere(
    values: NDArray[np.float64], adjusted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Values for all features: 0 for those that are not adjusted."""
    everywhere = np.zeros((len(adjusted), *values.shape[1:]))
    everywhere[adjusted] = values
    return everywhere
