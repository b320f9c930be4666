"""Small annotated matrices, and what the estimators make of them."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc

N, G = 36, 8
BATCH = np.repeat(["a", "b", "c"], N // 3)
FEW = np.where(np.arange(N) < 2, "a", np.resize(["b", "c"], N))
GENES = [f"g{j}" for j in range(G)]
METHODS = ["combat", "remove_batch_effect", "standardize"]

each_method = pytest.mark.parametrize("method", METHODS)


def values(dtype=np.float64):
    rng = np.random.default_rng(0)
    shift, scale = rng.normal(0, 1, (3, G)), rng.uniform(0.7, 1.5, (3, G))
    code = np.arange(N) // (N // 3)
    return (5 + shift[code] + scale[code] * rng.normal(size=(N, G))).astype(dtype)


def samples():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "batch": pd.Categorical(BATCH),
            "chip": np.resize(["one", "two", "two"], N),
            "sex": rng.choice(["f", "m"], N),
            "age": rng.normal(50, 9, N),
        },
        index=[f"s{i}" for i in range(N)],
    )


def annotated(x=None, **columns):
    x = values() if x is None else x
    return ad.AnnData(x, obs=samples().assign(**columns), var=pd.DataFrame(index=GENES))


def corrected(method="combat", x=None, **kwargs):
    """Return what the method makes of X, away from any AnnData."""
    kinds = {kind.record.name: kind for kind in (bc.ComBat, bc.RemoveBatchEffect)}
    kind = kinds.get(method, bc.Standardize)
    x = values() if x is None else x
    return kind().fit_transform(x, batch=BATCH, **kwargs)


def record(adata, key="X"):
    return json.loads(adata.uns["batchcorr"][key])


def address(array):
    return array.ctypes.data


def sparse(kind=sp.csr_matrix):
    return kind(np.where(values() < 5, 0, values()))


COUNTS = np.random.default_rng(4).poisson(30, (N, G))
