"""Correct an AnnData in place, in scanpy's manner: a step of a pipeline.

Every function reads X or a `layer`, writes back or into the layer `key_added`, and
keeps a record in ``adata.uns["batchcorr"]``. Nothing is changed if anything fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr import _correct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from batchcorr.methods.corrector import Corrector

__all__ = [
    "apply",
    "combat",
    "combat_seq",
    "correct",
    "remove_batch_effect",
    "standardize",
]


def combat(
    adata: AnnData,
    batch_key: str,
    *,
    covariates: Any = None,
    parametric: bool = True,
    mean_only: bool = False,
    reference: Any = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Remove batch effects in location and scale, shrunk by empirical Bayes (ComBat).

    .. math::
        y = (x - α̂ - z β̂ - σ̂ γ^*_b) / δ^*_b + α̂ + z β̂

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch.
    covariates
        What to keep: columns of `obs`, a formula such as ``"~ cell_type + age"``, a
        DataFrame, or a 2-D array of design columns.
    parametric
        Normal and inverse-gamma priors; False: the other features are the prior.
    mean_only
        Correct locations only.
    reference
        A batch that stays as it is, and that the others are brought to.
    layer
        Layer to correct; None: X.
    key_added
        Layer for the result; None: overwrite what was read.
    dense
        Whether a sparse matrix may become dense. None: with a warning if the result
        takes under half of the free memory, otherwise not.
    copy
        Return a corrected copy and leave `adata` as it is.

    Returns
    -------
    `None` if ``copy=False``, else the corrected AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]``, in the dtype of the input (integers become float32), and
    the record ``adata.uns["batchcorr"][key_added or layer or "X"]``.

    Raises
    ------
    MissingKeyError
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, labels are missing, or there is one
        batch only.
    InputError
        If the data are infinite or not numbers.
    TooLargeError
        If the dense result would not fit.

    Warns
    -----
    AssociationWarning
        If a covariate is strongly associated with batch.
    BatchSizeWarning
        If a batch has under three samples.
    CountsWarning
        If the values look like raw counts.

    Notes
    -----
    Two passes over the matrix, in place, O(batches × features) memory beside it. Not
    for differential testing afterwards: see `batchcorr.ComBat`.

    References
    ----------
    Johnson, Li & Rabinovic (2007), Biostatistics 8:118-127; R package sva, `ComBat`.

    Examples
    --------
    >>> import warnings, batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> with warnings.catch_warnings(action="ignore"):  # cancer goes with batch here
    ...     bc.pp.combat(adata, "batch", covariates="cancer", key_added="combat")
    >>> adata.layers["combat"].shape
    (57, 22283)
    """
    return _correct.correct(
        adata,
        batch_key,
        method="combat",
        covariates=covariates,
        layer=layer,
        key_added=key_added,
        dense=dense,
        copy=copy,
        parametric=parametric,
        mean_only=mean_only,
        reference=reference,
    )


def standardize(
    adata: AnnData,
    batch_key: str,
    *,
    covariates: Any = None,
    reference: Any = None,
    target: str = "pooled",
    center: bool = True,
    scale: bool = True,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Bring every batch to a common mean and standard deviation, feature by feature.

    .. math:: y = σ (x - α_b - z β) / σ_b + α + z β

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch.
    covariates
        What to keep: columns of `obs`, a formula, a DataFrame, or a 2-D array.
    reference
        A batch whose mean and standard deviation the others take.
    target
        ``"pooled"``: the mean and pooled standard deviation of the batches.
        ``"unit"``: mean 0 and standard deviation 1 in every batch.
    center, scale
        Whether to correct means and standard deviations.
    layer
        Layer to correct; None: X.
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
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, or labels are missing.

    Warns
    -----
    AssociationWarning, BatchSizeWarning, CountsWarning

    Notes
    -----
    No shrinkage: in batches of few samples chance is "corrected" too; see `combat`.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.standardize(adata, "batch", reference="5")
    """
    return _correct.correct(
        adata,
        batch_key,
        method="standardize",
        covariates=covariates,
        layer=layer,
        key_added=key_added,
        dense=dense,
        copy=copy,
        target=target,
        center=center,
        scale=scale,
        reference=reference,
    )


def remove_batch_effect(
    adata: AnnData,
    batch_key: str | Sequence[str] | None,
    *,
    covariates: Any = None,
    nuisance: Any = None,
    weights: Any = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Subtract batch and nuisance effects of a linear model (limma's way).

    .. math:: y = x - c_b - w η, \qquad Σ_b c_b = 0

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch, or several batch factors, or None to remove
        nuisances alone.
    covariates
        What to keep: columns of `obs`, a formula, a DataFrame, or a 2-D array.
    nuisance
        What to remove with batch: columns of `obs`, a DataFrame, or a 2-D array.
    weights
        Of each sample (n,) or each value (n, G).
    layer
        Layer to correct; None: X.
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
        If a column or layer does not exist.
    DesignError
        If covariates are confounded with batch, or labels are missing.

    Warns
    -----
    AssociationWarning, BatchSizeWarning, CountsWarning
    CovariateWarning
        If nuisances repeat each other or batch.

    Notes
    -----
    Scale effects stay; see `combat` and `standardize` for those.

    References
    ----------
    R package limma, `removeBatchEffect`.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.remove_batch_effect(adata, "batch", key_added="centred")
    """
    return _correct.correct(
        adata,
        batch_key,
        method="remove_batch_effect",
        covariates=covariates,
        nuisance=nuisance,
        weights=weights,
        layer=layer,
        key_added=key_added,
        dense=dense,
        copy=copy,
    )


def combat_seq(
    adata: AnnData,
    batch_key: str,
    *,
    covariates: Any = None,
    shrink: bool = False,
    shrink_dispersion: bool = False,
    gene_subset: int | None = None,
    layer: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Remove batch effects from counts and give counts back (ComBat-seq).

    .. math:: \log μ = \log N + α + zβ + γ_b, \quad
        y^* = F_{μ e^{-γ^*}, φ^*}^{-1}(F_{μ, φ_b}(y))

    Parameters
    ----------
    adata
        Raw counts, samples × features, dense or sparse.
    batch_key
        Column of `obs` with the batch.
    covariates
        What to keep, the biological group above all: columns of `obs`, a formula, a
        DataFrame, or a 2-D array.
    shrink
        Draw batch effects towards those of features with similar counts: slow.
    shrink_dispersion
        With `shrink`: draw dispersions as well.
    gene_subset
        With `shrink`: look at this many random other features only.
    layer
        Layer to correct; None: X.
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
    return _correct.correct(
        adata,
        batch_key,
        method="combat_seq",
        covariates=covariates,
        layer=layer,
        key_added=key_added,
        copy=copy,
        shrink=shrink,
        shrink_dispersion=shrink_dispersion,
        gene_subset=gene_subset,
    )


def correct(
    adata: AnnData, batch_key: str | None, method: str = "combat", **parameters: Any
) -> AnnData | None:
    """Correct with any method, by its name.

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch.
    method
        Name of the method: ``batchcorr methods`` lists them.
    **parameters
        `covariates`, `layer`, `key_added`, `dense`, `copy`, and the parameters of the
        method.

    Returns
    -------
    As the method's own function.

    Raises
    ------
    MissingKeyError
        If there is no such method.
    InputError
        If the method has no such parameter.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> bc.pp.correct(adata, "batch", "standardize", target="unit")
    """
    return _correct.correct(adata, batch_key, method=method, **parameters)


def apply(
    adata: AnnData,
    correction: Corrector,
    *,
    batch_key: str | Sequence[str] | None = None,
    covariates: Any = None,
    nuisance: Any = None,
    layer: str | None = None,
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
    return _correct.apply(
        adata,
        correction,
        batch_key=batch_key,
        covariates=covariates,
        nuisance=nuisance,
        layer=layer,
        key_added=key_added,
        dense=dense,
        copy=copy,
    )
