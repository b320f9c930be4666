r"""What a design allows, before anything is corrected: findings, and rates of false positives.

Each way of correcting scales batches by δ_b, from variances σ_b² that samples of a batch
have in common:

    combat         δ_b² = RSS_b/(n_b - 1) / (Σ RSS/n)
    standardize    δ_b² = RSS_b/(n_b - 1) / (Σ RSS/(n - B - p))
    linear         δ_b² = 1

with E RSS_b = σ_b² d_b, d_b the batch's residual degrees of freedom. What a test of the
corrected values then does is in `models.naive_test`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.design import findings
from batchcorr.design.column_products import ColumnProducts
from batchcorr.design.confounding import associations, unestimable
from batchcorr.estimators.contrast_weights import weights_of
from batchcorr.models.naive_test import (
    DesignSums,
    corrected_rate,
    effect_kept,
    one_step_rate,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.design.findings import Finding
    from batchcorr.estimators.contrasts import Contrast
    from batchcorr.estimators.metadata import Metadata

    Floats = NDArray[np.float64]

__all__ = [
    "ANALYSES",
    "Prediction",
    "design_findings",
    "design_sums",
    "predict",
    "prediction_findings",
]

ANALYSES = ("combat", "standardize", "remove_batch_effect", "one_step")
"""Ways to a test: three correct first, the last has batch in the model."""

INFLATED = 1.6
"""Rate of false positives, over the wanted one, from which on it is told."""

KEPT = 0.8
"""Share of an effect under which its loss is told."""


@dataclass(frozen=True)
class Prediction:
    """The error rates of a test in one analysis.

    Attributes
    ----------
    level
        The level that is compared with the first, the column of numbers, or the contrast.
    analysis
        One of `ANALYSES`.
    false_positive_rate
        At α, when the tested column is kept, corrected and then tested.
    effect_kept
        Share of a small effect, in units of the data, left when it is not kept.
    """

    level: str
    analysis: str
    false_positive_rate: float
    effect_kept: float


def design_sums(design: Design) -> DesignSums:
    """The sums of the kept and removed columns of a design, by batch."""
    means, centred = design.centred
    n_columns = centred.shape[1]
    gram = np.zeros((design.n_batches, n_columns, n_columns))
    for j in range(n_columns):
        products = centred[:, j : j + 1] * centred
        for k in range(n_columns):
            gram[:, j, k] = np.bincount(
                design.codes, products[:, k], minlength=design.n_batches
            )
    return DesignSums(design.counts.astype(np.float64), means, gram)


def design_findings(sums: DesignSums, metadata: Metadata) -> list[Finding]:
    """What the design alone makes hard or impossible, the gravest first."""
    return sorted(
        _design_findings(sums, metadata),
        key=lambda finding: findings.LEVELS.index(finding.level),
    )


def _design_findings(sums: DesignSums, metadata: Metadata) -> Iterator[Finding]:
    levels = metadata.levels
    if metadata.n_batches < 2:
        yield findings.one_batch(levels[0])
        return
    small = findings.small_batches(levels, sums.n)
    if small is not None:
        yield small
    products = ColumnProducts.of(sums.n, sums.columns, sums.gram)
    problem = unestimable(products, metadata.names, metadata.terms, metadata.kept)
    if problem is not None:
        yield problem
        return
    _, df = _degrees(sums)
    names = [
        repr(level)
        for level, n, left in zip(levels, sums.n, df, strict=True)
        if n > 1 and left < 1e-6
    ]
    if names:
        yield findings.explained(names)
    terms = metadata.terms[: metadata.kept]
    yield from findings.associated(associations(products, terms))


def predict(
    sums: DesignSums,
    metadata: Metadata,
    test: Contrast,
    *,
    variance: Floats | None = None,
    alpha: float = 0.05,
) -> list[Prediction]:
    """The error rates of a test in every analysis, level by level.

    Parameters
    ----------
    sums, metadata
        Of the design, the tested column among the kept ones.
    test
        The covariate that is tested, or a contrast of its levels.
    variance
        σ_b² of each batch, up to a factor: (B,); None: alike.

    Returns
    -------
    A prediction for every level and analysis; none where the test cannot be made.
    """
    variance = np.ones(len(sums.n)) if variance is None else variance
    if _degrees(sums)[0] < 1:
        return []
    scales = _scales(sums, variance)
    found = []
    for level, contrast in zip(*weights_of(metadata, test), strict=True):
        along = sums.measured_along(contrast)
        not_kept = _scales(along.without(0), variance)
        for analysis, scale in scales.items():
            kept = effect_kept(along, 0, not_kept[analysis])
            rate = corrected_rate(along, 0, scale, variance, alpha)
            found.append(Prediction(level, analysis, rate, kept))
        rate = one_step_rate(along, 0, variance, alpha)
        found.append(Prediction(level, "one_step", rate, 1.0))
    return found


def prediction_findings(
    predictions: list[Prediction], test: str, alpha: float
) -> list[Finding]:
    """The findings that predictions give: the worst of all levels."""
    notable = []
    before = [p for p in predictions if p.analysis != "one_step"]
    if not before:
        return []
    worst = max(before, key=lambda p: p.false_positive_rate)
    if worst.false_positive_rate > INFLATED * alpha:
        notable.append(
            findings.inflated(test, worst.analysis, worst.false_positive_rate, alpha)
        )
    linear = [
        p for p in before if p.analysis == "remove_batch_effect"
    ]  # nothing is scaled
    least = min(linear, key=lambda p: p.effect_kept)
    if least.effect_kept < KEPT:
        notable.append(findings.lost(test, least.effect_kept))
    return notable


def _scales(sums: DesignSums, variance: Floats) -> dict[str, Floats]:
    """δ_b by analysis, as the columns that are kept leave variances to batches."""
    residual, df = _degrees(sums)
    squares = variance * df  # E RSS_b
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where((sums.n > 1) & (df > 1e-6), squares / (sums.n - 1), np.nan)
    total, alike = squares.sum(), np.ones_like(own)
    single = bool((sums.n == 1).any())
    return {
        "combat": alike if single else _scale(own, total / sums.n.sum()),
        "standardize": _scale(own, total / residual),
        "remove_batch_effect": alike,
    }


def _scale(own: Floats, common: float) -> Floats:
    """δ_b: 1 where a batch does not tell its own variance."""
    return np.where(np.isfinite(own), np.sqrt(own / common), 1.0)


def _degrees(sums: DesignSums) -> tuple[float, Floats]:
    """Residual degrees of freedom in all, and of each batch: (B,)."""
    p = sums.columns.shape[1]
    v = np.linalg.inv(sums.within) if p else np.zeros((0, 0))
    leverage = np.einsum("ij,bji->b", v, sums.gram) if p else np.zeros(len(sums.n))
    return float(sums.n.sum() - len(sums.n) - p), sums.n - 1 - leverage
