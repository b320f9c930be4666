"""`--missing`: what becomes of samples whose batch or covariates are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.cli.console import say

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["drop_missing", "treat_missing"]


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


def treat_missing(adata: AnnData, given: dict[str, Any], missing: str) -> AnnData:
    """Data in memory whose missing labels are a level, or whose samples are left out.

    For analyses, which know no `missing`; `given` names the columns.
    """
    adata, _ = drop_missing(adata, dict(given), missing)
    if missing == "level":
        from batchcorr._anndata.missing import with_level
        from batchcorr.estimators.metadata import Labels

        names = list(adata.obs.columns.intersection(_columns(given)))
        labels, _ = with_level(Labels(None, adata.obs[names]))
        adata.obs[names] = labels.covariates
    return adata


def _columns(given: dict[str, Any]) -> list[str]:
    """The columns that batch, covariates and nuisances name."""
    columns: list[str] = []
    for name in ("batch_key", "covariates", "nuisance", "subject", "test"):
        value = given.get(name) or []
        if isinstance(value, str) and value.lstrip().startswith("~"):
            from batchcorr.design.formula import Formula

            columns += [source.column for source in Formula.parse(value).inputs]
        else:
            columns += [value] if isinstance(value, str) else value
    return columns
