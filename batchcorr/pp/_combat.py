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
    "key": "use batch_key=, which names the batch column as scanpy's key= does",
    "inplace": "it always works in place, as inplace=True does; instead of "
    "inplace=False use copy=True (a corrected AnnData) or key_added= (a new layer)",
}
"""What replaces the options of `scanpy.pp.combat` here."""


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
    r"""Remove batch effects on mean and variance, shrunk by empirical Bayes (ComBat).

    .. math::
        y = (x - α̂ - z β̂ - σ̂ γ^*_b) / δ^*_b + α̂ + z β̂

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch; several columns with `cross`.
    covariates
        Covariates to keep: columns of `obs`, a formula such as ``"~ cell_type + age"``,
        a DataFrame, or a 2-D array of design columns.
    nuisance
        Covariates to remove along with batch, such as surrogate variables: columns of
        `obs`, a matrix of `obsm`, or a DataFrame.
    parametric
        True: normal and inverse-gamma priors. False: non-parametric priors, the
        empirical distribution of all other features.
    mean_only
        Correct the mean only, not the variance.
    shrink
        False: use each batch's own mean and variance, without empirical Bayes.
    reference
        Reference batch: it stays unchanged, and the other batches are adjusted to it.
    cross
        Use each combination of labels of several batch columns as a batch.
    layer
        Layer to correct; None: X.
    obsm
        Matrix of `obsm` to correct, such as ``"X_pca"``; `key_added` is then a key of
        `obsm`. Use ``mean_only`` there: a prior cannot be estimated from few
        components.
    missing
        Missing labels raise an ``"error"`` or form a ``"level"`` of their own.
    subject
        Column of `obs` with the subject (person) of each sample: a random intercept for
        each keeps the differences between subjects.
    key_added
        Layer for the result; None: overwrite the input.
    dense
        Let a sparse matrix become dense; None: if half of the free memory is enough
        (with a warning from 1 GiB on).
    copy
        Return a corrected copy and leave `adata` unchanged.
    **other
        Refused: for options of `scanpy.pp.combat` the error names those to use here.

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
        If covariates are confounded with batch, labels are missing, or there is only
        one batch.
    InputError
        If values are infinite or not numbers.
    TooLargeError
        If the dense result would not fit into memory.

    Warns
    -----
    AssociationWarning
        If a covariate is strongly associated with batch.
    BatchSizeWarning
        If a batch has fewer than three samples.
    CountsWarning
        If the values look like raw counts.

    Notes
    -----
    Two passes over the matrix, in place, with O(batches × features) additional memory.
    Do not test corrected values: see `batchcorr.ComBat`.

    References
    ----------
    Johnson, Li & Rabinovic (2007), Biostatistics 8:118-127; R package sva, `ComBat`.

    Examples
    --------
    >>> import warnings, batchcorr as bc
    >>> adata = bc.datasets.bladder()
    >>> with warnings.catch_warnings(action="ignore"):  # cancer differs by batch
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
    """Refuse an unknown option, naming the one to use instead."""
    options = [option for option in signature(combat).parameters if option != "other"]
    meant = OF_SCANPY.get(name) or did_you_mean(name, options)
    msg = f"batchcorr.pp.combat has no option {name}=: {meant}"
    raise InputError(msg if msg.endswith(".") else f"{msg}.")
