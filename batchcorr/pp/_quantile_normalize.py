"""Quantile normalization on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.normalize import quantile_normalize as normalize_with
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["quantile_normalize"]


def quantile_normalize(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    ties: bool = True,
    reference: object = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Give every sample the same distribution of values, feature ranks unchanged.

    .. math::
        y_{ij} = q(r_{ij}), \qquad q_k = \sum_i w_i x_{i(k)}, \qquad \sum_i w_i = 1

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch. None: all samples count the same in the target
        q, w = 1/n, as in limma. Given: all B batches do, w = 1/(B n_b).
    ties
        True: equal values of a sample get equal results, the target at their average
        rank. False: they get neighbouring values, in the order of the features.
    reference
        A batch whose samples alone make the target: w = 1/n_b there, and 0 elsewhere.
    layer
        Layer to normalize; None: X.
    key_added
        Layer for the result; None: overwrite what was read.
    dense
        Whether a sparse matrix may become dense. None: with a warning if the result
        takes under half of the free memory, otherwise not.
    copy
        Return a normalized copy and leave `adata` as it is.

    Returns
    -------
    `None` if ``copy=False``, else the normalized AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]``, in the dtype of the input (integers become floats), and
    the record ``adata.uns["batchcorr"][key_added or layer or "X"]``.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    DesignError
        If batch labels are missing.
    InputError
        If values are infinite, a sample has none, or the reference is no batch.
    TooLargeError
        If the dense result would not fit.

    Notes
    -----
    Every sample is mapped by its own ranks: afterwards the samples of all batches, the
    reference batch included, have the same distribution. Where cell types or treatments
    shift many features in one direction, this removes them. Batch effects on single
    features remain: see `combat`. Missing values stay missing.

    References
    ----------
    Bolstad, Irizarry, Åstrand & Speed (2003), Bioinformatics 19:185-193; R package
    limma, `normalizeQuantiles`.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()[:, :500].copy()
    >>> bc.pp.quantile_normalize(adata)
    >>> adata.X.mean(axis=1).round(3)[:3]
    array([8.774, 8.774, 8.774])
    """
    from batchcorr.methods.quantile_normalize import QuantileNormalize

    return normalize_with(
        adata,
        batch_key,
        QuantileNormalize(ties=ties, reference=reference),
        Place(layer, key_added, dense, copy),
    )
