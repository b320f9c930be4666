"""Moments of features that were read in parts, as one."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["joined"]

SHARED = ("rows", "n", "columns", "gram")
"""Moments that do not depend on the feature, unless values are missing or weighted."""


def joined(parts: Sequence[Moments]) -> Moments:
    """The moments of all features, from those of one part of them after the other."""
    if len(parts) == 1:
        return parts[0]
    widths = [part.n_features for part in parts]
    shared = all(_same_rows(parts[0], part) for part in parts)
    merged = {}
    for field in fields(Moments):
        arrays = [getattr(part, field.name) for part in parts]
        if field.name == "rows" or (field.name in SHARED and shared):
            merged[field.name] = arrays[0]
            continue
        merged[field.name] = np.concatenate(
            [
                np.broadcast_to(array, (*array.shape[:-1], width))
                for array, width in zip(arrays, widths, strict=True)
            ],
            axis=-1,
        )
    return Moments(**merged)


def _same_rows(one: Moments, other: Moments) -> bool:
    """Whether all features of both were observed in the same rows, as far as is known.

    A chunk of one feature does not tell by its shape whether values are missing.
    """
    return all(
        a.shape[-1] == 1 and np.array_equal(a, b)
        for name in SHARED
        for a, b in [(getattr(one, name), getattr(other, name))]
    )
