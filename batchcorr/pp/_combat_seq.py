"""ComBat-seq on AnnData: it takes counts and returns counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.correct import correct
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["combat_seq"]


def combat_seq(
    adata: AnnData,
    batch_key: str | list[str],
    *,
    covariates: object = None,
    nuisance: object = None,
    shrink: bool = False,
    shrink_dispersion: bool = False,
    gene_subset: int | None = None,
    reference: object = None,
    cross: bool = False,
    layer: str | None = None,
    missing: str = "error",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Remove batch effects from raw counts; the result are counts too (ComBat-seq).

    .. math:: \log μ = \log N + α + zβ + γ_b + wη, \quad
        y^* = F_{μ e^{-γ^* - (w - \bar w)η}, φ^*}^{-1}(F_{μ, φ_b}(y))

    Parameters
    ----------
    adata
        Raw counts, samples × features, dense or sparse.
    batch_key
        Column of `obs` with the batch; several columns with `cross`.
    covariates
        Covariates to keep, above all the biological group: columns of `obs`, a formula,
        a DataFrame, or a 2-D array.
    nuisance
        Covariates to remove along with batch, such as RIN or surrogate variables:
        columns of `obs`, matrices of `obsm`, a DataFrame or a 2-D array.
    shrink
        Shrink batch effects towards those of features with similar counts (slow).
    shrink_dispersion
        With `shrink`: shrink the dispersions as well.
    gene_subset
        With `shrink`: use only this many randomly chosen other features.
    reference
        Reference batch: it stays unchanged, and the other batches are adjusted to it.
        ``"auto"``: the batch with the smallest dispersion (ComBat-ref).
    cross
        Use each combination of labels of several batch columns as a batch.
    layer
        Layer to correct; None: X.
    missing
        Missing labels raise an ``"error"`` or form a ``"level"`` of their own.
    key_added
        Layer for the result; None: overwrite the input.
    copy
        Return a corrected copy and leave `adata` unchanged.

    Returns
    -------
    `None` if ``copy=False``, else the corrected AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]``, counts in the dtype and storage of the input, and the
    record ``adata.uns["batchcorr"][…]``.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, labels are missing, or a batch has only
        one sample.
    InputError
        If values are negative, fractional, missing or infinite, or a sample has no
        counts.

    Warns
    -----
    CappedWarning
        If corrected counts were limited to their upper bound.

    Notes
    -----
    Features that have only zeros in some batch stay unchanged. See
    `batchcorr.ComBatSeq`.

    References
    ----------
    Zhang, Parmigiani & Johnson (2020), NAR Genomics and Bioinformatics 2:lqaa078;
    R package sva, `ComBat_seq`.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, batchcorr as bc
    >>> counts = np.random.default_rng(0).negative_binomial(5, 0.1, size=(12, 50))
    >>> obs = pd.DataFrame(
    ...     {"batch": ["a", "b"] * 6}, index=[f"s{i}" for i in range(12)]
    ... )
    >>> adata = ad.AnnData(counts, obs=obs)
    >>> bc.pp.combat_seq(adata, "batch", key_added="corrected")
    >>> adata.layers["corrected"].dtype == counts.dtype
    True
    """
    return correct(
        adata,
        batch_key,
        Place(layer, key_added, copy=copy),
        method="combat_seq",
        missing=missing,
        covariates=covariates,
        nuisance=nuisance,
        shrink=shrink,
        shrink_dispersion=shrink_dispersion,
        gene_subset=gene_subset,
        reference=reference,
        cross=cross,
    )
