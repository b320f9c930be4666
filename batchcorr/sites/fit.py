"""One correction from the sums of all sites, as if their rows were together."""

from __future__ import annotations

from dataclasses import fields
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._anndata.fit import make_estimator
from batchcorr.errors import DesignError, InputError, some
from batchcorr.estimators.checks import spread_of
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.models.moments import Moments
from batchcorr.sites.moments_file import SiteMoments
from batchcorr.sites.schema import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchcorr.estimators.location_scale import LocationScaleMethod
    from batchcorr.sites.schema import Schema

__all__ = ["fit"]

SAME = 1e-9
"""Difference, relative to the largest, up to which sums are of the same samples."""


def fit(
    sites: Iterable[SiteMoments | str | PathLike[str]],
    *,
    method: str = "combat",
    **parameters: Any,
) -> LocationScaleMethod:
    """Fit a correction to the moments of sites, as if their rows were together.

    Parameters
    ----------
    sites
        The moments of every site, or their files.
    method
        Name of a location-scale method.
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    A fitted estimator: each site corrects its own samples with `pp.apply`.

    Raises
    ------
    DesignError
        If sites were gathered by different schemas or given twice, a batch or level is
        at no site, or covariates are confounded with batch.
    InputError
        If the method cannot be fitted to moments.
    FileError
        If a file is damaged.

    Notes
    -----
    Equal to the fit on all rows, but for the rounding of the sums: about 1e-6 of a
    standard deviation, and more where batches have few samples; to 1e-10 if all sites
    gave exact ones. The covariates are those of the schema.

    Examples
    --------
    >>> import anndata, numpy as np, batchcorr as bc
    >>> adata = anndata.AnnData(np.random.default_rng(0).normal(size=(20, 3)))
    >>> adata.obs["batch"] = ["oslo"] * 10 + ["lyon"] * 10
    >>> schema = bc.sites.make_schema(adata, "batch", units="log2 CPM")
    >>> sites = [bc.sites.moments(site, schema) for site in (adata[:10], adata[10:])]
    >>> correction = bc.sites.fit(sites, method="standardize")
    >>> bc.pp.apply(adata, correction)
    """
    if isinstance(sites, SiteMoments | str | PathLike):
        sites = [sites]
    given: dict[str, SiteMoments] = {}
    for place, site in enumerate(sites, start=1):
        name, sums = f"site {place}", site
        if isinstance(sums, str | PathLike):
            name, sums = fspath(sums), SiteMoments.load(sums)
        if not isinstance(sums, SiteMoments):
            msg = (
                "Sites are given as moments, as batchcorr.sites.moments returns them, or as "
                f"their files, not as {type(sums).__name__}."
            )
            raise InputError(msg)
        given[name if name not in given else f"{name} ({place})"] = sums
    if "formula" in parameters:
        msg = "Moments take no formula: the schema says which covariates are kept."
        raise InputError(msg)
    estimator = make_estimator(method, parameters, None)
    if not fits_moments(estimator):
        msg = (
            f"{method} cannot be fitted to moments, as it needs the samples: use a "
            "location-scale method, such as combat."
        )
        raise InputError(msg)
    return _fitted(estimator, given)


def _fitted(
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
        differences = _differences(schema, other.schema)
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


def _differences(ours: Schema, theirs: Schema) -> list[str]:
    """In what two schemas differ, one phrase for each: nothing if they are the same."""
    found = []
    if ours.features != theirs.features:
        apart = sorted({*ours.features} ^ {*theirs.features})
        what = (
            f"{len(apart)} in one only: {some(apart, 3)}"
            if apart
            else "in another order"
        )
        found.append(f"features ({what})")
    pairs = [(what, getattr(ours, what), getattr(theirs, what))
             for what in ("batches", "units", "batch_key")]  # fmt: skip
    pairs.append(("covariates", tuple(ours.covariates), tuple(theirs.covariates)))
    pairs += [
        (f"levels of {name!r}", levels, theirs.covariates.get(name, levels))
        for name, levels in ours.covariates.items()
    ]
    for what, one, two in pairs:
        if one != two:
            shown = [some([x] if isinstance(x, str) else x) for x in (one, two)]
            found.append(f"{what} ({shown[0]} and {shown[1]})")
    return found


def _in_both(one: SiteMoments, two: SiteMoments) -> list[Any]:
    """The batches whose moments are the same at two sites, but for rounding."""
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
