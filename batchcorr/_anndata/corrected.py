"""The corrected matrix of an AnnData that is never made, for whoever needs parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr._anndata import records
from batchcorr._anndata.features import matched_features, warn_of_order
from batchcorr._anndata.fit import fit_matrix, make_estimator, require_correction
from batchcorr._anndata.labels import labels_for, read_labels
from batchcorr._anndata.matrices import get_matrix
from batchcorr.arrays import moments
from batchcorr.arrays.corrected import CorrectedMatrix
from batchcorr.errors import InputError
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.estimators.matrix import as_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from batchcorr._anndata.labels import ObsLabels
    from batchcorr._anndata.records import Record
    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.location_scale import LocationScaleMethod
    from batchcorr.estimators.metadata import Labels
    from batchcorr.models.namespace import Matrix

__all__ = ["Lazy", "corrected", "lazily"]


def corrected(
    adata: AnnData,
    batch_key: str | Sequence[str] | None = None,
    *,
    method: str | None = None,
    covariates: object = None,
    nuisance: object = None,
    correction: LocationScaleMethod | None = None,
    layer: str | None = None,
    **parameters: object,
) -> CorrectedMatrix:
    """Return the corrected matrix in lazy form: its parts, products and moments.

    Parameters
    ----------
    adata
        Samples × features, on a log scale, dense or sparse.
    batch_key
        Column of `obs` with the batch.
    method
        Name of a location-scale method; None: combat, or the method of `correction`.
    covariates, nuisance
        Covariates to keep and to remove, as in the function of the method.
    correction
        A fitted estimator, whose features are matched by name; None: fit one to
        `adata`.
    layer
        Layer to correct; None: X.
    **parameters
        Parameters of the method's estimator.

    Returns
    -------
    A `CorrectedMatrix` C: ``C[rows, features]``, ``C @ V``, ``U @ C``, ``C.mean()``,
    ``C.var()``, ``C.as_linear_operator()``.

    Raises
    ------
    InputError
        If the method is not a location-scale method.
    MissingKeyError
        If a column or a feature of the correction is missing.

    Warns
    -----
    FeatureWarning
        If `adata` has features that the correction does not have; they stay unchanged.
    RepeatWarning
        If the matrix was corrected before.

    Notes
    -----
    Use it to find highly variable genes, to read a few genes, or in any solver that
    needs only products. Each row that is read costs O(features). Missing values stay
    missing: products with them are NaN.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> corrected = bc.corrected(adata, "batch", method="standardize")
    >>> corrected[:3, [10, 20]].shape
    (3, 2)
    """
    return lazily(
        adata,
        batch_key,
        method=method,
        covariates=covariates,
        nuisance=nuisance,
        correction=correction,
        layer=layer,
        **parameters,
    ).matrix


class Lazy(NamedTuple):
    """A corrected matrix that is not made, and what its record needs."""

    matrix: CorrectedMatrix
    estimator: LocationScaleMethod
    columns: dict[str, Any]
    earlier: list[Record]


def lazily(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    *,
    method: str | None,
    covariates: object,
    nuisance: object,
    correction: Corrector | None,
    layer: str | None,
    **parameters: object,
) -> Lazy:
    """The corrected matrix, how it was corrected, and what had been done to it before."""
    x = get_matrix(adata, layer)
    earlier = records.steps_of(adata, layer, x)
    records.warn_if_repeated(earlier, layer, kept=True)
    if correction is None:
        labels = read_labels(adata, batch_key, covariates, nuisance)
        estimator = _location_scale(
            make_estimator(method or "combat", parameters, labels.formula)
        )
        read = fit_matrix(x, adata.var_names, estimator, labels)
        matrix = _of_fitted(as_matrix(x), estimator, read)
        return Lazy(matrix, estimator, labels.keys, earlier)
    if method is not None or parameters:
        msg = (
            f"{next(iter(parameters), 'method')!r} cannot be given together with a "
            "fitted correction: leave one of them out."
        )
        raise InputError(msg)
    estimator = _location_scale(require_correction(correction))
    labels = labels_for(adata, estimator, batch_key, covariates, nuisance)
    matrix = _of_others(adata, as_matrix(x), estimator, labels)
    return Lazy(matrix, estimator, labels.keys, earlier)


def _of_fitted(
    x: Matrix, estimator: LocationScaleMethod, labels: Labels
) -> CorrectedMatrix:
    """The matrix that an estimator was fitted to, corrected: its moments are known."""
    design = estimator.design_of(x.shape[0], labels)
    sums = estimator.moments_
    assert sums is not None
    total, taken = sums.n_columns, design.columns.shape[1]
    if taken < total:  # covariates are not needed
        sums = sums.select(list(range(total - taken, total)))
    return CorrectedMatrix(x, design, estimator.correction_, sums)


def _of_others(
    adata: AnnData, x: Matrix, estimator: LocationScaleMethod, labels: ObsLabels
) -> CorrectedMatrix:
    """The matrix corrected by an estimator fitted elsewhere, features by name."""
    warn_of_order(adata, estimator)
    positions, frozen = matched_features(adata, estimator), estimator.correction_
    if positions is not None:
        frozen = frozen.scatter(positions, adata.n_vars)
    design = estimator.design_of(x.shape[0], labels.given)
    return CorrectedMatrix(x, design, frozen, moments(x, design))


def _location_scale(estimator: Corrector) -> LocationScaleMethod:
    if fits_moments(estimator):
        return estimator
    msg = (
        f"{estimator.record.name} is not a location-scale method, so that its result "
        "cannot be lazy: use a function of batchcorr.pp."
    )
    raise InputError(msg)
