"""Linear removal on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.correct import correct
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["remove_batch_effect"]


def remove_batch_effect(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    *,
    covariates: object = None,
    nuisance: object = None,
    weights: object = None,
    layer: str | None = None,
    obsm: str | None = None,
    missing: str = "error",
    subject: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Subtract batch and nuisance effects of a linear model (limma's way).

    .. math:: y = x - c_b - w η, \qquad Σ_b c_b = 0

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch, or several batch factors, or None to remove
        nuisances alone.
    covariates
        What to keep: columns of `obs`, a formula, a DataFrame, or a 2-D array.
    nuisance
        What to remove with batch: columns of `obs`, a DataFrame, or a 2-D array.
    weights
        Of each sample (n,) or each value (n, G), or the column of `obs` or the layer that
        holds them.
    layer
        Layer to correct; None: X.
    obsm
        Correct this matrix of `obsm` instead, such as ``"X_pca"``; `key_added` then names
        the result in `obsm`.
    missing
        ``"level"``: missing labels are a level of their own; ``"error"``: refused.
    subject
        Column of `obs` that says who a sample is of: persons measured in several batches
        keep their level, by an intercept at random for each.
    key_added
        Layer for the result; None: overwrite what was read.
    dense
        Whether a sparse matrix may become dense; None: if it is small.
    copy
        Return a corrected copy and leave `adata` as it is.

    Returns
    -------
    `None` if ``copy=False``, else the corrected AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]`` and the record ``adata.uns["batchcorr"][…]``.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, or labels are missing.

    Warns
    -----
    AssociationWarning, BatchSizeWarning, CountsWarning
    CovariateWarning
        If nuisances repeat each other or batch.

    Notes
    -----
    Scale effects stay; see `combat` and `standardize` for those.

    References
    ----------
    R package limma, `removeBatchEffect`.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.remove_batch_effect(adata, "batch", key_added="centred")
    """
    return correct(
        adata,
        batch_key,
        Place(layer, key_added, dense, copy, obsm),
        method="remove_batch_effect",
        missing=missing,
        subject=subject,
        covariates=covariates,
        nuisance=nuisance,
        weights=weights,
    )
