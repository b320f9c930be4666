"""Matrices with real batch effects, made fast and with little memory beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def fresh(x: Any) -> Any:
    """Return the same sparse matrix without what SciPy remembers of its order."""
    return type(x)((x.data, x.indices, x.indptr), shape=x.shape, copy=False)
