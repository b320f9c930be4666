r"""What testing corrected values does to a design, known before anything is corrected.

A column T is kept, batch is removed with scales δ_b, and T is tested in a model without
batch. With z the column swept clean of the mean and the other covariates, w the same
swept clean of batch too, M the residual maker of the full model, M₁ that of the naive
one, D = diag(1/δ_b), Σ = diag(σ_b²), the naive estimate has the error

    u = w/(wᵀw) + M D z/(zᵀz),         Var = uᵀ Σ u,

and its naive variance has, with A = M₁ D M Σ M D M₁,

    E[s²] = tr A / (n - 2 - p'),       degrees of freedom (tr A)² / tr A².

The n × n matrices are never formed: within batches every vector here is the centred
columns times a few numbers, so that the sums n_b, z̄_b, S_b say it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import t as student

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["DesignSums", "corrected_rate", "effect_kept", "one_step_rate"]


class DesignSums(NamedTuple):
    """Sums of a design: batches of n rows with p columns, the tested one among them.

    Attributes
    ----------
    n
        Rows of each batch: (B,).
    columns
        z̄_b: (B, p).
    gram
        S_b: (B, p, p).
    """

    n: Floats
    columns: Floats
    gram: Floats

    @property
    def within(self) -> Floats:
        """Products of the columns within batches, Σ_b S_b: (p, p)."""
        products: Floats = self.gram.sum(axis=0)
        return products

    @property
    def total(self) -> Floats:
        """Products of the columns about their common means: (p, p)."""
        centre = self.n @ self.columns / self.n.sum()
        away = self.columns - centre
        between: Floats = np.einsum("b,bi,bj->ij", self.n, away, away)
        return self.within + between

    def measured_along(self, contrast: Floats) -> DesignSums:
        """The sums of columns whose first coefficient is c β: c of length p.

        Notes
        -----
        A has the rows c and a basis of what is orthogonal to it: β' = A β, z' = z A⁻¹.
        """
        basis = np.linalg.svd(contrast[None])[2][1:]
        inverse = np.linalg.inv(np.vstack([contrast, basis]))
        return self._replace(
            columns=self.columns @ inverse, gram=inverse.T @ self.gram @ inverse
        )

    def without(self, column: int) -> DesignSums:
        """The sums of all columns but one."""
        kept = np.delete(np.arange(self.columns.shape[1]), column)
        return self._replace(
            columns=self.columns[:, kept], gram=self.gram[:, kept][:, :, kept]
        )


def corrected_rate(
    sums: DesignSums, tested: int, scale: Floats, variance: Floats, alpha: float
) -> float:
    """The rate of false positives at α of the naive test on corrected values.

    Parameters
    ----------
    sums
        Of the design, all of whose columns are kept.
    tested
        Which column is tested.
    scale
        δ_b, what residuals of a batch are divided by: (B,).
    variance
        σ_b², what they are before: (B,).
    alpha
        The rate that is wanted.

    Examples
    --------
    In two batches of ten, two and eight are treated. Batch is removed, treatment is
    kept, and a test at 5 % finds something three times as often:

    >>> n, share = np.array([10.0, 10.0]), np.array([0.2, 0.8])
    >>> sums = DesignSums(n, share[:, None], (n * share * (1 - share))[:, None, None])
    >>> rate = corrected_rate(sums, 0, np.ones(2), np.ones(2), alpha=0.05)
    >>> 0.12 < rate < 0.18
    True
    """
    inverse_scale, within, total = 1 / scale, sums.within, sums.total
    h = np.einsum("b,bij->ij", inverse_scale, sums.gram)
    v, v_total = np.linalg.inv(within), np.linalg.inv(total)
    # z = (Z - z̄) a; in batch b, u is the centred columns times g_b
    a = v_total[:, tested] / v_total[tested, tested]
    swept = inverse_scale[:, None] * a - v @ h @ a
    squares = a @ total @ a  # zᵀz
    g = v[:, tested] + swept / squares
    error = np.einsum("b,bi,bij,bj->", variance, g, sums.gram, g)
    trace, trace_of_square = _traces(sums, inverse_scale, variance)
    residual = sums.n.sum() - 1 - len(total)
    ratio = np.sqrt(trace / residual / squares / error)
    critical = student.isf(alpha / 2, residual)
    return float(2 * student.sf(critical * ratio, trace**2 / trace_of_square))


def _traces(
    sums: DesignSums, inverse_scale: Floats, variance: Floats
) -> tuple[float, float]:
    """Tr A and tr A².

    With N the centring of batches and Z its centred columns, B = D M Σ M D is

        B = D² Σ N + Z_b R_bc Z_cᵀ,    R_bc = (K - (σ_b² + σ_c²) V) / (δ_b δ_c),
        K = V (Σ_b σ_b² S_b) V,        V = (Σ_b S_b)⁻¹

    in blocks of batches, and B sweeps Z - z̄ into Z_b L_b.
    """
    gram, d = sums.gram, inverse_scale
    v, v_total = np.linalg.inv(sums.within), np.linalg.inv(sums.total)

    def summed(weight: Floats) -> Floats:
        products: Floats = np.einsum("b,bij->ij", weight, gram)
        return products

    k = v @ summed(variance) @ v
    h, h_variance = summed(d), summed(d * variance)
    own = d**2 * variance
    swept = (  # L_b
        own[:, None, None] * np.eye(len(v))
        + d[:, None, None] * (k @ h - v @ h_variance)
        - (d * variance)[:, None, None] * (v @ h)
    )
    products = gram @ swept  # S_b L_b
    explained = v_total @ products.sum(axis=0)
    u0, u1, u2 = (summed(d**2 * variance**power) for power in range(3))
    trace_b = own @ (sums.n - 1) + np.trace(k @ u0) - 2 * np.trace(v @ u1)
    # 2 Σ_b δ_b⁻² σ_b² tr(R_bb S_b), and Σ_bc tr(R_bc S_c R_cb S_b)
    w1, w2 = summed(d**4 * variance), summed(d**4 * variance**2)
    single = 2 * (np.trace(k @ w1) - 2 * np.trace(v @ w2))
    ku0, vu0, ku1, vu1, vu2 = k @ u0, v @ u0, k @ u1, v @ u1, v @ u2
    double = (
        np.trace(ku0 @ ku0)
        - 2 * np.trace(vu0 @ ku1 + vu1 @ ku0)
        + 2 * np.trace(vu0 @ vu2 + vu1 @ vu1)
    )
    trace_bb = own**2 @ (sums.n - 1) + single + double
    twice = np.trace(v_total @ np.einsum("bji,bjk->ik", swept, products))
    trace = trace_b - np.trace(explained)
    trace_of_square = trace_bb - 2 * twice + np.trace(explained @ explained)
    return float(trace), float(trace_of_square)


def one_step_rate(
    sums: DesignSums, tested: int, variance: Floats, alpha: float
) -> float:
    """The rate of false positives at α of the test with batch in the model.

    It is α where batches are equally variable, and near it where they are not.

    Parameters
    ----------
    sums, tested, variance, alpha
        As in `corrected_rate`.

    Examples
    --------
    >>> n, share = np.array([10.0, 10.0]), np.array([0.2, 0.8])
    >>> sums = DesignSums(n, share[:, None], (n * share * (1 - share))[:, None, None])
    >>> round(one_step_rate(sums, 0, np.ones(2), alpha=0.05), 12)
    0.05
    """
    v = np.linalg.inv(sums.within)
    scatter = np.einsum("b,bij->ij", variance, sums.gram)
    error = v[tested] @ scatter @ v[:, tested]
    k = v @ scatter
    trace = variance @ (sums.n - 1) - np.trace(k)
    square = np.einsum("b,bij->ij", variance**2, sums.gram)
    trace_of_square = variance**2 @ (sums.n - 1) - 2 * np.trace(v @ square)
    trace_of_square += np.trace(k @ k)
    residual = sums.n.sum() - len(sums.n) - len(v)
    ratio = np.sqrt(trace / residual * v[tested, tested] / error)
    critical = student.isf(alpha / 2, residual)
    return float(2 * student.sf(critical * ratio, trace**2 / trace_of_square))


def effect_kept(sums: DesignSums, tested: int, scale: Floats | None = None) -> float:
    """The share of a small effect of the column that is left when it is not kept.

    With z the column swept clean of the mean and the others, w also of batch, and D the
    scales, it is zᵀ D w / zᵀ z: 1 - R², of the column on batch, where nothing is scaled.

    Parameters
    ----------
    sums, tested
        As in `corrected_rate`.
    scale
        δ_b, what residuals of a batch are divided by: (B,); None: nothing is.

    Examples
    --------
    >>> n, share = np.array([10.0, 10.0]), np.array([0.2, 0.8])
    >>> sums = DesignSums(n, share[:, None], (n * share * (1 - share))[:, None, None])
    >>> round(effect_kept(sums, 0), 12)
    0.64
    """
    v, v_total = np.linalg.inv(sums.within), np.linalg.inv(sums.total)
    z, w = (each[:, tested] / each[tested, tested] for each in (v_total, v))
    inverse_scale = np.ones(len(sums.n)) if scale is None else 1 / scale
    left = np.einsum("b,i,bij,j->", inverse_scale, z, sums.gram, w)
    return float(left * v_total[tested, tested])
