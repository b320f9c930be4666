"""Normalization factors of samples, as edgeR and DESeq compute them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.arrays.counts import count_rows
from batchcorr.errors import InputError, did_you_mean
from batchcorr.estimators.raw_counts import raw_counts, warn_of_empty
from batchcorr.models.counts.size_factors import METHODS, fit_reference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["normalization_factors"]


def normalization_factors(counts: object, method: str = "tmm") -> NDArray[np.float64]:
    r"""Return what the library sizes of samples are to be multiplied by.

    .. math::
        L_i = f_i N_i, \qquad N_i = \sum_j x_{ij}, \qquad \prod_i f_i = 1

    A few features that take up much of some libraries make all others look lower there.
    The factors f are robust to such features: effective library sizes L compare samples by
    the bulk of their features.

    Parameters
    ----------
    counts
        Raw counts, samples × features: NumPy array, DataFrame, SciPy sparse matrix, or
        a Dask array of these, which is read now. Fractions are fine.
    method
        ``"tmm"``: trimmed mean of M-values. ``"tmmwsp"``: the same with singleton
        pairing, for many zeros. ``"rle"``: relative log expression, the median of
        ratios. ``"upperquartile"``. Or the size factors of DESeq, which divide counts
        directly: ``"median_of_ratios"``, and ``"poscounts"`` for many zeros.

    Returns
    -------
    Factors in float64, (n,): those of ``edgeR::calcNormFactors``, with product 1, or
    DESeq's size factors. A sample without counts takes no part and has the factor 1.

    Raises
    ------
    InputError
        If the counts are negative, missing or infinite; or too sparse for the method: no
        feature is counted in every sample (``rle``, ``median_of_ratios``), or the upper
        quartile is 0.

    Warns
    -----
    EmptySampleWarning
        If samples have no counts.

    Notes
    -----
    Agrees with edgeR 3.40 to 1e-14. Features without counts take no part. Every block of
    a Dask array is read twice; three times for ``"tmm"``, which needs the features with
    counts to find the quartiles, and the quartiles to find the sample that others are
    measured against. O(features) memory beside the block.

    References
    ----------
    Robinson & Oshlack (2010), Genome Biology 11:R25; Bullard et al. (2010), BMC
    Bioinformatics 11:94; Anders & Huber (2010), Genome Biology 11:R106.

    Examples
    --------
    >>> import numpy as np, batchcorr as bc
    >>> counts = np.random.default_rng(0).poisson(20, (3, 200))
    >>> counts[2, :5] = 2000  # five features take up most of the third library
    >>> bc.normalization_factors(counts).round(2)
    array([1.5 , 1.51, 0.44])
    """
    known = [name for name in METHODS if name != "total"]
    if method not in known:
        msg = f"There is no normalization method {method!r}. "
        raise InputError(msg + did_you_mean(method, known))
    samples = count_rows(raw_counts(counts))
    _, factors = fit_reference(samples, method)
    warn_of_empty(samples.totals, "they take no part, and their factor is 1.")
    return factors
