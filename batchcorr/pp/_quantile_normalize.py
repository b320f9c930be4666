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
        Column of `obs` with the batch; the target q is then the mean of the B batches,
        w = 1/(B n_b). None: q is the mean of all samples, w = 1/n, as in limma.
    ties
        True: equal values in a sample get the same result, the target at their average
        rank. False: they get consecutive target values, in the order of the features.
    reference
        Reference batch: the target is the mean of its samples only, w = 1/n_b there and
        0 elsewhere.
    layer
        Layer to normalize; None: X.
    key_added
        Layer for the result; None: overwrite the input.
    dense
        Let a sparse matrix become dense; None: if half of the free memory is enough
        (with a warning from 1 GiB on).
    copy
        Return a normalized copy and leave `adata` unchanged.

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
        If values are infinite, a sample has no values, or the reference is not a batch.
    TooLargeError
        If the dense result would not fit into memory.

    Notes
    -----
    Every sample is mapped by its own ranks; afterwards all samples, those of a
    reference batch included, have the same distribution. If cell types or treatments
    shift many features in one direction, these differences are removed as well. Batch
    effects on single features remain: see `combat`. Missing values stay missing.

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
