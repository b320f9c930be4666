r"""A linear model in which every subject has an intercept of its own, drawn at random.

    y = X β + u_subject + ε,       Var u = θ² σ²,   Var ε = σ²,   γ = θ²

by restricted maximum likelihood: γ minimizes

    log|V| + log|Xᵀ V⁻¹ X| + (n - p) log(rᵀ V⁻¹ r),      V = I + γ Z Zᵀ,  r = y - X β

and with n_j samples of subject j, V⁻¹ needs no more than sums over subjects,

    V⁻¹ y = y - γ / (1 + γ n_j) · (sum of y over the subject).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["RandomIntercept", "SubjectSums", "fit_random_intercept"]

GRID = 64
"""Shares γ/(1+γ) at which the likelihood is looked at first."""

BLOCK = 1 << 22
"""Numbers held at a time: features are worked on in blocks."""


class SubjectSums(NamedTuple):
    """Sums of n samples with p columns, in all and by subject.

    Attributes
    ----------
    n
        Samples of each subject: (J,).
    columns
        Sum of the columns over each subject: (J, p).
    values
        Sum of the values over each subject: (J, G).
    gram, cross, squares
        XᵀX (p, p), Xᵀy (p, G) and yᵀy (G,).
    """

    n: Floats
    columns: Floats
    values: Floats
    gram: Floats
    cross: Floats
    squares: Floats

    @classmethod
    def of(cls, y: Floats, x: Floats, subject: NDArray[np.intp]) -> SubjectSums:
        """Gather the sums of samples: y (n, G), x (n, p), codes of subjects (n,)."""
        n = np.bincount(subject).astype(np.float64)
        columns, values = (np.zeros((len(n), part.shape[1])) for part in (x, y))
        np.add.at(columns, subject, x)
        np.add.at(values, subject, y)
        return cls(n, columns, values, x.T @ x, x.T @ y, (y * y).sum(axis=0))


@dataclass(frozen=True)
class RandomIntercept:
    """The fit of G features.

    Attributes
    ----------
    coefficients
        β: (p, G).
    variance
        σ²: (G,).
    ratio
        γ, the variance of subjects over that of samples: (G,).
    subjects
        The predicted intercept of each subject: (J, G).
    """

    coefficients: Floats
    variance: Floats
    ratio: Floats
    subjects: Floats


def fit_random_intercept(sums: SubjectSums) -> RandomIntercept:
    """Fit the model to all features, each with a γ of its own.

    Notes
    -----
    R: lme4 `lmer(y ~ x + (1 | subject))`, at the exact root of the score. With y measured
    from its mean nothing cancels.
    """
    width = max(1, BLOCK // max(1, len(sums.gram) ** 2 * GRID))
    n_features = sums.values.shape[1]
    ratio = np.concatenate(
        [
            _Likelihood(_part(sums, slice(start, start + width))).minimum()
            for start in range(0, n_features, width)
        ]
    )
    likelihood = _Likelihood(sums)
    beta, squares, _ = likelihood.solve(ratio)
    left = sums.values - sums.columns @ beta
    subjects = ratio / (1 + ratio * sums.n[:, None]) * left
    residual = sums.n.sum() - len(sums.gram)
    return RandomIntercept(beta, squares / residual, ratio, subjects)


def _part(sums: SubjectSums, features: slice) -> SubjectSums:
    return sums._replace(
        values=sums.values[:, features],
        cross=sums.cross[:, features],
        squares=sums.squares[features],
    )


class _Likelihood:
    """The restricted likelihood of each feature as a function of its γ.

    Subjects of as many samples share the same factor, so that sums over subjects are
    gathered once for each number of samples.
    """

    def __init__(self, sums: SubjectSums) -> None:
        self.sums = sums
        self.sizes, group = np.unique(sums.n, return_inverse=True)
        self.members = np.bincount(group).astype(np.float64)
        count, p = len(self.sizes), len(sums.gram)
        n_features = sums.values.shape[1]
        self.gram = np.zeros((count, p, p))
        self.cross = np.zeros((count, p, n_features))
        self.squares = np.zeros((count, n_features))
        for k in range(count):
            columns, values = sums.columns[group == k], sums.values[group == k]
            self.gram[k] = columns.T @ columns
            self.cross[k] = columns.T @ values
            self.squares[k] = (values * values).sum(axis=0)

    def solve(self, ratio: Floats) -> tuple[Floats, Floats, Floats]:
        """β (p, G), rᵀV⁻¹r (G,) and XᵀV⁻¹X (G, p, p) at γ (G,)."""
        factor = ratio / (1 + self.sizes[:, None] * ratio)
        gram = self.sums.gram - np.einsum("kg,kij->gij", factor, self.gram)
        cross = self.sums.cross - np.einsum("kg,kig->ig", factor, self.cross)
        beta = np.linalg.solve(gram, cross.T[:, :, None])[:, :, 0].T
        squares = self.sums.squares - (factor * self.squares).sum(axis=0)
        return beta, np.maximum(squares - (beta * cross).sum(axis=0), 0), gram

    def criterion(self, ratio: Floats) -> Floats:
        """Minus twice the log-likelihood, less a constant: (G,)."""
        _, squares, gram = self.solve(ratio)
        determinant = self.members @ np.log1p(self.sizes[:, None] * ratio)
        with np.errstate(divide="ignore"):
            value: Floats = (
                determinant
                + np.linalg.slogdet(gram)[1]
                + self.residual * np.log(squares)
            )
        return value

    def score(self, ratio: Floats) -> Floats:
        """The derivative of the criterion in γ: (G,)."""
        beta, squares, gram = self.solve(ratio)
        shrink = 1 / (1 + self.sizes[:, None] * ratio)
        inner = np.einsum("kg,kij->gij", shrink**2, self.gram)
        trace = np.einsum("gii->g", np.linalg.solve(gram, inner))
        left = (  # squares of the subjects' residual sums, by number of samples
            self.squares
            - 2 * np.einsum("ig,kig->kg", beta, self.cross)
            + np.einsum("ig,kij,jg->kg", beta, self.gram, beta)
        )
        between = (shrink**2 * left).sum(axis=0)
        first = (self.members * self.sizes) @ shrink
        with np.errstate(divide="ignore", invalid="ignore"):
            value: Floats = first - trace - self.residual * between / squares
        return value

    @property
    def residual(self) -> float:
        """Samples less columns."""
        return float(self.sums.n.sum() - len(self.sums.gram))

    def minimum(self) -> Floats:
        """γ at the lowest criterion: (G,)."""
        shares = np.linspace(0, 1, GRID, endpoint=False)
        n_features = self.sums.values.shape[1]
        values = np.stack(
            [
                self.criterion(np.full(n_features, share / (1 - share)))
                for share in shares
            ]
        )
        lowest = np.argmin(values, axis=0)
        low = shares[np.maximum(lowest - 1, 0)]
        high = np.minimum(shares[lowest] + 1 / GRID, 1 - 1e-12)
        at_zero = (lowest == 0) & (self.score(np.zeros(n_features)) >= 0)
        for _ in range(60):
            middle = (low + high) / 2
            rising = self.score(middle / (1 - middle)) > 0
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        share = (low + high) / 2
        return np.where(at_zero, 0.0, share / (1 - share))
