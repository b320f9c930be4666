"""Where the features of a correction, or of a schema, are in an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from batchcorr.errors import (
    FeatureWarning,
    InputError,
    MissingKeyError,
    are,
    some,
    warn,
)
from batchcorr.estimators.features import require_as_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr.estimators.base import Corrector

__all__ = [
    "by_name",
    "matched_features",
    "positions_of",
    "require_unique",
    "warn_of_order",
]


def matched_features(adata: AnnData, correction: Corrector) -> NDArray[np.intp] | None:
    """Where the features of a correction are in `adata`; None: all, in order.

    Raises
    ------
    MissingKeyError
        If one is missing.
    InputError
        If there are others, and the correction knows no names to match them by.

    Warns
    -----
    FeatureWarning
        If `adata` has more features.
    """
    names = correction.feature_names_
    if names is not None:
        return positions_of(adata, names, "the correction", "as they are")
    n_known = correction.n_features_
    require_as_many(adata.n_vars, n_known, type(correction).__name__)
    return None


def by_name(adata: AnnData, given: object) -> object:
    """A Series that names the features, in their order; anything else as it is."""
    if (
        isinstance(given, pd.Series)
        and given.index.is_unique
        and set(given.index) == set(adata.var_names)
    ):
        return given.reindex(adata.var_names)
    return given


def positions_of(
    adata: AnnData, names: Sequence[str], owner: str, others: str
) -> NDArray[np.intp] | None:
    """Where some features are in `adata`; None: they are all there are, in order.

    Parameters
    ----------
    owner, others
        Whose features these are, and how others are left, for messages.
    """
    if tuple(adata.var_names) == tuple(names):
        return None
    require_unique(adata, f"those of {owner}")
    positions: NDArray[Any] = adata.var_names.get_indexer(list(names))
    missing = [name for name, at in zip(names, positions, strict=True) if at < 0]
    if missing:
        msg = (
            f"{len(missing)} of {len(names)} features of {owner} {are(len(missing))} "
            f"missing from adata.var_names: {some(missing)}. All of them are needed."
        )
        raise MissingKeyError(msg)
    extra = adata.n_vars - len(names)
    if extra:
        msg = (
            f"{extra} of {adata.n_vars} features {are(extra)} not known to {owner}, "
            f"and left {others}."
        )
        warn(msg, FeatureWarning)
    return positions


def warn_of_order(adata: AnnData, correction: Corrector) -> None:
    """Warn where names that occur twice leave nothing but the order to match by."""
    if correction.feature_names_ is None and not adata.var_names.is_unique:
        msg = (
            "var_names are not unique, so features are matched to those of the "
            "correction by position: check that they are in the same order. Call "
            "adata.var_names_make_unique() before fitting a correction."
        )
        warn(msg, FeatureWarning)


def require_unique(adata: AnnData, others: str) -> None:
    """Refuse names of features that occur twice, as they cannot be matched."""
    if not adata.var_names.is_unique:
        msg = (
            f"var_names are not unique, so features cannot be matched to {others}: "
            "call adata.var_names_make_unique() first."
        )
        raise InputError(msg)
