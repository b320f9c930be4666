"""Correct an AnnData: with a method fitted to it, or with a correction fitted elsewhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from batchcorr._anndata.features import warn_of_order
from batchcorr._anndata.fit import fit_matrix, make_estimator, require_correction
from batchcorr._anndata.labels import labels_for, read_labels
from batchcorr._anndata.step import Place, Step, begin
from batchcorr._anndata.weights import weights_of
from batchcorr.errors import CountsWarning, collected, warn
from batchcorr.estimators.scale import warn_if_unlogged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from batchcorr.estimators.base import Corrector

__all__ = ["apply", "correct"]


def correct(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    place: Place,
    *,
    method: str,
    covariates: object = None,
    nuisance: object = None,
    weights: object = None,
    missing: str = "error",
    subject: str | None = None,
    **parameters: object,
) -> AnnData | None:
    """Fit a method to an AnnData and correct the same AnnData; see `pp.correct`."""
    with collected() as texts:
        step = begin(adata, place, corrects=True)
        labels = read_labels(
            step.adata,
            batch_key,
            covariates,
            nuisance,
            missing=missing,
            subject=subject,
        )
        estimator = make_estimator(method, parameters, labels.formula)
        step.allow_dense(estimator)
        weights = weights_of(step.adata, step.names, weights)
        read = fit_matrix(step.x, step.names, estimator, labels, weights)
        step.finish(
            estimator,
            labels.keys,
            texts,
            partial(estimator.apply, labels=read, dense=True),
        )
    return step.adata if place.copy else None


def apply(
    adata: AnnData,
    correction: Corrector,
    place: Place,
    *,
    batch_key: str | Sequence[str] | None = None,
    covariates: object = None,
    nuisance: object = None,
) -> AnnData | None:
    """Correct an AnnData with a correction fitted elsewhere; see `pp.apply`."""
    with collected() as texts:
        texts.extend(require_correction(correction).warnings_)
        step = begin(adata, place, corrects=not correction.record.normalizes)
        step.allow_dense(correction)
        if place.obsm is None:
            warn_of_order(adata, correction)
        if not _normalized_alike(step, correction):
            names = " and ".join(by.record.name for by in correction.normalized_by_)
            msg = (
                f"The correction was fitted to counts after {names}, and these values have "
                "no record of it: give the counts to the transform of each of "
                "correction.normalized_by_ first, as the command batchcorr apply does."
            )
            warn(msg, CountsWarning)
        elif correction.record.scale == "log":
            warn_if_unlogged(step.x, type(correction).__name__)
        labels = labels_for(step.adata, correction, batch_key, covariates, nuisance)
        step.finish(
            correction,
            labels.keys,
            texts,
            partial(correction.apply, labels=labels.given, dense=True),
        )
    return step.adata if place.copy else None


def _normalized_alike(step: Step, correction: Corrector) -> bool:
    """Whether the last steps are those that came before the fit."""
    names = [by.record.name for by in correction.normalized_by_]
    return not names or names == [s["method"] for s in step.earlier[-len(names) :]]
