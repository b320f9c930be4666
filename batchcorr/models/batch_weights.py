r"""One weight a batch, where batches differ in how variable they are.

    Var ε[i, g] = σ_g² / w_b,        w_b = exp(-γ_b),    Σ_b n_b γ_b = 0

by restricted maximum likelihood over all features (Smyth 2002; Ritchie et al. 2006): Fisher
scoring on γ, whose score and information need no more than the sums by batch,

    w_b RSS_b / s²  against  n_b - 1 - w_b tr(V S_b),        V = (Σ_b w_b S_b)⁻¹.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.linear_model import PERFECT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.models.moments import Moments

    Floats = NDArray[np.float64]

__all__ = ["batch_weights"]

PRIOR = 10.0
"""Features' worth of evidence that batches are alike."""

ROUNDS = 50
TOLERANCE = 1e-5


def batch_weights(moments: Moments, observed: Moments | None = None) -> Floats:
    """The weight of each batch, of mean log 0 over samples; 1 without any: (B,).

    Parameters
    ----------
    moments
        Of all batches, with no value missing; weighted, perhaps.
    observed
        Where `moments` are weighted: the plain ones.

    Notes
    -----
    R: limma `arrayWeights` with ``var.group`` the batch, ``method="reml"``, and its
    stopping rule. With weights of values, features differ in V and S_b, and what they say
    is added up.
    """
    n_features, n_batches = moments.n_features, moments.n_batches
    counts = (moments if observed is None else observed).n.max(axis=1)
    weights, there = np.ones(n_batches), counts > 0
    if not there.all():
        kept = moments.map(lambda a: a[there])
        seen = observed and observed.map(lambda a: a[there])
        weights[there] = batch_weights(kept, seen)
        return weights
    n = counts.sum()
    residual = n - n_batches - moments.n_columns
    log_weights = np.zeros(n_batches - 1)
    if residual < 2 or n_batches == 1:
        return weights
    contrasts = np.vstack([np.eye(n_batches - 1), -np.ones(n_batches - 1)])
    contrasts -= counts @ contrasts / n
    used, best = None, np.inf
    gram = np.moveaxis(moments.gram, -1, 0)  # (1|G, B, p, p)
    for _ in range(ROUNDS):
        v = np.linalg.inv(np.einsum("b,gbij->gij", weights, gram))
        squares = weights[:, None] * _residual_squares(moments, v, weights)
        variance = squares.sum(axis=0) / residual
        if used is None:
            used = squares.sum(axis=0) > PERFECT * moments.squares.sum(axis=0)
            n_features = int(used.sum())
            if not n_features:
                return weights
            each = used if len(gram) > 1 else np.ones(1, dtype=bool)
        share = (squares[:, used] / variance[used]).mean(axis=1)
        vs = weights[:, None, None] * (v[:, None] @ gram)[each]
        leverage = np.einsum("gbii->gb", vs)  # beyond the batch's own mean
        information = np.einsum("gbij,gcji->gbc", vs, vs)
        diagonal = np.arange(n_batches)
        information[:, diagonal, diagonal] += counts - 1 - 2 * leverage
        border = information.sum(axis=2)
        information -= (
            border[:, :, None] * border[:, None] / border.sum(axis=1)[:, None, None]
        )
        joint = contrasts.T @ information.mean(axis=0) @ contrasts
        joint = n_features * joint + PRIOR * contrasts.T @ (counts[:, None] * contrasts)
        score = n_features * (share - (counts - 1 - leverage.mean(axis=0)))
        score = contrasts.T @ (score + PRIOR * counts * (weights - 1))
        step = np.linalg.solve(joint, score)
        criterion = score @ step / len(step) / (n_features + PRIOR)
        if not criterion < best:
            break
        best = criterion
        log_weights += step
        weights = np.exp(-contrasts @ log_weights)
        if criterion < TOLERANCE:
            break
    return weights


def _residual_squares(moments: Moments, v: Floats, weights: Floats) -> Floats:
    """The residual squares of each batch under β of the weighted fit: (B, G)."""
    cross = np.einsum("b,bjg->jg", weights, moments.cross)
    beta = (v @ cross.T[:, :, None])[..., 0].T if len(v) > 1 else v[0] @ cross
    squares: Floats = moments.squares - 2 * np.einsum("jg,bjg->bg", beta, moments.cross)
    explained: Floats = np.einsum(
        "jg,bjkg,kg->bg", beta, moments.gram, beta, optimize=True
    )
    squares += explained
    return np.maximum(squares, 0)
