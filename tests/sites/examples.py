"""Samples of three sites, one batch of people, and what the tests ask of them."""

from __future__ import annotations

from dataclasses import fields

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp

import batchcorr as bc
from batchcorr import arrays
from batchcorr.models.moments import Moments

BATCHES = ["a", "b", "c", "d"]
LEVELS = {"cell_type": ["B", "NK", "T"]}
KEPT = ["cell_type", "age"]
UNITS = "log2 CPM"


def make_adata(seed=0, n_features=30):
    """Two batches at site 1, one that is split over sites 2 and 3, and one more at 3."""
    rng = np.random.default_rng(seed)
    site = np.repeat([1, 2, 3], [55, 22, 50])
    batch = np.array(["a"] * 24 + ["b"] * 31 + ["c"] * 22 + ["c"] * 24 + ["d"] * 26)
    cell_type = np.resize(["B", "NK", "T", "T"], len(batch)).astype(object)
    age = rng.normal(50, 12, len(batch)).clip(30, 70)
    x = rng.normal(5, 1, (len(batch), n_features)) + 0.03 * age[:, None]
    x += (cell_type == "T")[:, None] * rng.normal(0, 1, n_features)
    codes = np.searchsorted(BATCHES, batch)
    x = x * rng.uniform(0.6, 1.5, (4, n_features))[codes]
    x += rng.normal(0, 1, (4, n_features))[codes]
    obs = pd.DataFrame(
        {"batch": batch, "cell_type": cell_type, "age": age, "site": site},
        index=[f"s{k}" for k in range(len(batch))],
    )
    var = pd.DataFrame(index=[f"g{k}" for k in range(n_features)])
    return anndata.AnnData(x, obs=obs, var=var)


def parts(adata):
    return [adata[adata.obs["site"] == site].copy() for site in (1, 2, 3)]


def gathered(adata, schema, *, exact=True):
    return [bc.moments(part, schema, exact=exact) for part in parts(adata)]


def only(adata, covariates=(), **options):
    options = {"batches": BATCHES, "units": UNITS} | options
    return bc.make_schema(adata, "batch", covariates=list(covariates), **options)


def corrected(adata, correction):
    return bc.pp.apply(adata, correction, copy=True).X


def people(n=60, seed=0):
    """One batch of people: sex, an infection and age are kept."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "batch": "a",
            "sex": np.resize(["f", "m"], n),
            "hiv": np.resize(["no", "no", "yes", "yes"], n),
            "age": rng.normal(50, 12, n),
        },
        index=[f"s{k}" for k in range(n)],
    )
    return anndata.AnnData(rng.normal(5, 1, (n, 8)), obs=obs)


PEOPLE = ["sex", "hiv", "age"]


def schema_of(adata, kept=()):
    return bc.make_schema(adata, "batch", units=UNITS, covariates=list(kept))


def stored(x, kind):
    if kind.startswith("dask"):
        lazy = da.from_array(x, chunks=(17, 3))
        return lazy.map_blocks(sp.csr_matrix) if kind == "dask of CSR" else lazy
    return {"dense": np.asarray, "CSR": sp.csr_matrix, "CSC": sp.csc_matrix}[kind](x)


def raw(adata, schema):
    """Moments without a guard."""
    return arrays.moments(
        adata.X, schema.design(adata.n_obs, adata.obs["batch"], adata.obs)[0]
    )


def same_moments(one, two):
    for field in fields(Moments):
        np.testing.assert_allclose(
            getattr(one, field.name), getattr(two, field.name), rtol=1e-12, atol=1e-12
        )
