"""A frozen correction on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.correct import apply as apply_to
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from batchcorr.estimators.base import Corrector

__all__ = ["apply"]


def apply(
    adata: AnnData,
    correction: Corrector,
    *,
    batch_key: str | Sequence[str] | None = None,
    covariates: object = None,
    nuisance: object = None,
    layer: str | None = None,
    obsm: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Correct an AnnData with a correction that was fitted before.

    Parameters
    ----------
    adata
        Samples × features, on the scale that the correction was fitted on. Features are
        matched by `var_names`; all features of the correction must be present.
    correction
        A fitted estimator: from `batchcorr.fit`, `batchcorr.load` or its own `fit`.
    batch_key, covariates, nuisance
        Columns of `obs`; None: the columns that the correction was fitted with.
    layer
        Layer to correct; None: X.
    obsm
        Matrix of `obsm` to correct; the correction must have been fitted to such a
        matrix.
    key_added
        Layer for the result; None: overwrite the input.
    dense
        Let a sparse matrix become dense; None: if half of the free memory is enough.
    copy
        Return a corrected copy and leave `adata` unchanged.

    Returns
    -------
    `None` if ``copy=False``, else the corrected AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]`` and the record ``adata.uns["batchcorr"][…]``.

    Raises
    ------
    MissingKeyError
        If a column or a feature of the correction is missing.
    UnknownBatchError
        If the correction was not fitted to one of the batches: see `add_batches`.

    Warns
    -----
    CountsWarning
        If values look like counts, or were not normalized as those of the fit were.
    FeatureWarning
        If `adata` has features that the correction does not have; they stay unchanged.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> correction = bc.fit(adata, "batch", method="standardize")
    >>> new = adata[40:].copy()
    >>> bc.pp.apply(new, correction)
    """
    return apply_to(
        adata,
        correction,
        Place(layer, key_added, dense, copy, obsm),
        batch_key=batch_key,
        covariates=covariates,
        nuisance=nuisance,
    )
