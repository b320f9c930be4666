"""The corrected matrix of an AnnData that is never made, for whoever needs parts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr import _adata
from batchcorr._correct import fit_labels, make_estimator, positions_of
from batchcorr._labels import read_labels
from batchcorr.arrays import moments
from batchcorr.arrays.corrected import CorrectedMatrix
from batchcorr.errors import InputError
from batchcorr.methods.base import LocationScaleMethod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from batchcorr.methods.corrector import Corrector

__all__ = ["corrected"]


def corrected(
    adata: AnnData,
    batch_key: str | Sequence[str] | None = None,
    *,
    method: str = "combat",
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
        Name of a location-scale method.
    covariates, nuisance
        What to keep and what to remove: as in the method's own function.
    correction
        A fitted estimator to use; None: fit one here.
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

    Notes
    -----
    Use it for highly variable genes, a few genes, or any solver that needs products
    only. Each row that is asked for costs O(features).

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> corrected = bc.corrected(adata, "batch", method="standardize")
    >>> corrected[:3, [10, 20]].shape
    (3, 2)
    """
    _adata.require_adata(adata)
    if correction is not None:
        columns = correction.obs_columns_ or {}
        batch_key = columns.get("batch") if batch_key is None else batch_key
        covariates = columns.get("covariates") if covariates is None else covariates
        nuisance = columns.get("nuisance") if nuisance is None else nuisance
    labels = read_labels(adata, batch_key, covariates, nuisance)
    estimator: Corrector
    if correction is None:
        estimator = make_estimator(method, parameters, labels.formula)
        fit_labels(adata, estimator, labels, None, layer)
    else:
        estimator = correction
    if not isinstance(estimator, LocationScaleMethod):
        msg = (
            f"{estimator.method} is not a location-scale method: its result cannot be "
            "had without making it. Use batchcorr.pp."
        )
        raise InputError(msg)
    x = _adata.get_matrix(adata, layer)
    positions = positions_of(adata, estimator)
    x, design = estimator._design(
        x if positions is None else x[:, positions],
        labels.batch,
        labels.covariates,
        labels.nuisance,
    )
    sums = moments(x, design)
    return CorrectedMatrix(x, design, estimator.correction_, sums)
