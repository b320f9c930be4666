r"""CᵀC of a corrected CSR matrix of few features: the products of pairs of stored values.

With A = r_b ∘ X, which is as sparse as X, and rows s_b + z_i t_b beside it,

    CᵀC = AᵀA + M + Mᵀ,    M = Σ_b R_bᵀ S_b,    R_b = r_b W_b + ½ N_b S_b

where S_b stacks s_b and t_b, and W_b = Σ (1, z_i)ᵀ x_i and N_b = Σ (1, z_i)ᵀ (1, z_i) are
known from the moments. So only pairs within a row are multiplied, and X is read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from batchcorr._numba import Kernel, prange
from batchcorr.arrays.corrected import arranged, gram
from batchcorr.arrays.passes import moments
from batchcorr.arrays.scipy_products import tile_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.design.design import Design
    from batchcorr.models.location_scale import LocationScale
    from batchcorr.models.namespace import Matrix

TILE = 128
"""Rows of the result that a thread adds to while these are in cache."""


@Kernel
def _pairs(data, indices, starts, codes, scale, total):
    """Add r² x_g x_h to total[g, h] for each pair g ≤ h of a row; a tile is one thread's."""
    tiles = starts.shape[1] - 1
    for k in prange(tiles):
        tile = k // 2 if k % 2 == 0 else tiles - 1 - k // 2  # long rows and short ones
        line, at = np.empty(total.shape[1]), np.empty(total.shape[1], np.uint32)
        for row in range(len(codes)):
            first, after = starts[row, tile], starts[row, tile + 1]
            if first == after:
                continue
            r, own = scale[codes[row]], indices[first : starts[row, -1]]
            for m in range(len(own)):
                line[m], at[m] = data[first + m] * r[own[m]], own[m]
            for m in range(after - first):
                x, into = line[m], total[at[m]]
                for other in range(m, len(own)):
                    into[at[other]] += x * line[other]


def _gram(x: Matrix, design: Design, correction: LocationScale) -> NDArray[np.float64]:
    x = arranged(x)
    total = np.zeros((x.shape[1], x.shape[1]))
    starts = tile_starts(x, TILE)
    _pairs(x.data, x.indices, starts, design.codes, correction.scale, total)
    total[np.diag_indices(len(total))] /= 2
    total += _beside(x, design, correction)
    return total + total.T


def _beside(
    x: Matrix, design: Design, correction: LocationScale
) -> NDArray[np.float64]:
    """M, (G, G), of which the result has also the transpose."""
    before = moments(x, design)
    n, shift = before.n[:, None], correction.shift[:, None]
    row = np.concatenate([np.ones(n.shape), before.columns], axis=1)  # means of (1, z)
    with_x, with_rows = n * row * before.mean[:, None], n * row * np.swapaxes(row, 1, 2)
    with_x[:, 1:] += before.cross
    with_rows[:, 1:, 1:] += before.gram[..., 0]
    added = np.concatenate([shift, correction.slopes(design.kept)], axis=1)
    with_x = with_x * correction.scale[:, None] + with_rows @ added / 2
    wide = x.shape[1]
    result: NDArray[np.float64] = with_x.reshape(-1, wide).T @ added.reshape(-1, wide)
    return result


for _kind in (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    gram.register(_kind, _gram)
