r"""Counts mapped to where they would be without batch effects, block by block.

y* = F*⁻¹(F(y)),    F = NB(μ, φ_b),  F* = NB(μ e^(-γ*_b), φ*)

With a reference the quantile is that of y itself and not of y - 1, so that a zero may
become a count; the reference stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.arrays.dtypes import LARGEST_COUNT, dtype_of_counts
from batchcorr.models.counts.distribution import match_quantiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.arrays.feature_counts import FeatureCounts
    from batchcorr.design.design import Design
    from batchcorr.estimators.count_model import CountModel
    from batchcorr.models.namespace import Matrix

__all__ = ["BOUND", "map_counts"]

TO_REFERENCE = (0, 1e-6)
"""`below` and `tail` of `match_quantiles` with a reference."""

BOUND = 10.0
"""A corrected count may reach this many times the feature's highest rate seen by fit."""


def map_counts(
    counts: FeatureCounts,
    model: CountModel,
    design: Design,
    offset: NDArray[np.float64],
) -> tuple[Matrix, NDArray[np.float64]]:
    """Correct the adjusted features; the others stay.

    Parameters
    ----------
    offset
        Their log library sizes: (n,).

    Returns
    -------
    corrected
        A new matrix, NumPy or CSC as that of `counts`, in its dtype, or in the next
        wider one that holds the largest corrected count.
    capped
        How many values of each feature were kept down at the bound: (G,).
    """
    x, sparse = counts.x, not isinstance(counts.x, np.ndarray)
    values = (x.data if sparse else x).copy()
    capped = np.zeros(counts.shape[0])
    adjusted = np.flatnonzero(model.adjusted)
    made: list[tuple[NDArray[np.intp], Matrix]] = []
    for part, block in counts.take(features=adjusted).blocks():
        features = adjusted[part]
        old, new = model.means(design, offset, features)
        mapped = np.empty_like(block)
        capped[features] = match_quantiles(
            block,
            old,
            model.dispersions(design, features),
            new,
            model.phi_star[features],
            np.minimum(model.bound(offset, features, BOUND), LARGEST_COUNT),
            mapped,
            *(() if model.reference is None else TO_REFERENCE),
        )
        if model.reference is not None and model.nuisance_mean is None:
            stays = design.codes == model.reference
            mapped[:, stays] = block[:, stays]
        values = values.astype(
            dtype_of_counts(values.dtype, mapped.max(initial=0.0)), copy=False
        )
        if sparse and model.reference is not None:
            made.append((features, type(x)(mapped.T.astype(values.dtype))))
        elif sparse:
            rows, places = _stored(x, features)
            values[places] = mapped[rows, x.indices[places]]
        else:
            values[:, features] = mapped.T
    if not sparse:
        return values, capped
    if made:
        return _with_columns(x, made, values.dtype), capped
    return type(x)((values, x.indices.copy(), x.indptr.copy()), shape=x.shape), capped


def _with_columns(
    x: Matrix, made: list[tuple[NDArray[np.intp], Matrix]], dtype: np.dtype
) -> Matrix:
    """A CSC matrix with some of its columns made anew."""
    from scipy.sparse import hstack

    others = np.setdiff1d(np.arange(x.shape[1]), np.concatenate([f for f, _ in made]))
    blocks = [(others, x[:, others].astype(dtype)), *made]
    order = np.argsort(np.concatenate([features for features, _ in blocks]))
    return hstack([block for _, block in blocks], format="csc", dtype=dtype)[:, order]


def _stored(
    x: Matrix, features: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of the values stored for some columns: whose each is, 0 …, and its place in data."""
    lengths = np.diff(x.indptr)[features]
    ends = np.cumsum(lengths)
    column = np.repeat(np.arange(len(features)), lengths)
    return column, np.arange(lengths.sum()) + (x.indptr[features] - ends + lengths)[
        column
    ]
