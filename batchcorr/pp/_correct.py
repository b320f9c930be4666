"""Any correction method on AnnData, chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr._anndata.correct import correct as correct_with
from batchcorr._anndata.step import Place

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["correct"]


def correct(
    adata: AnnData, batch_key: str | None, method: str = "combat", **parameters: Any
) -> AnnData | None:
    """Correct an AnnData with the method of this name.

    Parameters
    ----------
    adata
        Samples × features, on a log scale.
    batch_key
        Column of `obs` with the batch.
    method
        Name of the method; the command ``batchcorr methods`` lists all.
    **parameters
        `covariates`, `layer`, `key_added`, `dense`, `copy`, and parameters of the
        method.

    Returns
    -------
    The same as the function of the method, such as `pp.combat`.

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
    own = {name: parameters.pop(name) for name in Place._fields if name in parameters}
    return correct_with(adata, batch_key, Place(**own), method=method, **parameters)
