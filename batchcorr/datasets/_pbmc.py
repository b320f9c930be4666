"""Real single cells that come with scanpy: 700 blood cells, brought back to counts.

scanpy keeps logarithms of scaled counts, rounded to three decimals,

    y = log(1 + 10⁴ x / L)        L = total count of the cell, over all genes

and L beside them. So x = L (exp(y) - 1) / 10⁴, up to what the rounding changes: less
than an eighth of a count, so that the nearest integer is the count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["pbmc"]

LIBRARY = 1e4
"""Total count that scanpy's file has scaled every cell to."""


def pbmc() -> AnnData:
    r"""Load 700 blood cells of ten types, as raw counts.

    The file is `scanpy.datasets.pbmc68k_reduced`, which has logarithms rounded to three
    decimals; the counts are restored as

    .. math:: x_{ig} = L_i (e^{y_{ig}} - 1) / 10^4

    Returns
    -------
    AnnData
        700 cells × 765 genes, read anew on every call, without network:

        `X`
            Counts of molecules (UMI), CSR, float32; a third of the values are not zero.
        `obs["cell_type"]`
            Type of the cell, by similarity to purified populations [1]_.
        `obs["total_count"]`
            Molecules of the cell over all genes, of which `X` has a fifth.

    Notes
    -----
    The genes are a selection, mostly highly variable ones, and many cells are of rare
    types: use the data for examples, not for biology. All cells are from one donor and
    one run, so that there is no batch effect; `add_batch_effect` adds one.

    References
    ----------
    .. [1] G. X. Y. Zheng et al. (2017). Massively parallel digital transcriptional
       profiling of single cells. Nature Communications 8, 14049.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.pbmc()
    >>> adata.shape, int(adata.X.sum())
    ((700, 765), 486651)
    """
    import anndata
    import scanpy

    stored = scanpy.datasets.pbmc68k_reduced()
    counts = stored.raw.X.tocsr().astype(np.float64)
    totals = stored.obs["n_counts"]
    share = np.repeat(totals.to_numpy(np.float64) / LIBRARY, np.diff(counts.indptr))
    counts.data = np.rint(np.expm1(counts.data) * share)
    obs = stored.obs[["bulk_labels"]].rename(columns={"bulk_labels": "cell_type"})
    obs["total_count"] = totals.astype(np.int64)
    var = stored.raw.var[[]].copy()
    return anndata.AnnData(counts.astype(np.float32), obs=obs, var=var)
