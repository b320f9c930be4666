"""Logarithms of counts on AnnData."""

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
    r"""Scale raw counts to a common library and take logarithms.

    .. math:: y_{ij} = \log(1 + x_{ij} / s_i), \qquad s_i = L_i / T

    With `prior_count` c, as edgeR's ``cpm(log=TRUE)``:

    .. math::
        y_{ij} = \log_2 \frac{T (x_{ij} + p_i)}{L_i + 2 p_i}, \qquad
        p_i = c\, L_i / \bar L

    Parameters
    ----------
    adata
        Samples × features, raw counts; in memory, or in a Dask array.
    method
        What the effective library L of a sample is: ``"total"``, its total count;
        ``"tmm"``, ``"tmmwsp"``, ``"rle"`` or ``"upperquartile"``, total times factor;
        ``"median_of_ratios"`` or ``"poscounts"``, in proportion to size factor. For
        many zeros: ``"total"``, ``"tmmwsp"``, ``"poscounts"``.
    target_sum
        T. None: the median of L; what makes s DESeq's size factors with its two methods;
        a million with `prior_count`.
    base
        Base of the logarithm. None: natural, and 2 with `prior_count`.
    prior_count
        None: 1 is added to scaled counts, and zeros stay zeros. A positive number: this
        is added to the counts of a sample with the mean library, and in proportion to
        others'; the result is dense.
    layer
        Layer with the counts; None: X.
    key_added
        Layer for the result; None: overwrite what was read.
    dense
        Whether a sparse matrix may become dense, with `prior_count`. None: with a
        warning if the result takes under half of the free memory, otherwise not.
    copy
        Return a normalized copy and leave `adata` as it is.

    Returns
    -------
    `None` if ``copy=False``, else the normalized AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]``, in float64 for float64 and else in float32;
    ``adata.obs["size_factor"]``, what the counts of each sample were divided by (1 for
    samples without counts; not where nothing was read, see Notes);
    ``adata.uns["log1p"]`` as scanpy does where X was logged without `prior_count`; and
    the record ``adata.uns["batchcorr"][key_added or layer or "X"]``.

    Raises
    ------
    MissingKeyError
        If the layer does not exist.
    InputError
        If values are negative, missing or infinite; or counts too sparse for the method.
    TooLargeError
        If the dense result would not fit.

    Warns
    -----
    EmptySampleWarning
        If samples have no counts: they stay zeros, or with `prior_count` take the value
        that a zero has in every sample.
    LogScaleWarning
        If the values look like logarithms already.

    Notes
    -----
    Equal to scanpy's ``normalize_total`` and ``log1p`` to rounding; keep the counts in a
    layer, as tests and ComBat-seq need them. To freeze what was learned and apply it to
    other samples see `batchcorr.LogNormalize`.

    Of a Dask array every block is read to learn, once for ``"total"``, three times for
    ``"tmm"`` and twice for the others; the result is lazy. With ``"total"``, a
    `target_sum` and no `prior_count` there is nothing to learn: nothing is read, no size
    factors are set, and values that are no counts are refused when the result is
    computed.

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
