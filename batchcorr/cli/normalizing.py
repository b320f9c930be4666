"""Normalize before a correction: logarithms of counts, and quantiles.

`fit` freezes what samples are measured against (the common total, the sample that TMM
compares with, the reference quantiles) in the correction, and `apply` measures new
samples against the same: so `fit` and `apply` give what `correct` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from batchcorr.cli.console import note

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr.estimators.base import Corrector

__all__ = ["METHODS", "Normalization", "apply_steps", "fit_steps", "normalize"]

METHODS = ("total", "tmm", "tmmwsp", "rle", "poscounts", "upperquartile")


class Normalization(NamedTuple):
    """What --log-normalize and --quantile-normalize ask for."""

    log: str | None = None
    quantile: bool = False

    @classmethod
    def of_options(
        cls, log: str | None, method: str = "", *, quantile: bool
    ) -> Normalization:
        """Check the options.

        Raises
        ------
        typer.BadParameter
            If there is no such method, or `method` corrects counts as they are.
        """
        if log is not None and log not in METHODS:
            msg = f"there is no {log!r}. Available: {', '.join(METHODS)}."
            raise typer.BadParameter(msg, param_hint="--log-normalize")
        if method == "combat_seq" and (log is not None or quantile):
            hint = "--log-normalize" if log is not None else "--quantile-normalize"
            msg = "combat_seq corrects counts as they are: leave it out."
            raise typer.BadParameter(msg, param_hint=hint)
        return cls(log, quantile)


def normalize(
    adata: AnnData, chosen: Normalization, layer: str | None, key_added: str | None
) -> str | None:
    """Normalize a matrix and return the name of the layer where the result is."""
    from batchcorr import pp

    if chosen.log is not None:
        pp.log_normalize(adata, method=chosen.log, layer=layer, key_added=key_added)
        layer = key_added or layer
    if chosen.quantile:
        pp.quantile_normalize(adata, layer=layer, key_added=key_added)
        layer = key_added or layer
    return layer


def fit_steps(
    adata: AnnData, chosen: Normalization, layer: str | None
) -> tuple[Corrector, ...]:
    """Fit normalizations, and leave the normalized matrix where it was read."""
    from batchcorr._anndata.matrices import get_matrix, set_matrix
    from batchcorr.methods import get

    steps: list[Any] = []
    if chosen.log is not None:
        steps.append(get("log_normalize")(method=chosen.log))
    if chosen.quantile:
        steps.append(get("quantile_normalize")())
    for step in steps:
        result = step.fit_transform(get_matrix(adata, layer))
        set_matrix(adata, result, layer, None)
    return tuple(steps)


def apply_steps(
    adata: AnnData, correction: Corrector, layer: str | None, key_added: str | None
) -> tuple[AnnData, str | None]:
    """Normalize as the samples of `fit` were; the features are then those of `fit`.

    Returns
    -------
    The data, and the name of the layer where the result is.
    """
    if not correction.normalized_by_:
        return adata, layer
    from batchcorr._anndata.fitted import positions_of
    from batchcorr._anndata.matrices import get_matrix, set_matrix, write_record
    from batchcorr._anndata.normalize import record_of
    from batchcorr.estimators.metadata import Labels

    known = adata.var_names.isin(correction.feature_names_ or adata.var_names)
    if not known.all():
        adata = adata[:, known].copy()
        count = f"{(~known).sum():,} of {len(known):,} features"
        note(f"{count} are not known to the correction, and are left out.")
    positions = positions_of(adata, correction)
    if positions is not None:
        adata = adata[:, positions].copy()
    for step in correction.normalized_by_:
        result = step.apply(get_matrix(adata, layer), Labels())
        record = record_of(adata, step, layer, [])
        set_matrix(adata, result, layer, key_added)
        layer = key_added or layer
        write_record(adata, f"{layer or 'X'}.{step.record.name}", record)
    return adata, layer
