"""What a fit refuses and what it warns of, before any estimate is made.

These are the conditions under which correction cannot work or invents results: see
Nygaard et al. 2016 (Biostatistics 17:29) on group effects kept in unbalanced designs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from batchcorr.design import findings
from batchcorr.design.confounding import check_estimable, redundant_nuisances
from batchcorr.errors import (
    BatchSizeWarning,
    CovariateWarning,
    DesignError,
    InputError,
    some,
    warn,
)
from batchcorr.estimators.fit_warnings import warn_of_columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchcorr.design.column_products import ColumnProducts
    from batchcorr.estimators.metadata import Metadata
    from batchcorr.estimators.problem import Problem
    from batchcorr.models.linear_model import LinearFit
    from batchcorr.models.moments import Moments

__all__ = [
    "check_batches",
    "check_design",
    "check_fit",
    "check_several",
    "check_variance",
    "drop_redundant",
    "without_redundant",
]


def check_design(problem: Problem, *, at_least: int) -> list[int]:
    """The columns to fit, after all that is refused before a fit.

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
    if columns:
        warn_of_columns(problem, columns)


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
            f"The declared batches {some(empty)} have no samples yet: add samples with "
            "partial_fit before using the correction."
        )
        raise DesignError(msg)
    small = findings.small_batches(metadata.levels, rows)
    if small is not None and metadata.batch is not None:
        warn(small.text, BatchSizeWarning)


def check_spare(moments: Moments, n_columns: int) -> None:
    """Refuse more coefficients than the samples can tell."""
    rows, n_batches = int(moments.rows.sum()), len(moments.rows)
    if rows - n_batches < n_columns:
        msg = (
            f"{n_columns} covariate columns and {n_batches} batches are too many to "
            f"estimate from {rows} samples: keep fewer covariates."
        )
        raise DesignError(msg)


def check_variance(fit: LinearFit) -> None:
    """Refuse designs that leave nothing to estimate the variance from."""
    rows, n_batches = int(fit.rows.sum()), len(fit.rows)
    n_columns = len(fit.coefficients)
    if rows - n_batches - n_columns < 1:
        msg = (
            f"{rows} samples in {n_batches} batches with {n_columns} covariate columns "
            "leave no degrees of freedom to estimate the variance: use fewer "
            "covariates, more samples, or remove_batch_effect, which needs no "
            "variances."
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
            f"{share} vary within every batch, but empirical Bayes needs at least two: "
            "use standardize or remove_batch_effect for single features, and check for "
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
    if not metadata.names:
        return []
    complete = (moments.n == moments.rows).all(axis=0).any()
    of_one = moments.by_feature and not complete  # whose samples are not all there are
    whole = problem.products_of_rows if of_one else products
    columns = without_redundant(products if whole is None else whole, metadata)
    check_spare(moments, len(columns))
    if whole is not None:
        check_estimable(whole, metadata.names, metadata.terms, metadata.kept)
    return columns


def without_redundant(products: ColumnProducts, metadata: Metadata) -> list[int]:
    """All columns but nuisances that batch and others say already, with a warning."""
    names, dropped = metadata.names, redundant_nuisances(products, metadata.kept)
    if dropped:
        msg = (
            f"The nuisances {some(repr(names[k]) for k in dropped)} are determined by "
            "batch and the other nuisances, and are dropped."
        )
        warn(msg, CovariateWarning)
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
        f"{why}: give covariates= with {some(names)}. If they are an outcome to be "
        "predicted, giving them would leak the outcome into the test samples: fit "
        f"{instead}."
    )
    raise InputError(msg)
