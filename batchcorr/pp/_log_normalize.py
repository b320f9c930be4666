"""Normalization and logarithms of counts on AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.normalize import log_normalize as log_normalize_with
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["log_normalize"]


def log_normalize(
    adata: AnnData,
    *,
    method: str = "total",
    target_sum: float | None = None,
    base: float | None = None,
    prior_count: float | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Scale raw counts to a common library size and take logarithms.

    .. math:: y_{ij} = \log(1 + x_{ij} / s_i), \qquad s_i = L_i / T

    With `prior_count` c, as edgeR's ``cpm(log=TRUE)``:

    .. math::
        y_{ij} = \log_2 \frac{T (x_{ij} + p_i)}{L_i + 2 p_i}, \qquad
        p_i = c\, L_i / \bar L

    Parameters
    ----------
    adata
        Raw counts, samples × features; in memory, or in a Dask array.
    method
        How the effective library size L of a sample is computed. ``"total"``: its total
        count; ``"tmm"``, ``"tmmwsp"``, ``"rle"`` or ``"upperquartile"``: total count
        times normalization factor; ``"median_of_ratios"`` or ``"poscounts"``:
        proportional to the size factor. With many zeros use ``"total"``, ``"tmmwsp"``
        or ``"poscounts"``.
    target_sum
        T. None: the median of L; for ``"median_of_ratios"`` and ``"poscounts"`` the
        value that makes s DESeq's size factors; with `prior_count` a million.
    base
        Base of the logarithm. None: natural, and 2 with `prior_count`.
    prior_count
        None: 1 is added to scaled counts, so that zeros stay zeros. A positive number:
        p is added to the counts, equal to this number in a sample of mean library size
        and proportional to the library size in others; the result is dense.
    layer
        Layer with the counts; None: X.
    key_added
        Layer for the result; None: overwrite the input.
    dense
        With `prior_count`: let a sparse matrix become dense; None: if half of the free
        memory is enough (with a warning from 1 GiB on).
    copy
        Return a normalized copy and leave `adata` unchanged.

    Returns
    -------
    `None` if ``copy=False``, else the normalized AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]``, float64 if the input is float64, otherwise float32;
    ``adata.obs["size_factor"]``, the number s that the counts of each sample were
    divided by (1 for samples without counts; not set if nothing was read, see Notes);
    ``adata.uns["log1p"]`` as scanpy does, if X was transformed without `prior_count`;
    and the record ``adata.uns["batchcorr"][key_added or layer or "X"]``.

    Raises
    ------
    MissingKeyError
        If the layer does not exist.
    InputError
        If values are negative, missing or infinite, or the counts are too sparse for
        the method.
    TooLargeError
        If the dense result would not fit into memory.

    Warns
    -----
    EmptySampleWarning
        If samples have no counts. They stay zeros; with `prior_count` they get the
        value that a zero count has in every sample.
    LogScaleWarning
        If the values look like logarithms already.

    Notes
    -----
    Equal to scanpy's ``normalize_total`` and ``log1p`` to rounding. Keep the counts in
    a layer: tests and ComBat-seq need them. `batchcorr.LogNormalize` can be fitted to
    some samples and applied to others.

    Library sizes of a Dask array are computed at once: every block is read once for
    ``"total"``, three times for ``"tmm"`` and twice for the other methods. The result
    is lazy. With ``"total"``, a `target_sum` and no `prior_count` nothing is read and
    no size factors are set; values that are not counts raise an error when the result
    is computed.

    References
    ----------
    Robinson & Oshlack (2010), Genome Biology 11:R25; Wolf, Angerer & Theis (2018),
    Genome Biology 19:15; R package edgeR, `calcNormFactors` and `cpm`.

    Examples
    --------
    >>> import anndata as ad, numpy as np, batchcorr as bc
    >>> adata = ad.AnnData(np.array([[0.0, 1.0, 9.0], [0.0, 6.0, 14.0]]))
    >>> adata.layers["counts"] = adata.X.copy()
    >>> bc.pp.log_normalize(adata, target_sum=10)
    >>> adata.X.round(2)
    array([[0.  , 0.69, 2.3 ],
           [0.  , 1.39, 2.08]])
    >>> adata.obs["size_factor"].tolist()
    [1.0, 2.0]
    """
    from batchcorr.methods.log_normalize import LogNormalize

    estimator = LogNormalize(
        method, target_sum=target_sum, base=base, prior_count=prior_count
    )
    place = Place(layer, key_added, dense, copy)
    return log_normalize_with(adata, estimator, place)
