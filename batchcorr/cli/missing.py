"""`--missing`: what becomes of samples whose batch or covariates are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from batchcorr.cli.console import say

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["Missing", "drop_missing", "note_left_out"]

Missing = Annotated[
    Literal["error", "level", "drop"],
    typer.Option(
        "--missing",
        metavar="HOW",
        help="Missing labels: error, level (of their own) or drop (the samples).",
    ),
]


def drop_missing(
    adata: AnnData, given: dict[str, Any], missing: str
) -> tuple[AnnData, int]:
    """The samples that have all the labels that are asked for, and how many have not.

    Sets `given["missing"]` for "level", and says how many samples were left out.
    """
    if missing == "level":
        given["missing"] = missing
    if missing != "drop":
        return adata, 0
    import numpy as np

    from batchcorr._anndata.missing import missing_in

    keep = np.ones(adata.n_obs, dtype=bool)
    for column in adata.obs.columns.intersection(_columns(given)):
        keep &= ~missing_in(adata.obs[column]).to_numpy()
    left_out = int((~keep).sum())
    if left_out:
        say(
            f"{left_out} of {adata.n_obs} samples left out, as their batch or covariates "
            "are missing."
        )
        adata = adata[keep].copy()
    return adata, left_out


def note_left_out(adata: AnnData, key: str, left_out: int) -> None:
    """Add the number of samples that were left out to a record."""
    from batchcorr._anndata import records

    record = records.read(adata, key)
    if left_out and record is not None:
        records.write(adata, key, record | {"samples_left_out": left_out})


def _columns(given: dict[str, Any]) -> list[str]:
    """The columns that batch, covariates and nuisances name."""
    columns: list[str] = []
    for name in ("batch_key", "covariates", "nuisance", "subject"):
        value = given.get(name) or []
        if isinstance(value, str) and value.lstrip().startswith("~"):
            from batchcorr.design.formula import Formula

            columns += [source.column for source in Formula.parse(value).inputs]
        else:
            columns += [value] if isinstance(value, str) else value
    return columns
