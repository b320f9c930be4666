"""Weights by the name of a column or a layer, or as tables that are matched by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from batchcorr._anndata.columns import aligned, column_of
from batchcorr.errors import InputError, MissingKeyError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["weights_of"]


def weights_of(adata: AnnData, features: pd.Index[str], weights: object) -> Any:
    """Weights of samples (n,) or values (n, G), in their order; None: none were given.

    Raises
    ------
    MissingKeyError
        If a name is not a column of `obs`, nor a layer.
    InputError
        If a table is of other samples or features.
    """
    if isinstance(weights, str):
        if weights in adata.obs.columns:
            weights = column_of(adata, weights, "weights")
        elif weights in adata.layers:
            weights = adata.layers[weights]
        else:
            msg = (
                f"The weights {weights!r} are neither a column of adata.obs nor a "
                f"layer. {did_you_mean(weights, [*adata.obs.columns, *adata.layers])}"
            )
            raise MissingKeyError(msg)
    if isinstance(weights, pd.DataFrame | pd.Series):
        weights = aligned(adata, weights, "weights")
    if isinstance(weights, pd.DataFrame) and not weights.columns.equals(features):
        numbered = weights.columns.equals(pd.RangeIndex(weights.shape[1]))
        if weights.columns.is_unique and set(features) <= set(weights.columns):
            weights = weights.loc[:, features]
        elif not numbered:
            msg = (
                "The columns of weights do not match the features: give one column per "
                "feature with the same names, or weights.to_numpy() to match by "
                "position."
            )
            raise InputError(msg)
    return weights.toarray() if hasattr(weights, "toarray") else weights
