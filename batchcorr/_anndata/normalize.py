"""Normalize an AnnData: the steps before correction, logarithms and quantiles."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from batchcorr._anndata.labels import read_labels
from batchcorr._anndata.step import Place, begin
from batchcorr._files.interrupts import uninterrupted
from batchcorr.errors import LogScaleWarning, collected

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr._anndata.records import Record
    from batchcorr.methods.log_normalize import LogNormalize
    from batchcorr.methods.quantile_normalize import QuantileNormalize

__all__ = [
    "log_normalize",
    "mark_logs",
    "normalize",
    "quantile_normalize",
    "steps_before_logs",
]


def normalize(
    adata: AnnData, estimator: LogNormalize | QuantileNormalize, place: Place
) -> None:
    """Normalize an AnnData by either, all samples alike."""
    if estimator.record.name == "log_normalize":
        log_normalize(adata, cast("LogNormalize", estimator), place)
    else:
        quantile_normalize(adata, None, cast("QuantileNormalize", estimator), place)


def log_normalize(
    adata: AnnData, estimator: LogNormalize, place: Place
) -> AnnData | None:
    """Take logarithms of an AnnData's counts; see `pp.log_normalize`."""
    with collected() as texts:
        step = begin(adata, place)
        step.allow_dense(estimator)
        counts, sizes = estimator.fit_counts(step.x)
        step.earlier = steps_before_logs(step.earlier, texts)
        with uninterrupted():
            step.finish(
                estimator,
                None,
                texts,
                lambda x, out: estimator.logarithms(
                    counts, sizes, out if counts is x else None, dense=True
                ),
            )
            mark_logs(step.adata, estimator, place.key_added or place.layer)
    return step.adata if place.copy else None


def steps_before_logs(steps: list[Record], warned: list[str]) -> list[Record]:
    """The steps that made counts: those that made logarithms were undone since.

    Unless the values look like logarithms, which `warned` tells of.
    """
    if any(text.startswith(LogScaleWarning.__name__) for text in warned):
        return steps
    for place, step in enumerate(steps):
        if step["normalizes"] or step["scale"] != "counts":
            return steps[:place]
    return steps


def mark_logs(adata: AnnData, estimator: LogNormalize, target: str | None) -> None:
    """Note in `obs` what counts were divided by, and in `uns` what scanpy looks for."""
    if estimator.size_factors_ is not None:
        adata.obs["size_factor"] = estimator.size_factors_
    if estimator.prior_count is None and target is None:
        adata.uns["log1p"] = {"base": estimator.base}


def quantile_normalize(
    adata: AnnData, batch_key: str | None, estimator: QuantileNormalize, place: Place
) -> AnnData | None:
    """Give an AnnData's samples one distribution; see `pp.quantile_normalize`."""
    with collected() as texts:
        step = begin(adata, place)
        step.allow_dense(estimator)
        labels = read_labels(step.adata, batch_key, None, None, needed=False)
        estimator.fit(step.x, batch=labels.given.batch)
        step.finish(
            estimator,
            labels.keys,
            texts,
            partial(estimator.apply, labels=labels.given, dense=True),
        )
    return step.adata if place.copy else None
