"""From AnnData to AnnData: get, fit, apply, set, and write down what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._anndata import matrices
from batchcorr._anndata.fitted import (
    labels_for,
    positions_of,
    require_correction,
    warn_of_places,
)
from batchcorr._anndata.interrupts import uninterrupted
from batchcorr._anndata.labels import ObsLabels, read_labels
from batchcorr._anndata.noting import Noting
from batchcorr.errors import (
    InputError,
    RepeatWarning,
    did_you_mean,
    warn,
)
from batchcorr.estimators.densify import allow_dense
from batchcorr.estimators.matrix import (
    as_matrix,
    becomes_dense,
    is_sparse,
    warn_of_counts,
)
from batchcorr.estimators.saving import versions
from batchcorr.methods import get

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from batchcorr.estimators.base import Corrector

__all__ = [
    "apply",
    "correct",
    "fit",
    "fit_labels",
    "fit_matrix",
    "make_estimator",
    "positions_of",
]

NOT_FOR_TESTING = (
    "Corrected values are for plots, clustering and prediction, not for differential "
    "testing: test the uncorrected values with batch in the model."
)


def fit(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    *,
    method: str = "combat",
    covariates: Any = None,
    nuisance: Any = None,
    weights: Any = None,
    layer: str | None = None,
    **parameters: Any,
) -> Corrector:
    """Learn a correction from an AnnData and leave the AnnData as it is.

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch; several for `remove_batch_effect`.
    method
        Name of the method: see ``batchcorr methods``.
    covariates
        What to keep: columns of `obs`, a formula over them, or a table.
    nuisance, weights
        For `remove_batch_effect` only.
    layer
        Layer to learn from; None: X.
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    A fitted estimator: `pp.apply` corrects an AnnData with it, `save` writes it.

    Raises
    ------
    MissingKeyError
        If a column, layer or method does not exist.
    DesignError
        If covariates are confounded with batch.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> correction = bc.fit(adata, "batch", method="standardize")
    >>> bc.pp.apply(adata, correction, key_added="standardized")
    """
    matrices.require_adata(adata)
    labels = read_labels(adata, batch_key, covariates, nuisance)
    estimator = make_estimator(method, parameters, labels.formula)
    return fit_labels(adata, estimator, labels, weights, layer)


def fit_labels(
    adata: AnnData,
    estimator: Corrector,
    labels: ObsLabels,
    weights: Any,
    layer: str | None,
) -> Corrector:
    """Fit an estimator on an AnnData whose labels were read."""
    x = matrices.get_matrix(adata, layer)
    return fit_matrix(x, adata.var_names, estimator, labels, weights)


def fit_matrix(
    x: Any, names: Any, estimator: Corrector, labels: ObsLabels, weights: Any = None
) -> Corrector:
    """Fit an estimator on a matrix whose labels and feature names were read."""
    given = {"nuisance": labels.nuisance, "weights": weights}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in estimator.record.takes:
            msg = f"{estimator.record.name} has no {name}: use remove_batch_effect."
            raise InputError(msg)
    estimator.fit(x, batch=labels.batch, covariates=labels.covariates, **given)
    if names.is_unique:
        estimator.feature_names_ = tuple(map(str, names))
    estimator.obs_columns_ = labels.keys
    return estimator


def correct(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    *,
    method: str,
    covariates: Any = None,
    nuisance: Any = None,
    weights: Any = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
    **parameters: Any,
) -> AnnData | None:
    """Fit a method on an AnnData and correct the same AnnData."""
    matrices.require_adata(adata)
    x = matrices.get_matrix(adata, layer)
    noting = Noting()
    noting(_warn_if_repeated, adata, layer, key_added)
    labels = read_labels(adata, batch_key, covariates, nuisance)
    estimator = make_estimator(method, parameters, labels.formula)
    noting(_allow_dense, x, estimator, dense)
    noting(fit_labels, adata, estimator, labels, weights, layer)
    return _write(
        adata, estimator, labels, noting, layer=layer, key_added=key_added, copy=copy
    )


def apply(
    adata: AnnData,
    correction: Corrector,
    *,
    batch_key: str | Sequence[str] | None = None,
    covariates: Any = None,
    nuisance: Any = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Correct an AnnData with a correction learned elsewhere; see `pp.apply`."""
    matrices.require_adata(adata)
    require_correction(correction)
    x = matrices.get_matrix(adata, layer)
    noting = Noting()
    noting(_warn_if_repeated, adata, layer, key_added)
    noting(_allow_dense, x, correction, dense)
    noting(warn_of_places, adata, correction)
    if correction.record.scale == "log":
        noting(warn_of_counts, x, type(correction).__name__)
    labels = labels_for(adata, correction, batch_key, covariates, nuisance)
    return _write(
        adata, correction, labels, noting, layer=layer, key_added=key_added, copy=copy
    )


def _write(
    adata: AnnData,
    estimator: Corrector,
    labels: ObsLabels,
    noting: Noting,
    *,
    layer: str | None,
    key_added: str | None,
    copy: bool,
) -> AnnData | None:
    """Apply a fitted correction and set result and record, all or nothing."""
    if copy:
        adata = adata.copy()
    x = matrices.get_matrix(adata, layer)
    positions = noting(positions_of, adata, estimator)
    here = (
        positions is None and key_added is None and matrices.writable(adata, x, layer)
    )
    with uninterrupted():
        if positions is None:
            result = noting(_corrected, estimator, x, labels, x if here else None)
        else:
            part = matrices.take_features(x, positions)
            corrected = noting(_corrected, estimator, part, labels, None)
            result = matrices.replace_features(x, positions, corrected)
        record = _record(estimator, adata, labels, layer, noting.texts)
        if adata.is_view:
            adata._init_as_actual(adata.copy())
        matrices.set_matrix(adata, result, layer, key_added)
        matrices.write_record(adata, key_added or layer, record)
    return adata if copy else None


def _corrected(estimator: Corrector, x: Any, labels: ObsLabels, out: Any) -> Any:
    return estimator.apply(x, labels.given, out=out, dense=True)


def _allow_dense(x: Any, estimator: Corrector, dense: bool | None) -> None:  # noqa: FBT001
    if becomes_dense(x) and not estimator.keeps_sparse_:
        itemsize = as_matrix(np.empty((0, 0), x.dtype)).dtype.itemsize
        allow_dense(x.shape, itemsize, dense=dense, device=not is_sparse(x))


def make_estimator(
    method: str, parameters: dict[str, Any], formula: str | None
) -> Corrector:
    """Return the estimator of a method, refusing parameters it does not have."""
    kind = get(method)
    if kind.record.normalizes:
        msg = (
            f"{method} normalizes and knows no batches to correct: use "
            f"batchcorr.pp.{method}."
        )
        raise InputError(msg)
    known = kind._get_param_names()
    for name in parameters:
        if name not in known:
            msg = f"{method} has no parameter {name!r}. {did_you_mean(name, known)}"
            raise InputError(msg)
    if formula is not None:
        parameters = parameters | {"formula": formula}
    return kind(**parameters)


def _record(
    estimator: Corrector,
    adata: AnnData,
    labels: ObsLabels,
    layer: str | None,
    noted: list[str],
) -> dict[str, Any]:
    parameters = {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name not in {"copy", "batch_column", "covariate_columns"}
    }
    return {
        "method": estimator.record.name,
        "parameters": parameters,
        "source": layer or "X",
        "batch": labels.keys["batch"],
        "nuisance": labels.keys["nuisance"] or [],
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
        "warnings": noted,
        "for_testing": estimator.record.testable,
        "note": "" if estimator.record.testable else NOT_FOR_TESTING,
        "versions": versions(),
    } | estimator.summary()


def _warn_if_repeated(adata: AnnData, layer: str | None, key_added: str | None) -> None:
    earlier = matrices.read_record(adata, layer)
    matrices.read_record(adata, key_added)  # says if what is there is no record
    if earlier is None:
        return
    what = f"layer {layer!r}" if layer else "X"
    msg = (
        f"{what} was corrected before, by {earlier.get('method')}: correcting twice "
        "removes biology with each round. Start from the uncorrected values"
        + ("." if key_added else ", and keep them with key_added=.")
    )
    warn(msg, RepeatWarning)
