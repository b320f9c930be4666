"""ComBat-seq on AnnData: counts in, counts out."""

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
    r"""Remove batch effects from counts and give counts back (ComBat-seq).

    .. math:: \log μ = \log N + α + zβ + γ_b + wη, \quad
        y^* = F_{μ e^{-γ^* - (w - \bar w)η}, φ^*}^{-1}(F_{μ, φ_b}(y))

    Parameters
    ----------
    adata
        Raw counts, samples × features, dense or sparse.
    batch_key
        Column of `obs` with the batch; several with `cross`.
    covariates
        What to keep, the biological group above all: columns of `obs`, a formula, a
        DataFrame, or a 2-D array.
    nuisance
        What to remove with batch, such as RIN or surrogate variables: columns of `obs`,
        matrices of `obsm`, a DataFrame or a 2-D array.
    shrink
        Draw batch effects towards those of features with similar counts: slow.
    shrink_dispersion
        With `shrink`: draw dispersions as well.
    gene_subset
        With `shrink`: look at this many random other features only.
    reference
        A batch that stays and that the others are brought to, or ``"auto"``: that of least
        dispersion (ComBat-ref).
    cross
        With several batch columns: take their combinations as batches.
    layer
        Layer to correct; None: X.
    missing
        ``"level"``: missing labels are a level of their own; ``"error"``: refused.
    key_added
        Layer for the result; None: overwrite what was read.
    copy
        Return a corrected copy and leave `adata` as it is.

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
        If covariates are confounded with batch, labels are missing, or a batch has one
        sample.
    InputError
        If values are negative, fractional, missing or infinite, or a sample is empty.

    Warns
    -----
    CappedWarning
        If corrected counts were held at their bound.

    Notes
    -----
    Features with only zeros in some batch stay as they are. See `batchcorr.ComBatSeq`.

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
