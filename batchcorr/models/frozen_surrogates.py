r"""Surrogate variables of new samples, with the features' weights frozen (fsva).

With X the training samples, w the weights and w∘X - mean = V D Uᵀ, new samples x take

    fast     v_j = Σ_g U_gj/d_j w_g x_g,  then scaled over the new samples together
    exact    its entry in V of the training samples and itself together, one by one

each with the sign that agrees with the training columns (Parker et al. 2014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["exact_columns", "fast_columns"]


def fast_columns(
    training: Floats, weights: Floats, columns: Floats, new: Floats
) -> Floats:
    """The columns of new samples by projection, which depends on all of them: (m, k).

    Parameters
    ----------
    training, new
        Samples: (n, G) and (m, G), two new ones at least.
    weights
        Of the features, frozen: (G,).
    columns
        Surrogate variables of the training samples: (n, k).

    Notes
    -----
    R: sva `fsva(method="fast")`.
    """
    k = columns.shape[1]
    centred = training * weights
    centred -= centred.mean(axis=0)
    left, size, right = np.linalg.svd(centred, full_matrices=False)
    scores = (new * weights) @ (right[:k] / size[:k, None]).T
    scores *= _agreeing(left[:, :k], columns)
    scores -= scores.mean(axis=0)
    found: Floats = scores / scores.std(axis=0, ddof=1) / np.sqrt(len(new))
    return found


def exact_columns(
    training: Floats, weights: Floats, columns: Floats, new: Floats
) -> Floats:
    """The columns of new samples, each on its own beside the training samples: (m, k).

    Parameters
    ----------
    training, weights, columns, new
        As in `fast_columns`; one new sample is enough.

    Notes
    -----
    R: sva `fsva(method="exact")`. The products of the training samples are formed once;
    a new sample then costs O(n G) and one decomposition of n + 1.
    """
    n, k = columns.shape
    weighed = training * weights
    products = np.zeros((n + 1, n + 1))
    products[:n, :n] = weighed @ weighed.T
    found = np.empty((len(new), k))
    for place, sample in enumerate(new * weights):
        products[:n, n] = products[n, :n] = weighed @ sample
        products[n, n] = sample @ sample
        centred = products - products.mean(axis=0)
        centred -= centred.mean(axis=1, keepdims=True)
        vectors = np.linalg.eigh(centred)[1][:, ::-1][:, :k]
        found[place] = vectors[n] * _agreeing(vectors[:n], columns)
    return found


def _agreeing(vectors: Floats, columns: Floats) -> Floats:
    """The signs that make vectors correlate with columns: (k,)."""
    away = vectors - vectors.mean(axis=0)
    signs: Floats = np.sign((away * (columns - columns.mean(axis=0))).sum(axis=0))
    return signs
