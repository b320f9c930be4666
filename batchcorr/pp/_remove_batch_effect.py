"""Linear removal of batch effects on AnnData."""

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
    r"""Subtract batch and nuisance effects of a linear model, as limma does.

    .. math:: y = x - c_b - (w - \bar w) η, \qquad Σ_b c_b = 0

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch, or several such columns; None: remove only the
        effects of `nuisance`.
    covariates
        Covariates to keep: columns of `obs`, a formula, a DataFrame, or a 2-D array.
    nuisance
        Covariates to remove along with batch: columns of `obs`, matrices of `obsm`, a
        DataFrame, or a 2-D array.
    weights
        Weights of samples, (n,), or of single values, (n, G); or the column of `obs` or
        the layer with them.
    layer
        Layer to correct; None: X.
    obsm
        Matrix of `obsm` to correct, such as ``"X_pca"``; `key_added` is then a key of
        `obsm`.
    missing
        Missing labels raise an ``"error"`` or form a ``"level"`` of their own.
    subject
        Column of `obs` with the subject (person) of each sample: a random intercept for
        each keeps the differences between subjects.
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
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, or labels are missing.

    Warns
    -----
    AssociationWarning, BatchSizeWarning, CountsWarning
    CovariateWarning
        If nuisance variables are collinear with each other or with batch.

    Notes
    -----
    Differences in variance between batches remain; `combat` and `standardize` remove
    them.

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
