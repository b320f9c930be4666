"""Several batch factors as one: their combinations."""

from __future__ import annotations

import numpy as np
import pandas as pd

from batchcorr.errors import DesignError, some

__all__ = ["check_combinations", "crossed"]

FEWEST = 2
"""Samples of a combination, from which on it can be a batch."""


def crossed(batch: object) -> pd.Series:
    """A label for each combination of factors, missing where one of them is.

    Examples
    --------
    >>> crossed(np.array([["mon", 1], ["tue", 2]], dtype=object)).tolist()
    ['mon × 1', 'tue × 2']
    """
    table = (
        batch if isinstance(batch, pd.DataFrame) else pd.DataFrame(np.asarray(batch))
    )
    rows = zip(
        *(map(str, table.iloc[:, k]) for k in range(table.shape[1])), strict=True
    )
    joined = pd.Series(list(map(" × ".join, rows)), index=table.index, dtype=object)
    return joined.mask(table.isna().any(axis=1), None)


def check_combinations(labels: object) -> None:
    """Refuse combinations of too few samples to be batches."""
    counts = pd.Series(np.asarray(labels, dtype=object)).value_counts()
    few = sorted(counts.index[counts < FEWEST])
    if few:
        msg = (
            f"{len(few)} of {len(counts)} combinations of batch factors have only one "
            f"sample: {some(map(repr, few))}. cross=True needs at least {FEWEST} in "
            "each: use remove_batch_effect, which treats the factors separately."
        )
        raise DesignError(msg)
