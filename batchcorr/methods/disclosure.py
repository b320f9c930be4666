r"""Whether the sums of a site could give a person away.

A sum over one sample is the sample. The samples of a batch that share all levels are a
cell, and the moments hold the mean of every cell that has an own combination of columns:
so each cell needs some. Numbers single out as well: with

    h = 1/n + (z - z̄)ᵀ S⁻¹ (z - z̄)

the leverage of a sample in its batch, the sums tell its value with an error of
sqrt(1/h - 1) standard deviations of the others, 0 where h = 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.errors import DesignError
from batchcorr.methods.schema import NUMERIC

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.methods.schema import Schema
    from batchcorr.models.design import Design
    from batchcorr.models.moments import Moments
    from batchcorr.models.tables import Table

__all__ = ["FEWEST", "Cell", "check_design", "check_missing"]

FEWEST = 5
"""Samples that a cell needs, and a batch for each design column."""

LEVERAGE = 0.5
"""Leverage from which on the error is less than that of a guess at the mean."""

LISTED = 8
"""Findings that an error lists at most."""


class Cell(NamedTuple):
    """Samples of a batch that share all levels: how they are called, and their rows."""

    name: str
    rows: NDArray[np.intp]


def check_design(design: Design, schema: Schema, table: Table) -> list[Cell]:
    """Refuse batches and levels of few samples, and numbers that single out a sample.

    Parameters
    ----------
    design
        Batches and columns of the site's samples.
    schema
        What the sites agreed on.
    table
        The covariates by name.

    Returns
    -------
    The cells of the site's batches.

    Raises
    ------
    DesignError
        Names all cells, batches and samples, and says what can be done.
    """
    variables = schema.metadata.covariates.variables
    values = [np.asarray(v.encode(table[v.column]), float) for v in variables]
    p = design.columns.shape[1]
    cells: list[Cell] = []
    found: list[str] = []
    for code in np.flatnonzero(design.counts):
        rows = np.flatnonzero(design.codes == code)
        batch = f"batch {schema.batches[code]!r}"
        parts = [
            (variable, value[rows])
            for variable, value in zip(variables, values, strict=True)
            if variable.labels is not None or len(np.unique(value[rows])) <= 2
        ]
        own = _cells(batch, rows, parts)
        cells += own
        small = [f"{c.name} ({len(c.rows)})" for c in own if len(c.rows) < FEWEST]
        found += small
        if NUMERIC not in schema.covariates.values():
            continue
        if len(rows) < FEWEST * p:
            found.append(f"{batch} ({len(rows)}; {FEWEST * p} for {p} design columns)")
        elif not small:
            alone = int((_leverage(design.columns[rows]) > LEVERAGE).sum())
            if alone:
                found.append(f"{batch} ({alone} with numbers far from all others)")
    _refuse(found, f"{FEWEST} samples each, and numbers that are like those of others")
    return cells


def check_missing(x: Any, sums: Moments, schema: Schema, cells: list[Cell]) -> None:
    """Refuse features that few samples of a cell were observed in.

    Parameters
    ----------
    x
        Samples × features, NaN where a value is missing.
    sums
        Their moments.
    schema, cells
        What the sites agreed on, and the cells of this site.

    Raises
    ------
    DesignError
        Names cells, or the covariates that numbers cannot be given for.
    """
    if bool((sums.n == sums.rows).all()):
        return
    numbers = [k for k, levels in schema.covariates.items() if levels == NUMERIC]
    if numbers:
        msg = (
            "Values are missing, so that every feature has its own sums of covariates: "
            f"their differences would tell {', '.join(map(repr, numbers))} of single "
            "samples. Leave out the features with missing values or fill them in, or "
            "make levels of the numbers."
        )
        raise DesignError(msg)
    found = []
    for cell in cells:
        observed = np.asarray((~np.isnan(x[cell.rows])).sum(axis=0))
        few = np.flatnonzero((observed > 0) & (observed < FEWEST))
        if few.size:
            some = ", ".join(schema.features[k] for k in few[:3])
            found.append(f"{cell.name} in {few.size} features ({some})")
    _refuse(found, f"{FEWEST} observed values in every feature, or none")


def _cells(batch: str, rows: NDArray[np.intp], parts: list[Any]) -> list[Cell]:
    """Part the rows of a batch by all levels, and by numbers that are two."""
    keys = np.stack([np.zeros(len(rows)), *(value for _, value in parts)], axis=1)
    kinds, inverse = np.unique(keys, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    cells = []
    for place, kind in enumerate(kinds):
        name = batch
        for (variable, _), value in zip(parts, kind[1:], strict=True):
            level = value if variable.levels is None else variable.levels[int(value)]
            text = f"{level:g}" if variable.levels is None else repr(level)
            name += f" × {variable.column} {text}"
        cells.append(Cell(name, rows[inverse == place]))
    return cells


def _leverage(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the leverage of each row beside a constant: (n,)."""
    centred = columns - columns.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    scaled = centred[:, norms > 0] / norms[norms > 0]
    left, size, _ = np.linalg.svd(scaled, full_matrices=False)
    spanned = left[:, size > 1e-9 * size.max(initial=0)]
    leverage: NDArray[np.float64] = 1 / len(columns) + (spanned**2).sum(axis=1)
    return leverage


def _refuse(found: list[str], needed: str) -> None:
    if not found:
        return
    more = f", … ({len(found) - LISTED} more)" if found[LISTED:] else ""
    msg = (
        f"The sums of this site could give a person away. Needed are {needed}; too few "
        f"are in {', '.join(found[:LISTED])}{more}. Merge levels or batches, keep fewer "
        "covariates, or leave these samples out."
    )
    raise DesignError(msg)
