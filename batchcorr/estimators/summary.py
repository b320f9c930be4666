"""What a fit is summed up to, for records and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchcorr.estimators.metadata import Metadata

__all__ = ["summary_of"]

LISTED = 100
"""Names of features that are listed at most."""


def summary_of(metadata: Metadata, unchanged: NDArray[np.object_]) -> dict[str, Any]:
    """Batches, covariates and features left as they were, as JSON can hold them."""
    variables = (*metadata.covariates.variables, *metadata.nuisance.variables)
    read_as = {
        each.column: "numeric" if each.levels is None else list(map(str, each.levels))
        for each in variables
    }
    return {
        "batches": [str(level) for level in metadata.levels],
        "kept": list(dict.fromkeys(metadata.covariates.terms)),
        "read_as": read_as,
        "features_unchanged": int(unchanged.size),
        "features_unchanged_names": [str(name) for name in unchanged[:LISTED]],
    }
