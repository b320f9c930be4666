"""Matrices with real batch effects, made fast and with little memory beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 256


def blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, BLOCK):
        yield slice(start, min(start + BLOCK, n))


def labels(n: int, n_batches: int, seed: int = 0) -> pd.DataFrame:
    """Batches of unequal size, and covariates that are not confounded with them."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.5, 1.5, n_batches)
    batch = rng.choice(n_batches, n, p=share / share.sum())
    batch[: 2 * n_batches] = np.tile(np.arange(n_batches), 2)  # none is empty
    return pd.DataFrame(
        {
            "batch": pd.Categorical([f"batch {b}" for b in batch]),
            "sex": pd.Categorical(rng.choice(["f", "m"], n)),
            "type": pd.Categorical(rng.choice(["B cell", "T cell", "monocyte"], n)),
            "age": rng.uniform(20, 80, n).round(1),
        },
        index=[f"cell {i}" for i in range(n)],
    )


def dense(
    obs: pd.DataFrame, n_features: int, dtype: Any, seed: int = 1
) -> NDArray[Any]:
    """Normal values; each batch has a mean and a scale of its own in each feature."""
    rng = np.random.default_rng(seed)
    codes = obs["batch"].cat.codes.to_numpy()
    shape = (int(codes.max()) + 1, n_features)
    level = rng.normal(5, 1, n_features)
    mean = (level + rng.normal(0, 0.5, shape)).astype(np.float32)
    scale = rng.gamma(20, 1 / 20, shape).astype(np.float32)
    x = np.empty((len(obs), n_features), dtype=dtype)
    for rows in blocks(len(obs)):
        values = rng.standard_normal(x[rows].shape, dtype=np.float32)
        values *= scale[codes[rows]]
        values += mean[codes[rows]]
        x[rows] = values
    return x


def sparse(
    obs: pd.DataFrame, n_features: int, per_row: int, seed: int = 1
) -> sp.csr_matrix:
    """CSR, float32, `per_row` values in each row, spread evenly over the features."""
    rng = np.random.default_rng(seed)
    codes = obs["batch"].cat.codes.to_numpy()
    n, step = len(obs), n_features // per_row
    effect = rng.uniform(0.7, 1.3, (int(codes.max()) + 1, per_row)).astype(np.float32)
    first = np.arange(per_row, dtype=np.int32) * step
    indices = np.empty((n, per_row), dtype=np.int32)
    data = np.empty((n, per_row), dtype=np.float32)
    for rows in blocks(n):
        shape = indices[rows].shape
        indices[rows] = first + rng.integers(0, step, shape, dtype=np.uint8)
        values = rng.random(shape, dtype=np.float32)
        values += 0.5
        values *= effect[codes[rows]]
        data[rows] = values
    indptr = np.arange(n + 1, dtype=np.int32) * per_row
    shape = (n, n_features)
    return sp.csr_matrix((data.ravel(), indices.ravel(), indptr), shape=shape)


def cells(obs: pd.DataFrame, n_features: int, seed: int = 2) -> sp.csr_matrix:
    """Counts of cells, CSR, float32: 20 programs; batches scale genes, cells their depth.

    Genes differ in their level as in cells, so that about 5 % of the values are stored.
    """
    rng = np.random.default_rng(seed)
    codes, n = obs["batch"].cat.codes.to_numpy(), len(obs)
    level = rng.lognormal(-4.2, 1.5, n_features)
    marked = rng.random((20, n_features)) < 0.1
    rates = level * np.exp(marked * rng.normal(0, 1.2, marked.shape))
    effect = np.exp(rng.normal(0, 0.2, (int(codes.max()) + 1, n_features)))
    depth = rng.lognormal(0, 0.4, (n, 1))
    one, other = rng.integers(0, 20, (2, n))
    share = rng.beta(2, 0.5, (n, 1))
    made = []
    for rows in blocks(n):
        mean = share[rows] * rates[one[rows]] + (1 - share[rows]) * rates[other[rows]]
        counts = rng.poisson(mean * depth[rows] * effect[codes[rows]])
        made.append(sp.csr_matrix(counts.astype(np.float32)))
    return sp.vstack(made, format="csr")


def bulk(obs: pd.DataFrame, n_features: int, seed: int = 0) -> NDArray[np.int64]:
    """Counts of bulk samples: each batch has levels and dispersions of its own."""
    rng = np.random.default_rng(seed)
    codes, n = obs["batch"].cat.codes.to_numpy(), len(obs)
    shape = (int(codes.max()) + 1, n_features)
    level = rng.normal(3.5, 1.6, n_features) + rng.normal(0, 0.35, (n, 1))
    level += rng.normal(0, 0.45, shape)[codes]
    phi = (rng.gamma(2, 0.09, n_features) + 0.01) * rng.uniform(0.6, 1.8, shape)
    shapes = 1 / phi[codes]
    return rng.poisson(np.exp(level) * rng.gamma(shapes, 1 / shapes))


def store(path: str, obs: pd.DataFrame, x: NDArray[Any]) -> str:
    """Write an .h5ad-like .zarr store; multiples of 1/64 repeat as logs of counts do."""
    ad.AnnData(np.rint(x * 64) / 64, obs=obs).write_zarr(path)
    return path
