"""Normalize before a correction: logarithms of counts, and quantiles.

`fit` freezes what samples are measured against (the common total, the sample that TMM
compares with, the reference quantiles) in the correction, and `apply` measures new
samples against the same: so `fit` and `apply` give what `correct` gives.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import typer

from batchcorr.cli.console import note

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr.estimators.base import Corrector
    from batchcorr.methods.log_normalize import LogNormalize
    from batchcorr.methods.quantile_normalize import QuantileNormalize

__all__ = ["METHODS", "Normalization", "normalize", "normalize_as_fitted"]

METHODS = (
    "total",
    "tmm",
    "tmmwsp",
    "rle",
    "median_of_ratios",
    "poscounts",
    "upperquartile",
)


class Normalization(NamedTuple):
    """What --log-normalize and --quantile-normalize ask for."""

    log: str | None = None
    quantile: bool = False

    @classmethod
    def of_options(
        cls,
        log: str | None,
        method: str = "",
        *,
        quantile: bool = False,
        voom: str | None = None,
    ) -> Normalization:
        """Check the options.

        Raises
        ------
        typer.BadParameter
            If there is no such way to scale samples, or `method` corrects counts as they
            are, or voom takes logarithms too.
        """
        for option, chosen in (("--log-normalize", log), ("--voom", voom)):
            if chosen is not None and chosen not in METHODS:
                msg = f"there is no method {chosen!r}. Available: {', '.join(METHODS)}."
                raise typer.BadParameter(msg, param_hint=option)
        if voom is not None and (log is not None or quantile):
            msg = "voom normalizes counts itself: leave out --log-normalize and "
            msg += "--quantile-normalize."
            raise typer.BadParameter(msg, param_hint="--voom")
        if method == "combat_seq" and (log is not None or quantile):
            hint = "--log-normalize" if log is not None else "--quantile-normalize"
            msg = "combat_seq corrects raw counts: leave this option out."
            raise typer.BadParameter(msg, param_hint=hint)
        return cls(log, quantile)

    def steps(self) -> list[LogNormalize | QuantileNormalize]:
        """The estimators, in their order, not fitted yet."""
        if self == Normalization():
            return []  # and nothing is imported
        from batchcorr.methods.log_normalize import LogNormalize
        from batchcorr.methods.quantile_normalize import QuantileNormalize

        steps: list[LogNormalize | QuantileNormalize] = []
        steps += [LogNormalize(self.log)] if self.log is not None else []
        steps += [QuantileNormalize()] if self.quantile else []
        return steps


def normalize(
    adata: AnnData,
    chosen: Normalization,
    layer: str | None,
    key_added: str | None = None,
) -> tuple[tuple[Corrector, ...], str | None]:
    """Normalize a matrix.

    Returns
    -------
    The fitted normalizations, and the name of the layer where the result is.
    """
    from batchcorr._anndata import normalize as of_anndata
    from batchcorr._anndata.step import Place

    steps = chosen.steps()
    for each in steps:
        of_anndata.normalize(adata, each, Place(layer, key_added))
        layer = key_added or layer
    return tuple(steps), layer


def normalize_as_fitted(
    adata: AnnData, correction: Corrector, layer: str | None, key_added: str | None
) -> tuple[AnnData, str | None]:
    """Normalize as the samples of `fit` were; the features are then those of `fit`.

    Returns
    -------
    The data, and the name of the layer where the result is.
    """
    if not correction.normalized_by_:
        return adata, layer
    from batchcorr._anndata.features import matched_features
    from batchcorr._anndata.step import Place, begin
    from batchcorr.errors import are, collected
    from batchcorr.estimators.metadata import Labels

    known = adata.var_names.isin(correction.feature_names_ or adata.var_names)
    if not known.all():
        adata = adata[:, known].copy()
        count = f"{(~known).sum():,} of {len(known):,} features"
        verb = are(int((~known).sum()))
        note(f"{count} {verb} not known to the correction, and left out.")
    positions = matched_features(adata, correction)
    if positions is not None:
        adata = adata[:, positions].copy()
    for estimator in correction.normalized_by_:
        change = partial(estimator.apply, labels=Labels(), dense=True)
        with collected() as texts:
            begin(adata, Place(layer, key_added)).finish(estimator, None, texts, change)
        layer = key_added or layer
    return adata, layer
