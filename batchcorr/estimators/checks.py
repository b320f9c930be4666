"""What a fit refuses and what it warns of, before any estimate is made.

These are the conditions under which correction cannot work or invents results: see
Nygaard et al. 2016 (Biostatistics 17:29) on group effects kept in unbalanced designs.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from batchcorr.design import findings
from batchcorr.design.confounding import (
    association,
    check_estimable,
    redundant_nuisances,
)
from batchcorr.errors import (
    AssociationWarning,
    BatchSizeWarning,
    CovariateWarning,
    DesignError,
    FeatureWarning,
    InputError,
    some,
    warn,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.metadata import Metadata
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.linear_model import LinearFit
    from batchcorr.models.moments import Moments

__all__ = [
    "check_batches",
    "check_design",
    "check_fit",
    "check_rate",
    "check_several",
    "check_variance",
    "drop_redundant",
    "warn_of_association",
    "warn_of_extrapolation",
    "warn_of_far",
    "warn_of_lost_digits",
    "warn_of_unadjustable",
]

MANY = 0.5
"""Share of features that cannot be corrected from which on a warning is due."""

EXTRAPOLATED = 100
"""Distance of batches, in what varies inside them, from which on a warning is due."""

CONDITION = 1e7
"""Condition of the products of columns from which on a warning is due."""


def check_design(problem: Problem, *, at_least: int) -> list[int]:
    """The columns to fit, after all that is refused before a fit.

    Parameters
    ----------
    problem
        Design and moments.
    at_least
        The fewest batches that the method works on.

    Raises
    ------
    DesignError
        If there are too few batches, or covariates are confounded with them.
    """
    check_batches(problem.read, problem.metadata, at_least=at_least)
    return drop_redundant(problem)


def check_fit(fit: LinearFit, problem: Problem, columns: list[int]) -> None:
    """Refuse a fit that solved for no feature; warn of what it cannot tell well."""
    check_solved(fit, problem)
    warn_of_association(problem)
    if columns:
        warn_of_extrapolation(problem, columns)
        warn_of_lost_digits(problem, columns)


def check_batches(moments: Moments, metadata: Metadata, *, at_least: int) -> None:
    """Refuse too few batches and batches without rows; warn of small ones."""
    if metadata.n_batches < at_least:
        raise DesignError(findings.one_batch(metadata.levels[0]).text)
    rows = moments.rows[:, 0]
    empty = [
        str(level) for level, n in zip(metadata.levels, rows, strict=True) if not n
    ]
    if empty:
        msg = (
            f"No samples were given of the declared batches {some(empty)}: give "
            "them with partial_fit before the correction is used."
        )
        raise DesignError(msg)
    small = findings.small_batches(metadata.levels, rows)
    if small is not None and metadata.batch is not None:
        warn(small.text, BatchSizeWarning)


def check_rate(alpha: Any) -> None:
    """Refuse a rate of false positives that is none."""
    if not isinstance(alpha, Real) or not 0 < float(alpha) < 1:
        msg = (
            "alpha, the rate of false positives that is wanted, must lie between 0 and 1, "
            f"such as 0.05, not {alpha!r:.60}."
        )
        raise InputError(msg)


def check_spare(moments: Moments, n_columns: int) -> None:
    """Refuse more coefficients than the samples can tell."""
    rows = int(moments.rows.sum())
    if rows - moments.n_batches < n_columns:
        msg = (
            f"{n_columns} covariate columns and {moments.n_batches} batches are more "
            f"than {rows} samples can tell apart: keep fewer covariates."
        )
        raise DesignError(msg)


def check_variance(fit: LinearFit) -> None:
    """Refuse designs that leave nothing to estimate the variance from."""
    rows, n_batches = int(fit.rows.sum()), len(fit.rows)
    n_columns = len(fit.coefficients)
    if rows - n_batches - n_columns < 1:
        msg = (
            f"{rows} samples in {n_batches} batches with {n_columns} "
            "covariate columns leave nothing to estimate the variance from: use fewer "
            "covariates or more samples, or remove_batch_effect, which scales nothing."
        )
        raise DesignError(msg)


def check_several(
    adjustable: NDArray[np.bool_], fit: LinearFit, metadata: Metadata
) -> None:
    """Refuse to learn over features where hardly any can be corrected."""
    if adjustable.sum() > 1:
        return
    unseen = [
        str(level)
        for level, n in zip(metadata.levels, fit.n, strict=True)
        if not n.any()
    ]
    share = f"{int(adjustable.sum())} of {len(adjustable)} features"
    if unseen:
        msg = (
            f"{share} can be corrected: every value of batch {some(unseen)} is missing. "
            "Leave it out."
        )
    else:
        msg = (
            f"{share} vary inside every batch, and empirical Bayes learns from many: use "
            "standardize or remove_batch_effect for single features, and check for "
            "batches in which every feature is constant."
        )
    raise DesignError(msg)


def drop_redundant(problem: Problem) -> list[int]:
    """Return the columns to fit: all but nuisances that say nothing new, with a warning.

    Raises
    ------
    DesignError
        If protected columns are confounded with batch, nuisances or each other.
    """
    metadata, moments, products = problem.metadata, problem.read, problem.products
    names, kept = metadata.names, metadata.kept
    if not names:
        return []
    dropped = redundant_nuisances(products, kept)
    check_spare(moments, len(names) - len(dropped))
    if dropped:
        msg = (
            f"The nuisances {some(repr(names[k]) for k in dropped)} say nothing "
            "that batch and the other nuisances do not say already; they are dropped."
        )
        warn(msg, CovariateWarning)
    complete = (moments.n == moments.rows).all(axis=0).any()
    if complete or not moments.by_feature:  # else some features may not be confounded
        check_estimable(products, names, metadata.terms, kept)
    return [k for k in range(len(names)) if k not in dropped]


def check_solved(fit: LinearFit, problem: Problem) -> None:
    """Refuse covariates whose effects can be estimated for no feature."""
    if fit.solved.any():
        return
    metadata = problem.metadata
    check_estimable(problem.products, metadata.names, metadata.terms, metadata.kept)
    msg = (
        "No feature has enough observed values to estimate the effects of "
        f"{some(sorted(set(metadata.terms)))}: leave some out."
    )
    raise DesignError(msg)


def refuse_without_covariates(metadata: Metadata, why: str, instead: str) -> NoReturn:
    """Say why covariates are needed to correct samples, and how to do without them."""
    names = metadata.covariates.required or ("those of fit",)
    msg = (
        f"{why}: give covariates= with {some(names)}. If they are an outcome that "
        f"is to be predicted, this would leak it into the test samples: fit {instead}."
    )
    raise InputError(msg)


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
            f"{left} of {adjustable.size} features cannot be corrected, and stay as they "
            "are: in some batch they have no values, no variance or too few, or were left "
            "out of its sums. Look at the batch labels, and leave such features out."
        )
        warn(msg, FeatureWarning)


def warn_of_constant(
    moments: Moments, adjustable: NDArray[np.bool_], estimator: Corrector
) -> None:
    """Name the features that stay as they are because a batch has one value of them."""
    whole = (moments.rows > 1) & (moments.n == moments.rows)
    constant = ~adjustable & ((moments.squares == 0) & whole).any(axis=0)
    if constant.any():
        names = some(estimator.feature_names_out_[constant])
        msg = (
            f"{int(constant.sum())} of {len(constant)} features ({names}) are "
            "constant in a batch, and stay as they are: their batch effects are not "
            "removed."
        )
        warn(msg, FeatureWarning)


def warn_of_far(far: NDArray[np.bool_], names: NDArray[Any]) -> None:
    """Name the features that non-parametric priors leave part of an effect in."""
    kept = names[far.any(axis=0)]
    if kept.size:
        msg = (
            f"{kept.size} of {names.size} features ({some(kept)}) keep part of their "
            "batch effects: in some batch no other feature has a similar one, and "
            "non-parametric priors are made of the others. Use parametric priors."
        )
        warn(msg, FeatureWarning)


def warn_of_extrapolation(problem: Problem, columns: list[int]) -> None:
    """Warn of columns in which batches lie far apart for what varies inside them."""
    metadata, products = problem.metadata, problem.products
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
            "what varies inside them. The effect found inside batches is extrapolated "
            "over that distance, and what is uncertain of it with it: give the time "
            "since each batch began, say, or leave it out."
        )
        warn(msg, CovariateWarning)


def warn_of_lost_digits(problem: Problem, columns: list[int]) -> None:
    """Warn of columns whose effects are known to few digits, as only sums are known."""
    metadata, products = problem.metadata, problem.products
    if problem.turned is None and products.condition(columns) > CONDITION:
        names = [metadata.names[k] for k in columns]
        msg = (
            f"The columns {some(map(repr, names))} nearly repeat each other, and sums of "
            "blocks keep few digits of such: results may be off in the seventh. Centre "
            "or scale the covariates, use poly() in the formula, or fit all samples at "
            "once."
        )
        warn(msg, CovariateWarning)


def warn_of_association(problem: Problem) -> None:
    """Warn of protected covariates that batch nearly determines."""
    metadata, products = problem.metadata, problem.products
    if metadata.n_batches < 2:
        return
    for term in dict.fromkeys(metadata.terms[: metadata.kept]):
        columns = [k for k in range(metadata.kept) if metadata.terms[k] == term]
        finding = findings.associated(term, association(products, columns))
        if finding is not None:
            warn(finding.text, AssociationWarning)
