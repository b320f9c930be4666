"""Per-batch standardization on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.correct import correct
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["standardize"]


def standardize(
    adata: AnnData,
    batch_key: str,
    *,
    covariates: object = None,
    reference: object = None,
    target: str = "pooled",
    center: bool = True,
    scale: bool = True,
    layer: str | None = None,
    obsm: str | None = None,
    missing: str = "error",
    subject: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Give all batches the same mean and standard deviation, feature by feature.

    .. math:: y = σ (x - α_b - z β) / σ_b + α + z β

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch.
    covariates
        Covariates to keep: columns of `obs`, a formula, a DataFrame, or a 2-D array.
    reference
        Reference batch: the other batches get its mean and standard deviation.
    target
        ``"pooled"``: the overall mean and the pooled standard deviation of the batches.
        ``"unit"``: mean 0 and standard deviation 1 in every batch.
    center, scale
        Whether to correct means and standard deviations.
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

    Notes
    -----
    There is no shrinkage: in small batches, random differences are removed as if they
    were batch effects; `combat` shrinks instead.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.standardize(adata, "batch", reference="5")
    """
    return correct(
        adata,
        batch_key,
        Place(layer, key_added, dense, copy, obsm),
        method="standardize",
        missing=missing,
        subject=subject,
        covariates=covariates,
        target=target,
        center=center,
        scale=scale,
        reference=reference,
    )
