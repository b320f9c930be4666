"""Any method on AnnData, by its name."""

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
    own = {name: parameters.pop(name) for name in Place._fields if name in parameters}
    return correct_with(adata, batch_key, Place(**own), method=method, **parameters)
