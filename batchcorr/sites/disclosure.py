r"""Whether batches, levels and numbers of a site could give a person away.

A sum over one sample is the sample. The samples of a batch that share all levels are a
cell, and the moments hold the mean of every cell that has an own combination of columns:
so each cell needs some. Numbers single out as well. The moments tell Σ aᵢxᵢ for every
combination a of columns and a constant; where a sample, or a few together, hold the
share h of Σ aᵢ², their weighted sum is disclosed with an error of sqrt(1/h - 1) standard
deviations of the others, 0 where h = 1. With H the projection onto these combinations,
the largest share of a sample is its leverage, and that of a set K of samples

    h_K = largest eigenvalue of H[K, K],     no larger than the sum of their leverages

so that a set K of four with h_K > 4/5 has a member with a leverage over 1/5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.errors import DesignError, some
from batchcorr.sites.basis import Basis
from batchcorr.sites.schema import NUMERIC

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.design.tables import Table
    from batchcorr.sites.schema import Schema

__all__ = ["FEWEST", "check_design"]

FEWEST = 5
"""Samples that a cell needs, and a batch for each design column."""

LEVERAGE = 0.5
"""Leverage from which on the error is less than that of a guess at the mean."""

SHARE = 0.9
"""Share of fewer than `FEWEST` from which on their sum is disclosed to a third of an SD."""

STEPS = 20
"""Improvements of a set of few samples: more than it takes to settle."""

LISTED = 8
"""Findings that an error lists at most."""


def check_design(design: Design, schema: Schema, table: Table) -> None:
    """Refuse batches and levels of few samples, and numbers that single some out."""
    variables = schema.metadata.covariates.variables
    values = [np.asarray(v.encode(table[v.column]), float) for v in variables]
    p = design.columns.shape[1]
    found: list[str] = []
    for code in np.flatnonzero(design.counts):
        rows = np.flatnonzero(design.codes == code)
        batch = f"batch {schema.batches[code]!r}"
        parts = [
            (variable, value[rows])
            for variable, value in zip(variables, values, strict=True)
            if variable.labels is not None or len(np.unique(value[rows])) <= 2
        ]
        cells = _cells(batch, parts, len(rows))
        small = [f"{name} ({n})" for name, n in cells if n < FEWEST]
        found += small
        if NUMERIC not in schema.covariates.values():
            continue
        if len(rows) < FEWEST * p:
            found.append(f"{batch} ({len(rows)}; {FEWEST * p} for {p} design columns)")
        elif not small:
            columns = design.columns[rows]
            basis = Basis.of(columns).directions(columns)
            alone = int(((basis**2).sum(axis=1) > LEVERAGE).sum())
            if alone:
                found.append(f"{batch} ({alone} with numbers far from all others)")
            elif _largest_share(basis) > SHARE:
                fewer = f"fewer than {FEWEST} with numbers apart from all others"
                found.append(f"{batch} ({fewer})")
    _refuse(
        found,
        f"at least {FEWEST} samples, and no numbers far from those of other samples",
    )


def _cells(batch: str, parts: list[Any], n_rows: int) -> list[tuple[str, int]]:
    """Part a batch by all levels, and by numbers that are two: names and samples."""
    keys = np.stack([np.zeros(n_rows), *(value for _, value in parts)], axis=1)
    cells = []
    for kind, n in zip(*np.unique(keys, axis=0, return_counts=True), strict=True):
        name = batch
        for (variable, _), value in zip(parts, kind[1:], strict=True):
            level = value if variable.levels is None else variable.levels[int(value)]
            text = f"{level:g}" if variable.levels is None else repr(level)
            name += f" × {variable.column} {text}"
        cells.append((name, int(n)))
    return cells


def _largest_share(basis: NDArray[np.float64]) -> float:
    """Return the largest share that fewer than `FEWEST` samples are found to hold.

    From each sample of high leverage: project, keep the few largest weights, repeat;
    the share grows with every step.
    """
    starts = np.flatnonzero((basis**2).sum(axis=1) > 1 / FEWEST)
    if not starts.size:
        return 0.0
    weights = basis @ basis[starts].T
    for _ in range(STEPS):
        others = np.argsort(-np.abs(weights), axis=0)[FEWEST - 1 :]
        np.put_along_axis(weights, others, 0.0, axis=0)
        disclosed = basis.T @ (weights / np.linalg.norm(weights, axis=0))
        weights = basis @ disclosed
    return float((disclosed**2).sum(axis=0).max())


def _refuse(found: list[str], needed: str) -> None:
    if not found:
        return
    msg = (
        "The sums of this site could disclose values of single persons. Each batch and "
        f"combination of levels needs {needed}, which fails in {some(found, LISTED)}. "
        "Merge levels or batches, use a schema with fewer covariates, or leave these "
        "samples out."
    )
    raise DesignError(msg)
