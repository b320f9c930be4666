r"""Factors of unwanted variation from features or samples that should not differ (RUV).

All follows from products of samples, K = Y Yᵀ, (n, n), over the features that count:

    RUVg, RUVr    W = first eigenvectors of H K_c H,    H = I - 11ᵀ/n
    RUVs          A = U_kᵀ R,  with R K Rᵀ = U D² Uᵀ and R the differences of replicates
                  from the mean of their set;    W = K_c Aᵀ (A K_c Aᵀ)⁻¹

with c the negative controls (Risso et al. 2014). The loadings are α = Wᵀ Y, or A Y, and
Y - W α is Y without the factors. Y is logs; for RUVr, residuals of a first fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.models.low_rank import leading_vectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["factors_of_controls", "factors_of_replicates"]

DEPENDENT = 1e-10
"""Smallest eigenvalue of the products of vectors of unit length that depend on others."""


def factors_of_controls(
    products: Floats, count: int, basis: Floats | None = None
) -> Floats:
    """Leading components of the samples over the controls, of unit length: (n, k).

    Parameters
    ----------
    products
        K_c, the products of samples over the control features: (n, n).
    count
        Factors to find; fewer come back where the controls have fewer.
    basis
        Orthonormal columns that are taken out first; None: each feature's mean. (n, p).

    Notes
    -----
    R: RUVSeq `RUVg`, and `RUVr` where the products are those of residuals.
    """
    n = len(products)
    if basis is None:
        basis = np.full((n, 1), n**-0.5)
    lost = _rounding(products)
    for _ in range(2):
        products = (products - basis @ (basis.T @ products)).T
    return leading_vectors(products, count, floor=lost)


def factors_of_replicates(
    products: Floats,
    control_products: Floats,
    sets: Iterable[Sequence[int]],
    count: int,
) -> tuple[Floats, Floats]:
    """Factors that explain how replicates differ.

    Parameters
    ----------
    products, control_products
        K and K_c: products of samples over all features and over the controls, (n, n).
    sets
        Rows of samples that should not differ; sets of one say nothing.
    count
        Factors to find; fewer come back where replicates differ in fewer ways, or the
        controls cannot tell them apart.

    Returns
    -------
    factors
        W, not orthogonal: (n, k).
    loadings
        A, with α = A Y: (k, n). Signs of W and A go together.

    Notes
    -----
    R: RUVSeq `RUVs`; ruv `RUVIII` with controls and k, as Uᵀ R = Uᵀ.
    """
    n = len(products)
    differences = []
    for rows in sets:
        members = np.asarray(rows, dtype=int)
        if len(members) < 2:
            continue
        own = np.zeros((len(members), n))
        own[:, members] = np.eye(len(members)) - 1 / len(members)
        differences.append(own)
    if not differences:
        return np.empty((n, 0)), np.empty((0, n))
    r = np.vstack(differences)
    differing = r @ products @ r.T
    loadings = leading_vectors(differing, count, floor=_rounding(products)).T @ r
    right = control_products @ loadings.T
    between = loadings @ right
    told = _independent(between)
    inverse = np.linalg.inv(between[:told, :told])
    return right[:, :told] @ inverse, loadings[:told]


def _rounding(products: Floats) -> float:
    """What floating point leaves of products that vanish."""
    size: float = np.abs(products).max(initial=0)
    return np.finfo(float).eps * len(products) * size


def _independent(products: Floats) -> int:
    """How many of the first of some vectors do not depend on each other."""
    size = np.sqrt(np.diag(products))
    count = int((size > 0).cumprod().sum())
    scaled = products[:count, :count] / np.outer(size[:count], size[:count])
    while count and np.linalg.eigvalsh(scaled[:count, :count])[0] < DEPENDENT:
        count -= 1
    return count
