"""Moments of sites that cannot share rows: gathered under guard, added, fitted.

A site sends sums over its samples and no sample. Sums over few are samples in disguise,
so that a site whose batches or levels are small is refused before anything is written.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.arrays import moments
from batchcorr.errors import DesignError, InputError, some
from batchcorr.estimators.checks import spread_of
from batchcorr.estimators.matrix import as_matrix, warn_of_counts
from batchcorr.models.moments import Moments
from batchcorr.sites.disclosure import check_design
from batchcorr.sites.schema import NUMERIC
from batchcorr.sites.moments_file import SiteMoments
from batchcorr.sites.left_out import withhold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.estimators.location_scale import LocationScaleMethod
    from batchcorr.sites.schema import Schema

__all__ = ["fit_sites", "gather"]

SAME = 1e-9
"""Difference, relative to the largest, up to which sums are of the same samples."""


def gather(x: Any, schema: Schema, batch: Any, covariates: Any = None) -> SiteMoments:
    """Gather the moments of one site, unless they could give a person away.

    Parameters
    ----------
    x
        Samples × features of the schema, in its order.
    schema
        What the sites agreed on.
    batch
        Batch of each sample.
    covariates
        A table with the covariates of the schema.

    Raises
    ------
    DesignError
        If a label is not in the schema, too few samples share a batch and levels, or no
        feature of a batch can be given.
    InputError
        If the features are not those of the schema.

    Warns
    -----
    FeatureWarning
        Names the features that are left out, and why.
    """
    x = as_matrix(x)
    if x.shape[1] != len(schema.features) or not x.shape[0]:
        msg = (
            f"The data are {x.shape[0]} samples × {x.shape[1]} features, and the schema "
            f"has {len(schema.features)} features."
        )
        raise InputError(msg)
    design, table = schema.design(x.shape[0], batch, covariates)
    check_design(design, schema, table)
    warn_of_counts(x, "A location-scale method")
    sums = moments(x, design)
    return SiteMoments(schema, withhold(x, sums, schema, design))


def fit_sites(
    estimator: LocationScaleMethod, sites: Mapping[str, SiteMoments]
) -> LocationScaleMethod:
    """Fit an estimator to the moments of all sites together.

    Parameters
    ----------
    estimator
        The estimator, which is changed.
    sites
        The moments by the name of the site or file.
    """
    sums = _added(sites)
    schema = next(iter(sites.values())).schema
    _require_everything(sums, schema)
    estimator.fit_moments(sums, schema.metadata)
    estimator.feature_names_ = schema.features
    estimator.obs_columns_ = {
        "batch": schema.batch_key,
        "covariates": list(schema.covariates) or None,
        "nuisance": None,
    }
    return estimator


def _added(sites: Mapping[str, SiteMoments]) -> Moments:
    """Add the moments of sites that agree, each once."""
    if not sites:
        msg = "There are no sites: give the moments of one at least."
        raise InputError(msg)
    (first, site), *others = sites.items()
    sums, schema = site.moments, site.schema
    for name, other in others:
        differences = schema.differences(other.schema)
        if differences:
            msg = (
                f"{first} and {name} were made with different schemas: "
                f"{'; '.join(differences)}. Gather again with one schema for all sites."
            )
            raise DesignError(msg)
    names = list(sites)
    for place, one in enumerate(names):
        for two in names[place + 1 :]:
            again = _in_both(sites[one], sites[two])
            if again:
                msg = (
                    f"{one} and {two} hold the same samples of batch "
                    f"{some(map(repr, again))}: give each sample once."
                )
                raise DesignError(msg)
    for _, other in others:
        sums = sums.merge(other.moments)
    return sums


def _in_both(one: SiteMoments, two: SiteMoments) -> list[Any]:
    """Return the batches whose moments are the same at two sites, but for rounding."""
    a, b = one.moments, two.moments
    return [
        level
        for k, level in enumerate(one.schema.batches)
        if a.rows[k, 0] > 0
        and all(
            _same(getattr(a, f.name)[k], getattr(b, f.name)[k]) for f in fields(Moments)
        )
    ]


def _same(one: Any, two: Any) -> bool:
    """Whether two arrays are the same but for rounding, as by the order of rows."""
    size = np.abs(one).max(initial=0)
    return bool(
        one.shape == two.shape and np.allclose(one, two, rtol=0, atol=SAME * size)
    )


def _require_everything(sums: Moments, schema: Schema) -> None:
    """Refuse batches and levels that no site has: what of them is unknown."""
    rows = sums.rows[:, 0]
    absent = [repr(b) for b, n in zip(schema.batches, rows, strict=True) if not n]
    if absent:
        msg = (
            f"No site holds samples of the batches {some(absent)}: give the files "
            "of all sites, or gather with a schema without these batches."
        )
        raise DesignError(msg)
    total = np.diag(spread_of(sums).total) if schema.columns else np.empty(0)
    counts = (sums.n[:, None, :] * sums.columns).sum(axis=0)
    terms = np.asarray(schema.metadata.terms)
    for name, levels in schema.covariates.items():
        mine = terms == name
        if levels == NUMERIC:
            missing = [] if (total[mine] > 0).all() else ["more than one value"]
        else:
            rest = sums.n.sum(axis=0) - counts[mine].sum(axis=0)
            held = [rest.max(), *counts[mine].max(axis=-1)]
            missing = [
                repr(level) for level, n in zip(levels, held, strict=True) if n < 0.5
            ]
        if missing:
            msg = (
                f"No site holds {some(missing)} of the covariate {name!r}: gather "
                "with a schema without it."
            )
            raise DesignError(msg)
