r"""Numeric columns made orthogonal inside batches, before the matrix is read.

With W the columns centred in batches, D those of zeros and ones, N the others,

    W_D = Q₁ R₁₁,   W_N = Q₁ R₁₂ + Q₂ R₂₂           (Householder's QR)

the N are replaced by Q₂. Products of Q₂ with the data lose no digits where those of N,
such as powers of an age, would; what is found for Q₂ is then turned into that for N. The
D stay: they cost the passes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchcorr.design.design import Design

__all__ = ["OrthogonalColumns", "orthogonal_columns"]


@dataclass(frozen=True)
class OrthogonalColumns:
    """Other columns z' of a design, and the way back: z = z' F + o_b in batch b.

    Attributes
    ----------
    design
        The design with these columns.
    factor
        F: (p, p).
    offset
        o: (B, p).
    """

    design: Design
    factor: NDArray[np.float64]
    offset: NDArray[np.float64]


def orthogonal_columns(design: Design, free: Sequence[int]) -> OrthogonalColumns:
    """Make the numeric ones of columns that do not depend on each other orthogonal.

    Examples
    --------
    >>> import numpy as np
    >>> from batchcorr.design.design import Design
    >>> age = np.array([20.0, 30, 50, 60])
    >>> z = np.stack([age, age**2], axis=1)
    >>> found = orthogonal_columns(Design.of([0, 0, 0, 1], covariates=z), [0, 1])
    >>> back = found.design.columns @ found.factor + found.offset[[0, 0, 0, 1]]
    >>> bool(np.allclose(back, z))
    True
    """
    means, centred = design.centred
    fixed = [k for k in free if design.binary[k]]
    turned = [k for k in free if not design.binary[k]]
    within = centred[:, [*fixed, *turned]]
    norms = np.linalg.norm(within, axis=0)
    q, r = np.linalg.qr(within / norms)
    count = len(fixed)
    first, last = norms[:count], norms[count:]
    along = np.linalg.solve(r[:count, :count], r[:count, count:] * last)
    along /= first[:, None]
    factor = np.eye(len(design.binary))
    factor[np.ix_(fixed, turned)] = along
    factor[np.ix_(turned, turned)] = r[count:, count:] * last
    offset = np.zeros_like(means)
    offset[:, turned] = means[:, turned] - means[:, fixed] @ along
    columns = design.columns.copy()
    columns[:, turned] = q[:, count:]
    return OrthogonalColumns(replace(design, columns=columns), factor, offset)
