r"""Products of pairs of stored values: CᵀC of few features, CCᵀ of few samples.

With A = r_b ∘ X, which is as sparse as X, and rows s_b + z_i t_b beside it,

    CᵀC = AᵀA + M + Mᵀ,    M = Σ_b R_bᵀ S_b,    R_b = r_b W_b + ½ N_b S_b

where S_b stacks s_b and t_b, and W_b = Σ (1, z_i)ᵀ x_i and N_b = Σ (1, z_i)ᵀ (1, z_i) are
known from the moments. So only pairs within a row are multiplied, and X is read once.
With D the rows that are added, CCᵀ = AAᵀ + M + Mᵀ with M = (A + ½ D) Dᵀ, where pairs are
those within a feature, and D a few rows by batch, times (1, z).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from batchcorr._numba import Kernel, prange
from batchcorr.arrays.passes import moments
from batchcorr.arrays.products import arranged, gram, sample_gram
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
    total += _with_added(x, design, correction)
    return total + total.T


def _with_added(
    x: Matrix, design: Design, correction: LocationScale
) -> NDArray[np.float64]:
    """M, (G, G), of which the result has also the transpose."""
    before = moments(x, design)
    n = before.n[:, None]
    row = np.concatenate([np.ones(n.shape), before.columns], axis=1)  # means of (1, z)
    with_x, with_rows = n * row * before.mean[:, None], n * row * np.swapaxes(row, 1, 2)
    with_x[:, 1:] += before.cross
    with_rows[:, 1:, 1:] += before.gram[..., 0]
    added = _added(design, correction)
    by_batch = added.reshape(with_x.shape)
    with_x = with_x * correction.scale[:, None] + with_rows @ by_batch / 2
    result: NDArray[np.float64] = with_x.reshape(added.shape).T @ added
    return result


def _sample_gram(
    x: Matrix, design: Design, correction: LocationScale
) -> NDArray[np.float64]:
    x = arranged(x)
    n = x.shape[0]
    rows = np.repeat(np.arange(n), np.diff(x.indptr))
    scaled = x.data * correction.scale[design.codes[rows], x.indices]
    by_feature = sp.csr_array((scaled, x.indices, x.indptr), shape=x.shape).tocsc()
    total = np.zeros((n, n))
    starts = tile_starts(by_feature.T, TILE)
    alike, ones = np.zeros(x.shape[1], np.intp), np.ones((1, n))
    _pairs(by_feature.data, by_feature.indices, starts, alike, ones, total)
    total[np.diag_indices(n)] /= 2

    added = _added(design, correction)  # D = taken @ added
    row = np.concatenate([np.ones((n, 1)), design.columns], axis=1)
    at = row.shape[1] * design.codes[:, None] + np.arange(row.shape[1])
    ends = np.arange(n + 1) * row.shape[1]
    taken = sp.csr_array((row.ravel(), at.ravel(), ends), shape=(n, len(added)))
    products = by_feature @ added.T + taken @ (added @ added.T) / 2
    total += (taken @ products.T).T
    return total + total.T


def _added(design: Design, correction: LocationScale) -> NDArray[np.float64]:
    """What rows have beside A for (1, z), batch by batch: (B (1 + p), G)."""
    shift, slopes = correction.shift[:, None], correction.slopes(design.kept)
    return np.concatenate([shift, slopes], axis=1).reshape(-1, shift.shape[2])


for _kind in (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array):
    gram.register(_kind, _gram)
    sample_gram.register(_kind, _sample_gram)
