"""What tests of figures share: studies of two and of forty batches, and no figure left open."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest


@pytest.fixture(autouse=True)
def _closed_figures():
    mpl.use("Agg")
    yield
    plt.close("all")


def study(n=60, batches=2, features=40, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % batches
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical([f"run {code:02d}" for code in codes]),
            "group": rng.permutation(np.resize(["a", "b", "b"], n)),
            "age": rng.normal(50, 9, n),
        },
        index=[f"s{k}" for k in range(n)],
    )
    x = rng.normal(8, 1, (n, features)) + rng.normal(0, 1, (batches, features))[codes]
    adata = ad.AnnData(x, obs=obs)
    adata.obsm["X_pca"] = rng.normal(size=(n, 3))
    adata.obsm["after"] = rng.normal(size=(n, 2))
    return adata


@pytest.fixture
def small():
    return study()


@pytest.fixture
def many():
    return study(n=2500, batches=40)
