r"""Batches nobody wrote down: columns found in what the known model leaves (sva).

    V = first eigenvectors of Dᵀ D,    D = x_g w_g,    w_g = P(γ_g ≠ 0) (1 - P(β_g ≠ 0))

with V also part of both models, so that weights and columns are found in turn (Leek &
Storey 2007, 2008): P(β ≠ 0) that a feature follows what is tested, P(γ ≠ 0) that it
follows the columns, each 1 - local FDR of an F test. Features that follow the hidden
batch and nothing else then say what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import f as fisher

from batchcorr.models.local_fdr import local_fdr
from batchcorr.models.low_rank import leading_vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "SurrogateVariables",
    "count_variables",
    "find_by_reweighting",
    "find_in_two_steps",
    "find_with_controls",
    "nested_p",
    "residuals",
]

ROUNDING = 1e-18
"""Squares under this share of all say nothing: rounding errors are a part of them."""


@dataclass(frozen=True)
class SurrogateVariables:
    """Columns found, and how each feature was weighed.

    Attributes
    ----------
    columns
        V, of unit length, signs free: (n, k).
    hidden
        Probability that the feature follows the columns: (G,).
    known
        Probability that it follows what is tested: (G,).
    """

    columns: Floats
    hidden: Floats
    known: Floats

    @property
    def weights(self) -> Floats:
        """How much each feature says of the columns: (G,)."""
        return self.hidden * (1 - self.known)


def residuals(x: Floats, model: Floats) -> Floats:
    """What a model of the rows leaves of every feature: (n, G).

    Parameters
    ----------
    x
        (n, G).
    model
        Design columns: (n, p).
    """
    basis = np.linalg.qr(model)[0]
    left: Floats = x - basis @ (basis.T @ x)
    return left


def nested_p(x: Floats, model: Floats, smaller: Floats) -> Floats:
    """The p-values of F tests of a model against a smaller one: (G,).

    1 where the smaller one leaves nothing, or so little that rounding errors weigh in it.

    Parameters
    ----------
    x
        (n, G).
    model, smaller
        Design columns, those of the smaller among the span of the larger: (n, p).
    """
    full, part = ((residuals(x, m) ** 2).sum(axis=0) for m in (model, smaller))
    more, left = model.shape[1] - smaller.shape[1], len(x) - model.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (part - full) / more / (full / left)
    p_value = fisher.sf(ratio, more, left)
    return np.where(part > ROUNDING * (x**2).sum(axis=0), p_value, 1.0)


def find_by_reweighting(
    x: Floats, model: Floats, null: Floats, count: int, *, rounds: int = 5
) -> SurrogateVariables:
    """Surrogate variables by iteratively reweighted features.

    Parameters
    ----------
    x
        Logs, (n, G), of features that vary.
    model, null
        Columns of the known model, with and without what is of interest: (n, p).
    count
        How many variables to find.
    rounds
        Times that features are weighed.

    Notes
    -----
    Where the weighed features have a rank below `count`, that many columns come back: R
    fills up with vectors that are rounding errors. R: sva `sva(method="irw")`.
    """
    columns = _leading(residuals(x, model), count)
    hidden = known = np.zeros(x.shape[1])
    for _ in range(rounds):
        if not columns.shape[1]:
            break
        with_columns = np.hstack([null, columns])
        hidden = 1 - local_fdr(nested_p(x, with_columns, null))
        known = 1 - local_fdr(nested_p(x, np.hstack([model, columns]), with_columns))
        weighed = x * (hidden * (1 - known))
        columns = _leading(weighed - weighed.mean(axis=0), count)
    return SurrogateVariables(columns, hidden, known)


def find_in_two_steps(x: Floats, model: Floats, count: int) -> SurrogateVariables:
    """Surrogate variables from the features that each residual component marks.

    Parameters
    ----------
    x, model, count
        As in `find_by_reweighting`. Components that mark fewer features than there are
        samples are dropped, so that fewer variables may come back.

    Notes
    -----
    R: sva `sva(method="two-step")`; a variable is matched with its own component, where
    R takes the component of the same number among all, which is another one once a
    component in the middle is dropped.
    """
    n = len(x)
    components = _leading(residuals(x, model), count)
    one = np.ones((n, 1))
    marked = [
        local_fdr(nested_p(x, np.hstack([one, component[:, None]]), one)) < 0.1
        for component in components.T
    ]
    kept = [place for place, features in enumerate(marked) if features.sum() >= n]
    columns = []
    for place in kept:
        own = x[:, marked[place]]
        vectors = np.linalg.svd(own - own.mean(axis=0), full_matrices=False)[0]
        vectors = vectors[:, : n - 1]
        likeness = [
            abs(np.corrcoef(vector, components[:, place])[0, 1]) for vector in vectors.T
        ]
        columns.append(vectors[:, int(np.argmax(likeness))])
    found = np.stack(columns, axis=1) if columns else np.empty((n, 0))
    hidden = np.zeros(x.shape[1])
    for place in kept:
        hidden = np.maximum(hidden, marked[place])
    return SurrogateVariables(found, hidden, np.zeros(x.shape[1]))


def find_with_controls(x: Floats, controls: Floats, count: int) -> SurrogateVariables:
    """Surrogate variables from features that are known not to follow the biology.

    Parameters
    ----------
    x, count
        As in `find_by_reweighting`.
    controls
        Probability that a feature is a negative control, 0 to 1: (G,).

    Notes
    -----
    R: sva `sva(method="supervised")`.
    """
    weighed = x * controls
    columns = _leading(weighed - weighed.mean(axis=0), count)
    return SurrogateVariables(columns, controls, np.zeros(x.shape[1]))


def count_variables(
    x: Floats,
    model: Floats,
    shuffles: Callable[[], NDArray[np.intp]],
    *,
    rounds: int = 20,
) -> tuple[int, Floats]:
    """How many residual components explain more than shuffled residuals do.

    Parameters
    ----------
    x, model
        As in `find_by_reweighting`.
    shuffles
        Called once a round: the order of the n residuals of each feature, (G, n).
    rounds
        Number of shuffles.

    Returns
    -------
    count
        Components with p ≤ 0.1.
    p
        The p of each component, not falling: (k,).

    Notes
    -----
    R: sva `num.sv(method="be")`, after Buja & Eyuboglu (1992).
    """
    left = residuals(x, model)
    size = min(x.shape) - int(np.ceil(np.linalg.matrix_rank(model)))
    observed = _shares(left, size)
    above = np.zeros(size)
    for _ in range(rounds):
        order = shuffles().T
        shuffled = residuals(np.take_along_axis(left, order, axis=0), model)
        above += _shares(shuffled, size) >= observed
    p = np.maximum.accumulate(above / rounds)
    return int((p <= 0.1).sum()), p


def _shares(x: Floats, size: int) -> Floats:
    """Shares of the squares of the leading components: (size,)."""
    products = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    squares = np.maximum(np.linalg.eigvalsh(products)[::-1], 0)
    share: Floats = squares[:size] / squares[:size].sum()
    return share


def _leading(x: Floats, count: int) -> Floats:
    """The leading left singular vectors, no more than the rank: (n, ≤ count)."""
    return leading_vectors(x @ x.T, count)
