r"""A known batch effect for real counts: molecules are removed, none are added.

Each of the x[i, g] molecules of a gene in a cell of batch b is kept with probability

    P[i, g] ~ Beta, of mean p[b, g] and variance ρ[b] p (1 - p)
    p[b, g] = d[b] exp(l[b, g] - max over batches of l[·, g])        l ~ Normal(0, σ²)

so counts stay integers, batches differ by the folds exp(l) exactly, and what was Poisson
about a rate λ is Poisson about p λ. Counting up instead would have to invent molecules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchcorr._anndata import matrices
from batchcorr.datasets._assignment import assigned_batches
from batchcorr.errors import InputError, some
from batchcorr.estimators.matrix import is_sparse
from batchcorr.estimators.raw_counts import as_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["add_batch_effect"]

TRUTH = "truth"
"""Layer with the counts as they were."""


def add_batch_effect(
    adata: AnnData,
    batches: int | Sequence[str] = 3,
    *,
    log_fold_sd: float = 0.5,
    depth: float | Sequence[float] = 1.0,
    dispersion: float | Sequence[float] = 0.0,
    by: str | None = None,
    shares: Mapping[str, Sequence[float]] | None = None,
    layer: str | None = None,
    batch_key: str = "batch",
    random_state: int = 0,
) -> AnnData:
    r"""Assign samples to batches and add a known batch effect to their counts.

    A count x of gene g in a sample of batch b becomes

    .. math::
        x' \sim \mathrm{Binomial}(x, P), \qquad
        P \sim \mathrm{Beta}\bigl(p\,(1/ρ_b - 1),\ (1 - p)(1/ρ_b - 1)\bigr), \qquad
        p_{bg} = d_b \, e^{l_{bg} - \max_c l_{cg}}, \qquad
        l_{bg} \sim \mathrm{Normal}(0, σ^2)

    with P = p where ρ is 0. The log fold change of a gene between batches b and c is
    :math:`l_{bg} - l_{cg}`, plus the difference in depth.

    Parameters
    ----------
    adata
        Raw counts, samples × features, dense or sparse. It is not changed.
    batches
        Number of batches (named ``"a"``, ``"b"``, …, at most 26), or their names.
    log_fold_sd
        Standard deviation σ of natural log fold changes: with 0.5, half of the genes
        differ between two batches by a factor of 1.6 or more.
    depth
        Share d of molecules of a gene that are kept in its best batch, over 0 and up to
        1: one number for all batches, or one per batch.
    dispersion
        Overdispersion: correlation ρ of the loss of two molecules of one gene in one
        sample, from 0 to under 1: one number, or one per batch. Given x, the variance
        is :math:`x p (1 - p) (1 + (x - 1) ρ)`.
    by
        Column of `obs` with groups, such as cell types; every batch gets the same share
        of each. None: samples are assigned regardless of groups.
    shares
        For groups that are to be unbalanced over batches: the relative shares of their
        samples in each batch, by group. Other groups are balanced.
    layer
        Layer with the counts; None: X.
    batch_key
        Column of `obs` that the batch is written to.
    random_state
        Seed: the same seed gives the same counts, whether dense or sparse.

    Returns
    -------
    AnnData
        A new AnnData, with the same columns and layers, and

        `X` or the `layer`
            The counts with the batch effect, in the same dtype and storage.
        ``layers["truth"]``
            The counts as they were.
        ``obs[batch_key]``
            The batch.
        ``var["log_fold_a"]``, …
            l, natural logarithms, a column for each batch. Only differences between
            batches can be seen in the counts.

    Raises
    ------
    InputError
        If values are not counts, a parameter is out of range, a batch would get no
        sample, or a column or layer to be written already exists.
    MissingKeyError
        If a column, layer or group does not exist.

    Notes
    -----
    Molecules are removed and never added, so counts never increase; with three batches
    and σ = 0.5 about two thirds of the molecules remain. If counts are Poisson, or
    Poisson with a varying rate, the result has exactly the distribution of counts from
    a protocol that captures a share p of the molecules.

    Examples
    --------
    >>> import batchcorr as bc
    >>> adata = bc.datasets.pbmc()
    >>> known = bc.datasets.add_batch_effect(
    ...     adata,
    ...     ["old", "new"],
    ...     depth=[0.5, 1.0],
    ...     by="cell_type",
    ...     shares={"Dendritic": [3, 1]},
    ... )
    >>> known.obs["batch"].value_counts(sort=False).to_dict()
    {'old': 411, 'new': 289}
    >>> list(known.var), "truth" in known.layers
    (['log_fold_old', 'log_fold_new'], True)
    """
    adata = matrices.require_adata(adata)
    counts = as_counts(matrices.get_matrix(adata, layer))
    levels = _names(batches)
    columns = [f"log_fold_{level}" for level in levels]
    _require_free(adata, batch_key, columns)
    if not 0 <= log_fold_sd < np.inf:
        msg = (
            f"log_fold_sd={log_fold_sd!r} must be 0 (no differences between genes) or "
            "more."
        )
        raise InputError(msg)
    kept = _for_each(depth, "depth", levels)
    if not ((kept > 0) & (kept <= 1)).all():
        msg = (
            f"depth={depth!r} must be over 0 and at most 1: the share of molecules "
            "that is kept."
        )
        raise InputError(msg)
    correlation = _for_each(dispersion, "dispersion", levels)
    if not ((correlation >= 0) & (correlation < 1)).all():
        msg = f"dispersion={dispersion!r} must be 0 (binomial) or more, and under 1."
        raise InputError(msg)
    rng = np.random.default_rng(random_state)
    codes = assigned_batches(adata.obs, levels, by=by, shares=shares, rng=rng)

    log_fold = rng.normal(0.0, log_fold_sd, (len(levels), adata.n_vars))
    mean = kept[:, None] * np.exp(log_fold - log_fold.max(axis=0))
    result = adata.copy()
    result.layers[TRUTH] = counts.copy()
    matrices.set_matrix(
        result, _thin(counts, codes, mean, correlation, rng), layer, None
    )
    result.obs[batch_key] = pd.Categorical.from_codes(codes, pd.Index(levels))
    for column, values in zip(columns, log_fold, strict=True):
        result.var[column] = values
    return result


def _thin(
    counts: Any,
    codes: NDArray[np.int64],
    mean: NDArray[np.float64],
    correlation: NDArray[np.float64],
    rng: np.random.Generator,
) -> Any:
    """Keep of every count a share of its molecules; row by row, however stored."""
    import scipy.sparse as sp

    rows = counts.tocsr(copy=True) if is_sparse(counts) else sp.csr_array(counts)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    batch = np.repeat(codes, np.diff(rows.indptr))
    p, rho = mean[batch, rows.indices], correlation[batch]
    varied = (rho > 0) & (p < 1)
    strength = 1 / rho[varied] - 1
    p[varied] = rng.beta(p[varied] * strength, (1 - p[varied]) * strength)
    rows.data = rng.binomial(rows.data.astype(np.int64), p).astype(counts.dtype)
    rows.eliminate_zeros()
    return rows.asformat(counts.format) if is_sparse(counts) else rows.toarray()


def _names(batches: int | Sequence[str]) -> list[str]:
    """Return the names of batches, from their number or as they are given."""
    if isinstance(batches, int) and 2 <= batches <= 26:
        return list("abcdefghijklmnopqrstuvwxyz"[:batches])
    names = list(batches) if isinstance(batches, list | tuple) else []
    if not 2 <= len(set(names)) == len(names) or not all(
        isinstance(name, str) for name in names
    ):
        msg = (
            f"batches={batches!r:.60} must be a number of batches (2 to 26), or a list "
            "of at least two different names."
        )
        raise InputError(msg)
    return names


def _for_each(value: object, name: str, levels: list[str]) -> NDArray[np.float64]:
    """Return one number for each batch."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf" or numbers.shape not in {(), (len(levels),)}:
        msg = (
            f"{name}={value!r:.60} must be one number, or {len(levels)}, one for each of"
            f" the batches {some(map(repr, levels))}."
        )
        raise InputError(msg)
    return np.broadcast_to(numbers, (len(levels),)).astype(np.float64)


def _require_free(adata: AnnData, batch_key: str, columns: list[str]) -> None:
    """Refuse to write over what is there, a first batch effect above all."""
    taken = [f"obs[{batch_key!r}]"] if batch_key in adata.obs else []
    taken += [f"var[{column!r}]" for column in columns if column in adata.var]
    taken += [f"layers[{TRUTH!r}]"] if TRUTH in adata.layers else []
    if taken:
        msg = (
            f"{', '.join(taken)} would be overwritten. Delete or rename it first, or "
            "choose another batch_key and other names of batches."
        )
        raise InputError(msg)
