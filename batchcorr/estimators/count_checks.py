"""What ComBat-seq refuses before it fits: designs and options that cannot work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.design.column_products import TOLERANCE, ColumnProducts
from batchcorr.design.confounding import check_estimable
from batchcorr.errors import DesignError, InputError, some
from batchcorr.estimators import checks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.estimators.inputs import SampleNames
    from batchcorr.estimators.metadata import Metadata

__all__ = ["check_design", "check_shrinkage", "require_counts"]


def check_shrinkage(estimator: Any) -> None:
    """Refuse options of shrinkage that contradict each other."""
    if estimator.shrink_dispersion and not estimator.shrink:
        msg = "shrink_dispersion=True needs shrink=True."
        raise InputError(msg)
    if estimator.reference is not None and estimator.shrink:
        msg = (
            "shrink=True and reference= cannot be combined: with a reference, batch "
            "effects are not shrunk. Leave one of them out."
        )
        raise InputError(msg)
    subset = estimator.gene_subset
    if subset is not None and (not isinstance(subset, int) or subset < 1):
        msg = f"gene_subset must be a number of features, at least 1, not {subset!r}."
        raise InputError(msg)


def check_design(design: Design, metadata: Metadata) -> list[int]:
    """The columns to fit: all but nuisances that say nothing new, with a warning.

    Raises
    ------
    DesignError
        If there is one batch, or one of one sample, or covariates are confounded.
    """
    if metadata.n_batches < 2:
        msg = (
            f"There is only one batch, {metadata.levels[0]!r}, so there is nothing to "
            "correct. Check that this is the right column."
        )
        raise DesignError(msg)
    single = [
        repr(level)
        for level, n in zip(metadata.levels, design.counts, strict=True)
        if n < 2
    ]
    if single:
        msg = (
            f"Batches with only one sample: {some(single)}. ComBat-seq estimates a "
            "dispersion in every batch and needs at least two samples for it: merge "
            "these batches with batches that were processed in the same way, leave "
            "them out, or take logarithms and use combat, which then corrects means "
            "only."
        )
        raise DesignError(msg)
    if not metadata.names:
        return []
    products = replace(ColumnProducts.of_design(design), tolerance=TOLERANCE)
    check_estimable(products, metadata.names, metadata.terms, metadata.kept)
    return checks.without_redundant(products, metadata)


def require_counts(library: NDArray[np.float64], names: SampleNames) -> None:
    """Refuse samples without counts in the features that are adjusted."""
    empty = np.flatnonzero(library <= 0)
    if empty.size:
        msg = (
            f"{empty.size} of {library.size} samples ({names(empty)}) have no counts "
            "in the features that have counts in all batches, so that their library "
            "size is unknown: leave them out."
        )
        raise InputError(msg)
