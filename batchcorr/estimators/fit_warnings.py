"""What a fit warns of: conditions under which a correction is doubtful, or invents results.

See Nygaard et al. 2016 (Biostatistics 17:29) on group effects kept in unbalanced designs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.design import findings
from batchcorr.design.confounding import associations
from batchcorr.errors import (
    AssociationWarning,
    BatchSizeWarning,
    CovariateWarning,
    FeatureWarning,
    RepeatWarning,
    some,
    warn,
)
from batchcorr.models.batch_and_chance import batch_over_chance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from batchcorr.design.column_products import ColumnProducts
    from batchcorr.design.findings import Finding
    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.metadata import Metadata
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.linear_model import LinearFit
    from batchcorr.models.moments import Moments

__all__ = [
    "find_corrected",
    "warn_of_columns",
    "warn_of_corrected",
    "warn_of_explained",
    "warn_of_far",
    "warn_of_features",
    "warn_of_lost_digits",
    "warn_of_unadjustable",
]

MANY = 0.5
"""Share of features that cannot be corrected from which on a warning is due."""

EXTRAPOLATED = 100
"""Distance of batches, in what varies inside them, from which on a warning is due."""

CONDITION = 1e7
"""Condition of the products of columns from which on a warning is due."""

FEATURES = 50
"""Features under which chance leaves batch little in nearly all."""

NEARLY_EVERY = 0.95
LESS_THAN_CHANCE = 0.9
EQUAL = 1e-6
"""What batch explains, over what chance lets it, in values that were corrected."""


def find_corrected(moments: Moments, *, independent: bool = True) -> Finding | None:
    """What values without a record show of a correction before: None if nothing.

    Parameters
    ----------
    moments
        Of all batches, without weights.
    independent
        False: samples are not, so that only batch means that are equal tell.
    """
    if moments.n_batches < 2 or not moments.n_features:
        return None
    ratios = batch_over_chance(moments)
    known = ratios[:, np.isfinite(ratios).all(axis=0)]
    if not known.size:
        return None
    most = float(np.quantile(known, NEARLY_EVERY, axis=1).min())
    many = independent and known.shape[1] >= FEATURES
    if most < EQUAL or (many and most < LESS_THAN_CHANCE):
        return findings.already_corrected(equal=most < EQUAL)
    return None


def warn_of_corrected(moments: Moments, *, independent: bool = True) -> None:
    """Warn of values that were corrected before, as far as their moments show it."""
    finding = find_corrected(moments, independent=independent)
    if finding is not None:
        warn(finding.text, RepeatWarning)


def warn_of_explained(fit: LinearFit, metadata: Metadata) -> None:
    """Warn of batches whose variance cannot be known, as covariates explain them."""
    explained = np.broadcast_to(fit.explained, fit.intercepts.shape).mean(axis=1)
    names = [
        repr(level) + (f" ({share:.0%} of features)" if share < 1 else "")
        for level, share in zip(metadata.levels, explained, strict=True)
        if share > 0
    ]
    if names:
        warn(findings.explained(names).text, BatchSizeWarning)


def warn_of_unadjustable(adjustable: NDArray[np.bool_]) -> None:
    """Warn if few features can be corrected: the others keep what batch did to them."""
    left = int((~adjustable).sum())
    if left > MANY * adjustable.size:
        msg = (
            f"{left} of {adjustable.size} features cannot be corrected and stay "
            "unchanged: in some batch they have no values, no variance, too few "
            "values, or were left out of its sums. Check the batch labels, and leave "
            "such features out."
        )
        warn(msg, FeatureWarning)


def warn_of_features(
    moments: Moments,
    adjustable: NDArray[np.bool_],
    details: Mapping[str, NDArray[np.generic]],
    estimator: Corrector,
) -> None:
    """Name the features that keep their batch effects, or part of them."""
    once = (moments.squares == 0) & (moments.n > 1)  # a batch has one value of them
    constant = ~adjustable & once.any(axis=0)
    if constant.any():
        names = some(estimator.feature_names_out_[constant])
        msg = (
            f"{int(constant.sum())} of {len(constant)} features ({names}) are constant "
            "in a batch and stay unchanged: their batch effects are not removed."
        )
        warn(msg, FeatureWarning)
    warn_of_far(details, estimator)


def warn_of_far(
    details: Mapping[str, NDArray[np.generic]], estimator: Corrector, *, since: int = 0
) -> None:
    """Name the features that non-parametric priors leave part of a batch's effect in.

    Of the batches from number `since` on.
    """
    if "far" not in details:
        return
    names = estimator.feature_names_out_
    kept = names[details["far"][since:].any(axis=0)]
    if kept.size:
        msg = (
            f"{kept.size} of {names.size} features ({some(kept)}) keep part of their "
            "batch effects: in some batch no other feature has a similar effect, and a "
            "non-parametric prior consists of the effects of other features. Use "
            "parametric priors."
        )
        warn(msg, FeatureWarning)


def warn_of_columns(problem: Problem, columns: list[int]) -> None:
    """Warn of columns whose effects cannot be told well: by batch, distance or digits."""
    metadata, products = problem.metadata, problem.products
    strengths = associations(products, metadata.terms[: metadata.kept])
    for finding in findings.associated(strengths):
        warn(finding.text, AssociationWarning)
    _warn_of_extrapolation(products, metadata, columns)
    warn_of_lost_digits(problem, columns)


def _warn_of_extrapolation(
    products: ColumnProducts, metadata: Metadata, columns: list[int]
) -> None:
    """Warn of columns in which batches lie far apart for what varies inside them."""
    inside = np.diag(products.within)
    between = np.diag(products.total) - inside
    far = [
        metadata.names[k]
        for k in columns
        if not (metadata.binary and metadata.binary[k])
        and between[k] > EXTRAPOLATED**2 * inside[k]
    ]
    if far:
        msg = (
            f"{some(map(repr, far))}: batches differ by more than {EXTRAPOLATED} times "
            "the variation within batches. The effect estimated within batches is "
            "extrapolated over this distance, together with its uncertainty: give it "
            "relative to each batch, such as the time since the batch began, or leave "
            "it out."
        )
        warn(msg, CovariateWarning)


def warn_of_lost_digits(problem: Problem, columns: list[int]) -> None:
    """Warn of columns whose effects are known to few digits, as only sums are known."""
    metadata, products = problem.metadata, problem.products
    if problem.turned is None and products.condition(columns) > CONDITION:
        names = [metadata.names[k] for k in columns]
        msg = (
            f"The columns {some(map(repr, names))} are nearly collinear, which sums "
            "over blocks represent with few digits: results may be wrong in the "
            "seventh digit. Centre or scale the covariates, use poly() in the formula, "
            "or fit all samples at once."
        )
        warn(msg, CovariateWarning)
