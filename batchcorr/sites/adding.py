"""Add the sums of all sites, if they were computed with the same schema."""

from __future__ import annotations

from dataclasses import fields
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.design.column_products import ColumnProducts
from batchcorr.errors import DesignError, InputError, some
from batchcorr.models.moments import Moments
from batchcorr.sites.moments_file import SiteMoments
from batchcorr.sites.schema import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchcorr.sites.schema import Schema

__all__ = ["add", "read_sites"]

SAME = 1e-9
"""Difference, relative to the largest, up to which sums are of the same samples."""


def read_sites(
    sites: SiteMoments
    | str
    | PathLike[str]
    | Iterable[SiteMoments | str | PathLike[str]],
) -> dict[str, SiteMoments]:
    """Read the moments of every site, by the name of the site or of its file.

    Raises
    ------
    InputError
        If something other than moments is given.
    FileError
        If a file is damaged.
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
                "Each site must be a SiteMoments, as batchcorr.sites.moments returns "
                f"it, or the path of its file, not {type(sums).__name__}."
            )
            raise InputError(msg)
        given[name if name not in given else f"{name} ({place})"] = sums
    return given


def add(sites: Mapping[str, SiteMoments]) -> tuple[Moments, Schema]:
    """The moments of all rows of sites that agree, and what they agree on.

    Raises
    ------
    DesignError
        If schemas differ, samples are given twice, or no site has samples of a batch or
        level.
    """
    if not sites:
        msg = "No sites were given: give the moments of at least one."
        raise InputError(msg)
    (first, site), *others = sites.items()
    sums, schema = site.moments, site.schema
    for name, other in others:
        differences = _differences(schema, other.schema)
        if differences:
            msg = (
                f"{first} and {name} were made with different schemas: "
                f"{'; '.join(differences)}. Compute the moments again with one schema "
                "for all sites."
            )
            raise DesignError(msg)
    names = list(sites)
    for place, one in enumerate(names):
        for two in names[place + 1 :]:
            again = _in_both(sites[one], sites[two])
            if again:
                msg = (
                    f"{one} and {two} contain the same samples of batch "
                    f"{some(map(repr, again))}: give each sample only once."
                )
                raise DesignError(msg)
    for _, other in others:
        sums = sums.merge(other.moments)
    _require_everything(sums, schema)
    return sums, schema


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
            f"No site has samples of the batches {some(absent)}: give the files of all "
            "sites, or compute the moments with a schema without these batches."
        )
        raise DesignError(msg)
    total = (
        np.diag(ColumnProducts.of_moments(sums).total)
        if schema.columns
        else np.empty(0)
    )
    counts = (sums.n[:, None, :] * sums.columns).sum(axis=0)
    terms = np.asarray(schema.metadata.terms)
    for name, levels in schema.covariates.items():
        mine = terms == name
        if levels == NUMERIC:
            missing = [] if (total[mine] > 0).all() else ["more than one value"]
        else:
            rest = sums.n.sum(axis=0) - counts[mine].sum(axis=0)
            samples = [rest.max(), *counts[mine].max(axis=-1)]
            missing = [
                repr(level) for level, n in zip(levels, samples, strict=True) if n < 0.5
            ]
        if missing:
            msg = (
                f"No site has samples with {some(missing)} of the covariate {name!r}: "
                "compute the moments with a schema without it."
            )
            raise DesignError(msg)
