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

    from batchcorr.methods.base import LocationScaleMethod

__all__ = ["apply", "combat", "correct", "remove_batch_effect", "standardize"]


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
    correction: LocationScaleMethod,
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
