r"""How many batches, or kinds, a sample's neighbours are of: local inverse Simpson's index.

    LISI_i = 1 / Σ_c p_ic²,      p_ic = Σ_{j: c_j = c} w_ij

over the 3 h nearest neighbours j of i, with w_ij ∝ exp(-β_i d_ij) and β_i such that the
weights have perplexity h. From 1, all of one batch, to the number of batches.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchcorr.errors import InputError
from batchcorr.metrics._points import points_and_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Neighbours", "lisi", "lisi_of", "neighbours"]

TOLERANCE = 1e-5
"""Of the logarithm of the perplexity, as in harmonypy."""

ROUNDS = 50
"""Of bisection at most."""


class Neighbours(NamedTuple):
    """The nearest neighbours of every sample, itself not among them.

    Attributes
    ----------
    place
        Which they are: (n, k).
    weight
        What each counts, 1 in all: (n, k).
    """

    place: NDArray[np.intp]
    weight: Floats


def lisi(embedding: object, labels: object, *, perplexity: float = 30) -> Floats:
    r"""Return the local inverse Simpson's index (LISI) of each sample.

    .. math:: \mathrm{LISI}_i = 1 / \sum_c \Big(\sum_{j : c_j = c} w_{ij}\Big)^2

    Parameters
    ----------
    embedding
        Coordinates of the samples: (n, k).
    labels
        Batch of each sample (high LISI: batches are mixed), or cell type (LISI of 1:
        types are separate): (n,).
    perplexity
        Effective number of neighbours; three times as many are searched.

    Returns
    -------
    Effective number of labels in the neighbourhood of each sample, (n,): from 1 to the
    number of labels.

    Raises
    ------
    DesignError
        If labels are missing.
    InputError
        If there are not more than three times as many samples as the perplexity, or
        shapes do not match.

    Notes
    -----
    The same as harmonypy's `compute_lisi`. One nearest-neighbour search, O(n k) memory.

    References
    ----------
    Korsunsky et al. (2019), Nat. Methods 16:1289-1296.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> batch = np.repeat(["a", "b"], 100)
    >>> mixed = rng.normal(size=(200, 2))
    >>> apart = mixed + 20.0 * (batch == "b")[:, None]
    >>> [round(float(lisi(z, batch).mean()), 1) for z in (mixed, apart)]
    [1.9, 1.0]
    """
    points, codes = points_and_codes(embedding, labels)
    if not isinstance(perplexity, Real) or not 1 <= float(perplexity) < np.inf:
        msg = f"perplexity must be a number of at least 1, not {perplexity!r:.40}."
        raise InputError(msg)
    return lisi_of(neighbours(points, perplexity=perplexity), codes)


def neighbours(points: Floats, *, perplexity: float = 30) -> Neighbours:
    """The nearest neighbours of every sample, and what each counts.

    Parameters
    ----------
    points
        Coordinates of the samples: (n, k).
    perplexity
        Effective number of neighbours; three times as many are searched.

    Raises
    ------
    InputError
        If there are too few samples.
    """
    from sklearn.neighbors import NearestNeighbors

    count = int(3 * perplexity)
    if len(points) <= count:
        msg = (
            f"perplexity={perplexity:g} needs more than {count} samples; the shape of "
            f"the embedding is {points.shape}."
        )
        raise InputError(msg)
    search = NearestNeighbors(n_neighbors=count).fit(points)
    distance, place = search.kneighbors()
    return Neighbours(place, _weights(distance, np.log(perplexity)))


def lisi_of(found: Neighbours, codes: NDArray[np.generic]) -> Floats:
    """The index of each sample, from its neighbours and integer labels: (n,)."""
    of_neighbours = codes[found.place]
    simpson = np.zeros(len(codes))
    for code in np.unique(codes):
        share = (found.weight * (of_neighbours == code)).sum(axis=1)
        simpson += share**2
    return 1 / simpson


def _weights(distance: Floats, entropy: float) -> Floats:
    """Weights exp(-β d) of the asked entropy, β by bisection of all rows at once."""
    distance = distance - distance[:, :1]
    low, high = np.zeros(len(distance)), np.full(len(distance), np.inf)
    beta = np.ones(len(distance))
    weight = np.empty_like(distance)
    rows = np.arange(len(distance))
    for _ in range(ROUNDS + 1):
        raw = np.exp(-distance[rows] * beta[rows, None])
        total = raw.sum(axis=1)
        weight[rows] = raw / total[:, None]
        mean = (weight[rows] * distance[rows]).sum(axis=1)
        excess = np.log(total) + beta[rows] * mean - entropy
        missed = np.abs(excess) >= TOLERANCE
        rows, excess = rows[missed], excess[missed]
        if not len(rows):
            break
        flat = excess > 0
        low[rows] = np.where(flat, beta[rows], low[rows])
        high[rows] = np.where(flat, high[rows], beta[rows])
        open_ = np.isinf(high[rows])
        beta[rows] = np.where(open_, 2 * beta[rows], (low[rows] + high[rows]) / 2)
    return weight
