"""Assign samples to batches, each group with the given shares.

Within a group of n samples in random order, batch b gets those from round(n C[b-1]) to
round(n C[b]), with C the cumulated shares: as near to its share as whole samples allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["assigned_batches"]


def assigned_batches(
    obs: pd.DataFrame,
    levels: list[str],
    *,
    by: str | None,
    shares: Mapping[str, Sequence[float]] | None,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the number of the batch of every sample.

    Raises
    ------
    InputError
        If shares cannot be used, labels are missing, or a batch would get no sample.
    MissingKeyError
        If the column or a group does not exist.
    """
    groups, names = _groups(obs, by)
    if shares is not None and by is None:
        msg = "shares= needs by=, the column of obs with the groups."
        raise InputError(msg)
    for name in shares or {}:
        if name not in names:
            msg = f"There is no group {name!r} in obs[{by!r}]. {did_you_mean(name, names)}"
            raise MissingKeyError(msg)
    codes = np.empty(len(obs), np.int64)
    for group, name in enumerate(names):
        share = _share((shares or {}).get(name, [1.0] * len(levels)), name, levels)
        rows = rng.permutation(np.flatnonzero(groups == group))
        ends = np.rint(len(rows) * share.cumsum()).astype(np.int64)
        codes[rows] = np.searchsorted(ends, np.arange(len(rows)), side="right")
    empty = np.setdiff1d(np.arange(len(levels)), codes)
    if empty.size:
        lost = some(repr(levels[batch]) for batch in empty)
        msg = (
            f"Batch {lost} would have no sample: there are {len(obs)} samples for "
            f"{len(levels)} batches. Use fewer batches, or other shares."
        )
        raise InputError(msg)
    return codes


def _groups(obs: pd.DataFrame, by: str | None) -> tuple[NDArray[np.int64], list[str]]:
    """Return the number of the group of every sample, and the names of the groups."""
    if by is None:
        return np.zeros(len(obs), np.int64), ["all"]
    if by not in obs:
        msg = f"There is no column {by!r} in obs. {did_you_mean(by, obs.columns)}"
        raise MissingKeyError(msg)
    labels = obs[by].astype("category").cat.remove_unused_categories()
    missing = int(labels.isna().sum())
    if missing:
        msg = (
            f"obs[{by!r}] is missing in {missing} of {len(obs)} samples: label these "
            "samples, or drop them."
        )
        raise InputError(msg)
    return np.asarray(labels.cat.codes, np.int64), list(labels.cat.categories)


def _share(share: Sequence[float], name: str, levels: list[str]) -> NDArray[np.float64]:
    """Return the shares of one group in every batch, with a sum of 1."""
    numbers = np.asarray(share)
    usable = numbers.dtype.kind in "iuf" and numbers.shape == (len(levels),)
    if not usable or not (numbers >= 0).all() or not 0 < numbers.sum() < np.inf:
        msg = (
            f"shares[{name!r}] must be {len(levels)} numbers, one for each of the "
            f"batches {some(map(repr, levels))}, none negative and not all 0; it is "
            f"{share!r:.60}."
        )
        raise InputError(msg)
    return np.asarray(numbers / numbers.sum(), np.float64)
