"""ComBat on AnnData."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Never

from batchcorr._anndata.correct import correct
from batchcorr._anndata.step import Place
from batchcorr.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["combat"]

OF_SCANPY = {
    "key": "batch_key= names the column here, as scanpy's key= does",
    "inplace": "inplace=True is what it does anyway; for inplace=False, copy=True gives "
    "a corrected AnnData, and key_added= a new layer",
}
"""What stands here for the options of `scanpy.pp.combat`."""


def combat(
    adata: AnnData,
    batch_key: str | list[str] | None = None,
    *,
    covariates: object = None,
    nuisance: object = None,
    parametric: bool = True,
    mean_only: bool = False,
    shrink: bool = True,
    reference: object = None,
    cross: bool = False,
    layer: str | None = None,
    obsm: str | None = None,
    missing: str = "error",
    subject: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    copy: bool = False,
    **other: Never,
) -> AnnData | None:
    r"""Remove batch effects in location and scale, shrunk by empirical Bayes (ComBat).

    .. math::
        y = (x - α̂ - z β̂ - σ̂ γ^*_b) / δ^*_b + α̂ + z β̂

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch; several with `cross`.
    covariates
        What to keep: columns of `obs`, a formula such as ``"~ cell_type + age"``, a
        DataFrame, or a 2-D array of design columns.
    nuisance
        What to remove with batch, such as an age or surrogate variables: columns of
        `obs`, a matrix of `obsm`, or a table.
    parametric
        Normal and inverse-gamma priors; False: the other features are the prior.
    mean_only
        Correct locations only.
    shrink
        False: each batch's own location and scale, without empirical Bayes.
    reference
        A batch that stays as it is, and that the others are brought to.
    cross
        With several batch columns: take their combinations as batches.
    layer
        Layer to correct; None: X.
    obsm
        Correct this matrix of `obsm` instead, such as ``"X_pca"``; `key_added` then names
        the result in `obsm`. Few components share no prior: ``mean_only`` is advised.
    missing
        ``"level"``: missing labels are a level of their own; ``"error"``: refused.
    subject
        Column of `obs` that says who a sample is of: persons measured in several batches
        keep their level, by an intercept at random for each.
    key_added
        Layer for the result; None: overwrite what was read.
    dense
        Whether a sparse matrix may become dense. None: with a warning if the result
        takes under half of the free memory, otherwise not.
    copy
        Return a corrected copy and leave `adata` as it is.
    **other
        None: the error translates ``key`` and ``inplace`` of `scanpy.pp.combat`.

    Returns
    -------
    `None` if ``copy=False``, else the corrected AnnData. Sets ``adata.X`` or
    ``adata.layers[key_added]``, in the dtype of the input (integers become floats), and
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
    if other:
        _refuse(next(iter(other)))
    return correct(
        adata,
        batch_key,
        Place(layer, key_added, dense, copy, obsm),
        method="combat",
        missing=missing,
        subject=subject,
        covariates=covariates,
        nuisance=nuisance,
        parametric=parametric,
        mean_only=mean_only,
        shrink=shrink,
        reference=reference,
        cross=cross,
    )


def _refuse(name: str) -> Never:
    """Say what stands for an option that there is not."""
    options = [option for option in signature(combat).parameters if option != "other"]
    meant = OF_SCANPY.get(name) or did_you_mean(name, options)
    msg = f"batchcorr.pp.combat has no option {name}=: {meant}"
    raise InputError(msg if msg.endswith(".") else f"{msg}.")
