"""The corrected matrix of an AnnData that is never made, for whoever needs parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr._anndata import matrices
from batchcorr._anndata.correct import fit_labels, make_estimator
from batchcorr._anndata.fitted import (
    labels_for,
    positions_of,
    require_correction,
    warn_of_places,
)
from batchcorr._anndata.labels import read_labels
from batchcorr.arrays import moments
from batchcorr.arrays.corrected import CorrectedMatrix
from batchcorr.errors import InputError
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.estimators.matrix import as_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from batchcorr._anndata.labels import ObsLabels
    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.location_scale import LocationScaleMethod

__all__ = ["corrected"]


def corrected(
    adata: AnnData,
    batch_key: str | Sequence[str] | None = None,
    *,
    method: str | None = None,
    covariates: Any = None,
    nuisance: Any = None,
    correction: LocationScaleMethod | None = None,
    layer: str | None = None,
    **parameters: Any,
) -> CorrectedMatrix:
    """Return the corrected matrix without making it: parts, products and moments of it.

    Parameters
    ----------
    adata
        Samples × features, on a log scale; sparse stays sparse.
    batch_key
        Column of `obs` with the batch.
    method
        Name of a location-scale method; None: combat, or that of the `correction`.
    covariates, nuisance
        What to keep and what to remove: as in the method's own function.
    correction
        A fitted estimator to use, features matched by name; None: fit one here.
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
        If the method is not a location-scale one.
    MissingKeyError
        If a column, or a feature of the correction, is missing.

    Warns
    -----
    FeatureWarning
        Features that the correction does not know stay as they are.

    Notes
    -----
    Use it for highly variable genes, a few genes, or any solver that needs products
    only. Each row that is asked for costs O(features). Missing values stay missing: in
    products they make NaN.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> corrected = bc.corrected(adata, "batch", method="standardize")
    >>> corrected[:3, [10, 20]].shape
    (3, 2)
    """
    matrices.require_adata(adata)
    if correction is not None:
        if method is not None or parameters:
            msg = (
                f"{next(iter(parameters), 'method')!r} is of a method that is fitted "
                "here: a correction has its own. Leave one of them out."
            )
            raise InputError(msg)
        estimator = _location_scale(require_correction(correction))
        labels = labels_for(adata, estimator, batch_key, covariates, nuisance)
        return _with_known(adata, estimator, labels, layer)
    labels = read_labels(adata, batch_key, covariates, nuisance)
    estimator = _location_scale(
        make_estimator(method or "combat", parameters, labels.formula)
    )
    fit_labels(adata, estimator, labels, None, layer)
    x = as_matrix(matrices.get_matrix(adata, layer))
    design = estimator.design_of(x.shape[0], labels.given)
    sums = estimator.moments_
    assert sums is not None
    left_out = sums.n_columns - design.columns.shape[1]  # covariates, if not needed
    sums = sums.select(list(range(left_out, sums.n_columns)))
    return CorrectedMatrix(x, design, estimator.correction_, sums)


def _with_known(
    adata: AnnData, estimator: LocationScaleMethod, labels: ObsLabels, layer: str | None
) -> CorrectedMatrix:
    """Return the matrix corrected by what was learned elsewhere, features by name."""
    x = as_matrix(matrices.get_matrix(adata, layer))
    warn_of_places(adata, estimator)
    positions, frozen = positions_of(adata, estimator), estimator.correction_
    if positions is not None:
        frozen = frozen.spread(positions, adata.n_vars)
    design = estimator.design_of(x.shape[0], labels.given)
    return CorrectedMatrix(x, design, frozen, moments(x, design))


def _location_scale(estimator: Corrector) -> LocationScaleMethod:
    if fits_moments(estimator):
        return estimator
    msg = (
        f"{estimator.record.name} is not a location-scale method: its result cannot be "
        "had without making it. Use batchcorr.pp."
    )
    raise InputError(msg)
