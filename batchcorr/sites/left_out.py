r"""Which features are left out of the sums of a site, because they could give it away.

Where all but a few samples have one value, zero mostly, the sums of a feature are those
of the few: with one, x̄, M and C tell its value and all its covariates. So are they where
one sample is so far off that it holds most of M:

    q = n/(n - 1) (x - x̄)² / M,       z told with an error of sqrt(1/q - 1) SD

And where values are missing, a feature has its own sums of covariates; their differences
between features are the covariates of the samples that lack one. Where values hold so
few bits that the sums would tell them even if told with few digits (`rounding`), no sum
is told.

Such a feature is left out of that batch, as if nobody had measured it there: n = 0.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import DesignError, FeatureWarning, some, warn
from batchcorr.sites.disclosure import FEWEST, LISTED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.differing import Differing
    from batchcorr.models.moments import Moments
    from batchcorr.sites.schema import Schema

__all__ = ["leave_out"]

OUTLYING = 6.0
"""Standard deviations of the others that a sample may lie off, if it holds most of M."""


def leave_out(
    sums: Moments,
    values: Differing,
    schema: Schema,
    disclosed: NDArray[np.bool_] | None = None,
) -> Moments:
    """Leave out the features of each batch that could give a person away.

    Parameters
    ----------
    values
        How many values differ from the most common one, and between what they lie.
    disclosed
        Features whose values the sums would disclose, however rounded: (B, G).

    Returns
    -------
    The moments, with n = 0 and nothing else where a feature was left out.

    Raises
    ------
    DesignError
        If a batch has no feature left.

    Warns
    -----
    FeatureWarning
        Names what was left out, and why.
    """
    reasons = _reasons(sums, values, has_covariates=bool(schema.covariates))
    if disclosed is not None:
        before = np.logical_or.reduce([*reasons.values()])
        reasons["with values or digits so few that the sums would disclose them"] = (
            disclosed & ~before
        )
    left_out = np.logical_or.reduce([*reasons.values()])
    if not left_out.any():
        return sums
    found = [
        f"batch {schema.batches[batch]!r}: {_named(schema, features[batch])} {reason}"
        for batch in range(sums.n_batches)
        for reason, features in reasons.items()
        if features[batch].any()
    ]
    more = f"; … ({len(found) - LISTED} more)" if found[LISTED:] else ""
    what = f"{'; '.join(found[:LISTED])}{more}"
    if left_out.all(axis=1).any():
        msg = (
            "In some batch, the sums of every feature could disclose values of single "
            f"persons: {what}. Merge batches, fill in missing values, or use a schema "
            "with fewer covariates."
        )
        raise DesignError(msg)
    msg = (
        "Some features could disclose values of single persons and are left out of the "
        f"sums, as if they were not measured: {what}. A feature that is left out of a "
        "batch at all sites is not corrected."
    )
    warn(msg, FeatureWarning)
    return _without(sums, left_out)


def _reasons(
    sums: Moments, values: Differing, *, has_covariates: bool
) -> dict[str, NDArray[np.bool_]]:
    """Why features are left out, and which of each batch: (B, G), each once."""
    n = np.broadcast_to(sums.n, sums.mean.shape)
    if has_covariates:
        why = "with missing values, which would disclose covariates"
        gaps = (n > 0) & (n < sums.rows)
    else:
        why = f"with fewer than {FEWEST} values"
        gaps = (n > 0) & (n < FEWEST)
    common = 2 * values.unequal < n  # else no value is common
    few = common & (values.unequal > 0) & (values.unequal < FEWEST)
    few |= (values.nonzero > 0) & (values.nonzero < FEWEST)
    farthest = np.maximum(values.high - sums.mean, sums.mean - values.low)
    own = np.where(n > 0, farthest, 0.0) ** 2 * n / np.maximum(n - 1, 1)
    odds = np.maximum(1.0, OUTLYING**2 / np.maximum(n - 2, 1))
    far = (sums.squares > 0) & (own > odds * (sums.squares - own))
    return {
        why: gaps,
        f"in which fewer than {FEWEST} samples differ from the rest": few & ~gaps,
        "in which one sample outweighs the rest": far & ~few & ~gaps,
    }


def _named(schema: Schema, features: NDArray[np.bool_]) -> str:
    places = np.flatnonzero(features)
    return f"{len(places)} ({some([schema.features[k] for k in places], 3)})"


def _without(sums: Moments, left_out: NDArray[np.bool_]) -> Moments:
    """The moments as if nothing had been measured where a feature is left out."""
    n_batches, n_features = left_out.shape
    parts = {}
    for field in fields(sums):
        array = getattr(sums, field.name)
        if field.name != "rows":
            between = (1,) * (array.ndim - 2)
            mask = left_out.reshape(n_batches, *between, n_features)
            parts[field.name] = np.where(mask, 0.0, array)
    return replace(sums, **parts)
