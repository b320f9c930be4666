"""What an audit reads from the values: scale, library sizes, features, variances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import fdtrc

from batchcorr.arrays import moments
from batchcorr.design.findings import Finding, no_batch_effect
from batchcorr.errors import are, some
from batchcorr.estimators.fit_warnings import FEATURES, find_corrected
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.scale import unlogged
from batchcorr.models.batch_and_chance import batch_over_chance
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.moderated_t import adjust
from batchcorr.models.one_step_test import with_batch_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]

__all__ = ["Values", "audit_values"]

APART = 2.0
"""Ratio of the largest to the smallest library, by batch, from which on it is told."""

ALPHA, BY_CHANCE, CALLED = 0.05, 0.08, 0.001
"""Level of a test of batch, and shares of features with p and adjusted p under it up to
which batch is left alone."""


class Values(NamedTuple):
    """What was read.

    Attributes
    ----------
    findings
        About the values.
    by_batch
        Columns for the table of batches: (B,) each.
    variance
        σ_b² of each batch, of mean log 0; None where it cannot be known: (B,).
    """

    findings: list[Finding]
    by_batch: dict[str, NDArray[Any]]
    variance: Floats | None


def audit_values(given: object, design: Design, names: Sequence[str]) -> Values:
    """Read a matrix once and say what it means for a correction."""
    x = as_matrix(given)
    scale = unlogged(x)
    sums = moments(x, design)
    present = np.broadcast_to(sums.n > 0, sums.mean.shape)
    by_batch: dict[str, NDArray[Any]] = {}
    if scale == "counts":
        by_batch["mean_library_size"] = np.where(present, sums.mean, 0).sum(axis=1)
    by_batch["features_seen"] = (present & ((sums.mean != 0) | (sums.squares > 0))).sum(
        axis=1
    )
    found = [*_of_scale(scale, by_batch), *_of_features(sums, names, present)]
    of_batch = find_corrected(sums) or _find_no_effect(sums)
    found += [] if of_batch is None else [of_batch]
    return Values(found, by_batch, _variance(sums))


def _of_scale(scale: str, by_batch: dict[str, NDArray[Any]]) -> Iterator[Finding]:
    if scale == "counts":
        yield Finding(
            "notes",
            "counts",
            "The values look like raw counts.",
            "Take logarithms first (batchcorr.pp.log_normalize), or correct counts by "
            "batchcorr.pp.combat_seq.",
        )
        sizes = by_batch["mean_library_size"]
        ratio = sizes.max() / max(sizes.min(), 1e-300)
        if ratio > APART:
            yield Finding(
                "notes",
                "library_sizes",
                "Mean library sizes differ between batches by a factor of up to "
                f"{ratio:.1f}.",
                "Normalization removes differences in depth, but not the larger noise "
                "of small counts.",
            )
    if scale == "normalized":
        yield Finding(
            "warns",
            "not_logged",
            "The values look normalized but not log-transformed: batch effects on them "
            "are multiplicative.",
            "Take logarithms first, such as numpy.log1p.",
        )


def _of_features(
    sums: Moments, names: Sequence[str], present: NDArray[np.bool_]
) -> Iterator[Finding]:
    several = sums.rows > 1
    constant = (sums.squares == 0) & several & present
    everywhere = constant.all(axis=0)
    partly = constant.any(axis=0) & ~everywhere
    if partly.any():
        yield Finding(
            "notes",
            "constant_features",
            f"{partly.sum()} of {len(names)} features are constant in some batch, but "
            f"not in all ({some(np.asarray(names)[partly])}): ComBat does not change "
            "them.",
            "Leave out features that are detected in few samples.",
        )
    seen = present & ((sums.mean != 0) | (sums.squares > 0))
    private = (seen.sum(axis=0) == 1) & (len(seen) > 1)
    if private.any():
        yield Finding(
            "notes",
            "private_features",
            f"{private.sum()} of {len(names)} features {are(private.sum())} 0 in all "
            f"batches but one ({some(np.asarray(names)[private])}).",
            "Check whether all batches were counted with the same annotation.",
        )
    missing = ~present
    if missing.any():
        lacking = missing.any(axis=0)
        yield Finding(
            "notes",
            "missing_in_batch",
            f"{lacking.sum()} of {len(names)} features have no value in some batch "
            f"({some(np.asarray(names)[lacking])}): they cannot be corrected there.",
            "They are returned unchanged.",
        )


def _find_no_effect(sums: Moments) -> Finding | None:
    """That batch means differ as by chance: None where they do not, or few tell."""
    if sums.n_batches < 2:
        return None
    df = sums.n.sum(axis=0) - sums.n_batches - sums.n_columns
    ratio = batch_over_chance(sums)[0]
    known = np.isfinite(ratio) & (df > 0)
    if known.sum() < FEATURES:
        return None
    df = np.broadcast_to(df, ratio.shape)[known]
    p = fdtrc(sums.n_batches - 1, df, ratio[known])
    share, called = float((p <= ALPHA).mean()), adjust(p) <= ALPHA
    if share > BY_CHANCE or called.mean() > CALLED:
        return None
    return no_batch_effect(share, int(called.sum()))


def _variance(sums: Moments) -> Floats | None:
    """The variances of batches over all features, by restricted maximum likelihood."""
    fit = LinearFit.of(sums)
    residual = sums.rows.sum() - sums.n_batches - sums.n_columns
    complete = (sums.n == sums.rows).all(axis=0).any()
    if sums.n_batches < 2 or residual < 2 or not (complete and fit.solved.any()):
        return None
    return np.asarray(1 / with_batch_weights(sums)[1], dtype=np.float64)
