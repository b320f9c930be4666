"""From an AnnData to a fitted estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._anndata import records
from batchcorr._anndata.features import matched_features
from batchcorr._anndata.labels import ObsLabels, labels_for, read_labels
from batchcorr._anndata.matrices import get_matrix, take_features
from batchcorr._anndata.weights import weights_of
from batchcorr.design.labels import BatchLabels
from batchcorr.design.levels import texts
from batchcorr.errors import InputError, collected, did_you_mean
from batchcorr.estimators.base import Corrector
from batchcorr.methods import get

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from batchcorr.design.labels import Level
    from batchcorr.estimators.metadata import Labels
    from batchcorr.models.namespace import Matrix

__all__ = [
    "fit",
    "fit_matrix",
    "make_estimator",
    "require_correction",
    "with_new_batches",
]


def fit(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    *,
    method: str = "combat",
    covariates: object = None,
    nuisance: object = None,
    weights: object = None,
    layer: str | None = None,
    missing: str = "error",
    subject: str | None = None,
    **parameters: object,
) -> Corrector:
    """Fit a correction to an AnnData without changing the AnnData.

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch; several for `remove_batch_effect`.
    method
        Name of the method: see ``batchcorr methods``.
    covariates
        Covariates to keep: columns of `obs`, a formula, a DataFrame, or a 2-D array.
    nuisance
        Covariates to remove along with batch, as in `pp.combat`, `pp.combat_seq` and
        `pp.remove_batch_effect`.
    weights
        Weights, for `remove_batch_effect` only.
    layer
        Layer to fit to; None: X.
    missing
        Missing labels of batch and covariates raise an ``"error"`` or form a
        ``"level"`` of their own, in new samples too.
    subject
        Column of `obs` with the subject (person) of each sample (combat, standardize,
        remove_batch_effect).
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    A fitted estimator: `pp.apply` corrects an AnnData with it, and its `save` writes it
    to a file. Its `warnings_` are the texts of the warnings of `fit`, which records
    contain too.

    Raises
    ------
    MissingKeyError
        If a column, layer or method does not exist.
    DesignError
        If covariates are confounded with batch.

    Warns
    -----
    RepeatWarning
        If the values were corrected before, according to their record.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> correction = bc.fit(adata, "batch", method="standardize")
    >>> bc.pp.apply(adata, correction, key_added="standardized")
    """
    x = get_matrix(adata, layer)
    labels = read_labels(
        adata, batch_key, covariates, nuisance, missing=missing, subject=subject
    )
    estimator = make_estimator(method, parameters, labels.formula)
    records.warn_if_repeated(records.steps_of(adata, layer, x), layer)
    with collected() as texts:
        weights = weights_of(adata, adata.var_names, weights)
        fit_matrix(x, adata.var_names, estimator, labels, weights)
    estimator.warnings_ = tuple(texts)
    return estimator


def fit_matrix(
    x: Matrix,
    names: pd.Index[str],
    estimator: Corrector,
    labels: ObsLabels,
    weights: object = None,
) -> Labels:
    """Fit an estimator to a matrix; the labels of its rows, to apply it with."""
    if names.is_unique:
        estimator.feature_names_ = tuple(map(str, names))
    read = estimator.fit_labels(x, labels.given, weights)
    estimator.obs_columns_ = labels.keys
    return read


def with_new_batches(
    adata: AnnData,
    correction: Corrector,
    batch_key: str | Sequence[str] | None = None,
    layer: str | None = None,
) -> tuple[Corrector, list[Level]]:
    """The correction with the batches of an AnnData that it does not know, and these.

    Raises
    ------
    InputError
        If the method cannot add batches to a frozen fit.
    """
    given = labels_for(adata, correction, batch_key, None, None).given
    batch = given.batch
    batch = batch.iloc[:, 0] if getattr(batch, "ndim", 1) == 2 else batch
    found, codes = BatchLabels.factorize(batch)
    known = set[str]().union(*map(texts, getattr(correction, "batches_", [])))
    new = [k for k, level in enumerate(found.levels) if not texts(level) & known]
    if not new:
        return correction, []
    if not hasattr(correction, "add_batches"):
        name = correction.record.name
        msg = (
            f"{name} cannot add batches to a frozen correction: fit again with all "
            "batches."
        )
        raise InputError(msg)
    rows, names = np.isin(codes, new), matched_features(adata, correction)
    x = get_matrix(adata, layer)
    x = x if names is None else take_features(x, names)
    parts = {
        "batch": given.batch[rows],
        "covariates": None if given.covariates is None else given.covariates[rows],
        "nuisance": None if given.nuisance is None else given.nuisance[rows],
    }
    return correction.add_batches(x[rows], **parts), [found.levels[k] for k in new]


def make_estimator(
    method: str, parameters: dict[str, Any], formula: str | None
) -> Corrector:
    """The estimator of a method, refusing parameters it does not have."""
    kind = get(method)
    if kind.record.normalizes:
        msg = (
            f"{method} is a normalization and does not correct batches: use "
            f"batchcorr.pp.{method}."
        )
        raise InputError(msg)
    if kind.record.returns != "matrix":
        msg = (
            f"{method} estimates columns for nuisance= and does not correct values: "
            f"use batchcorr.tl.{method}."
        )
        raise InputError(msg)
    known = kind._get_param_names()
    for name in parameters:
        if name not in known:
            msg = f"{method} has no parameter {name!r}. {did_you_mean(name, known)}"
            raise InputError(msg)
    if formula is not None and "formula" in known:  # else covariates are refused
        parameters = parameters | {"formula": formula}
    return kind(**parameters)


def require_correction(correction: object) -> Corrector:
    """A fitted estimator as what it is; anything else is refused."""
    if isinstance(correction, Corrector):
        if correction.record.returns != "matrix":
            msg = (
                f"{type(correction).__name__} estimates columns for nuisance= and does "
                "not correct values: call its transform to get the columns of new "
                "samples."
            )
            raise InputError(msg)
        return correction
    msg = (
        "correction must be a fitted estimator, as returned by batchcorr.fit or "
        f"batchcorr.load, not {correction!r:.60} of type {type(correction).__name__}."
    )
    raise InputError(msg)
