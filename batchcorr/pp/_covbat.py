"""CovBat on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.correct import correct
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["covbat"]


def covbat(
    adata: AnnData,
    batch_key: str,
    *,
    covariates: object = None,
    n_components: int | None = None,
    explained: float = 0.95,
    layer: str | None = None,
    missing: str = "error",
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Remove batch effects on means, variances and covariances (CovBat).

    .. math:: y = y^{ComBat} + (r_b s + t_b - s)(V d)^\top, \qquad
        s = (y^{ComBat} - α̂ - z β̂) / d \; V

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch.
    covariates
        Covariates to keep: columns of `obs`, a formula, a DataFrame, or a 2-D array.
    n_components
        Number of principal components whose scores are corrected; None: chosen by
        `explained`.
    explained
        Share of the variance that the corrected components must explain.
    layer
        Layer to correct; None: X.
    missing
        Missing labels raise an ``"error"`` or form a ``"level"`` of their own.
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
    InputError
        If values are missing.

    Warns
    -----
    AssociationWarning, BatchSizeWarning, CountsWarning

    Notes
    -----
    Keeps the corrected matrix and n² or G² products in memory. For prediction and for
    analyses of correlations between features; not for tests.

    References
    ----------
    Chen et al. (2022), Human Brain Mapping 43:1179-1195.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :500].copy()
    >>> bc.pp.covbat(adata, "batch", key_added="covbat")
    >>> adata.layers["covbat"].shape
    (57, 500)
    """
    return correct(
        adata,
        batch_key,
        Place(layer, key_added, dense, copy),
        method="covbat",
        missing=missing,
        covariates=covariates,
        n_components=n_components,
        explained=explained,
    )
