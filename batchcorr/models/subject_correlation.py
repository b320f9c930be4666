r"""One correlation of the samples of a subject, common to all features.

    y = X β + ε,     Var ε = σ² V,     V_ij = ρ within a subject, 0 between, 1 for i = j

(duplicateCorrelation: Smyth, Michaud & Scott 2005). Of the residuals, the squares q_k
along the directions in which subjects differ have the means

    E q_k = v₀ + v₁ d_k,      d the eigenvalues of Zᵀ M Z,   ρ = v₁ / (v₀ + v₁)

with M the residual maker of X and Z the columns of subjects (`gamma_line`). Needed are sums by subject and in all (`SubjectSums`); so they are for the
generalized least squares at one ρ, the trimmed mean over features, as with γ = ρ/(1-ρ)

    V⁻¹ y = (y - γ / (1 + γ n_j) · sum of y over the subject) / (1 - ρ).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.gamma_line import Squares, fit_gamma_line
from batchcorr.models.generalized_inverse import generalized_inverse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from batchcorr.models.random_intercept import SubjectSums

    Floats = NDArray[np.float64]

__all__ = ["consensus", "subject_correlation", "whitened"]

ZERO = 1e-10
"""Share of the largest subject under which an eigenvalue is 0."""

ALIKE = 1e-12
"""The same for the difference of eigenvalues that are one."""

TRIM = 0.15
HIGHEST = 0.99


def subject_correlation(sums: SubjectSums, n_columns: int, largest: int) -> Floats:
    """ρ of each feature; NaN where its samples do not tell it: (G,).

    Parameters
    ----------
    sums
        Of features that share their samples; columns and values scaled by the roots of
        weights, where samples have any.
    n_columns
        Columns of the design of all samples.
    largest
        Samples of the largest subject, of all samples.

    Notes
    -----
    R: limma `duplicateCorrelation`, with the stopping rule of statmod `mixedModel2Fit`.
    """
    n, n_features = sums.n.sum(), sums.values.shape[1]
    subjects = np.count_nonzero(sums.n)
    if not (n > n_columns + 2 and 1 < subjects < n - 1):
        return np.full(n_features, np.nan)
    v, rank = generalized_inverse(sums.gram)
    beta = v @ sums.cross
    between = np.diag(sums.n) - sums.columns @ v @ sums.columns.T
    size, directions = np.linalg.eigh(between)
    own = size > ZERO * sums.n.max()
    along = directions[:, own].T @ (sums.values - sums.columns @ beta)
    squares = along**2 / size[own, None]
    count, d, q = _together(size[own], squares)
    rest = int(n - rank - own.sum())
    if rest > 0:  # directions in which subjects do not differ
        left = sums.squares - (beta * sums.cross).sum(axis=0) - squares.sum(axis=0)
        count, d = np.append(count, rest), np.append(d, 0.0)
        q = np.vstack([q, np.maximum(left, 0)])
    if len(d) < 2:
        return np.full(n_features, np.nan)
    first, second = fit_gamma_line(Squares(count[:, None], d[:, None], q))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = second / (first + second)
    lowest = 1 / (1 - largest) + 0.01
    return np.asarray(np.clip(correlation, lowest, HIGHEST))


def consensus(correlations: Iterable[Floats]) -> float:
    """The correlation that features have in common: a trimmed mean of arctanh ρ.

    NaN where no feature tells any.

    Examples
    --------
    >>> round(consensus([np.array([0.2, 0.2, np.nan])]), 12)
    0.2
    """
    rho = np.concatenate(list(correlations))
    values = np.sort(np.arctanh(rho[np.isfinite(rho)]))
    if not len(values):
        return float("nan")
    cut = int(TRIM * len(values))
    return float(np.tanh(values[cut : len(values) - cut].mean()))


def whitened(sums: SubjectSums, correlation: float) -> tuple[Floats, Floats, Floats]:
    """Xᵀ V⁻¹ X (p, p), Xᵀ V⁻¹ y (p, G) and yᵀ V⁻¹ y (G,)."""
    ratio = correlation / (1 - correlation)
    shrink = ratio / (1 + ratio * sums.n[:, None])
    columns = shrink * sums.columns
    gram = sums.gram - sums.columns.T @ columns
    cross = sums.cross - columns.T @ sums.values
    squares = sums.squares - (shrink * sums.values**2).sum(axis=0)
    rest = 1 - correlation
    return gram / rest, cross / rest, squares / rest


def _together(d: Floats, q: Floats) -> tuple[Floats, Floats, Floats]:
    """How many directions share each d (ascending), these d, and the sums of their q."""
    first = np.flatnonzero(np.diff(d, prepend=-np.inf) > ALIKE * d.max(initial=0))
    count = np.diff(np.append(first, len(d))).astype(np.float64)
    if not len(first):
        return count, d, q
    return count, np.add.reduceat(d, first) / count, np.add.reduceat(q, first, axis=0)
