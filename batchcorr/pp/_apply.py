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
    """Correct with a correction that was learned elsewhere and frozen.

    Parameters
    ----------
    adata
        Samples × features on the scale the correction was learned on. Features are
        matched by `var_names`; the correction's must all be there.
    correction
        A fitted estimator: from `batchcorr.fit`, `batchcorr.load` or its own `fit`.
    batch_key, covariates, nuisance
        Columns of `obs`; None: those the correction was learned from.
    layer
        Layer to correct; None: X.
    obsm
        Correct this matrix of `obsm`, with a correction that was fitted to such.
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
        If features of the correction, or columns, are missing.
    UnknownBatchError
        If a batch is not known to the correction: see `add_batches`.

    Warns
    -----
    FeatureWarning
        If `adata` has features that the correction does not know; they stay.

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
