"""How each package is asked for what batchcorr does: from values to values.

A contender takes `Data` and gives what it made of it; data are fresh at each call and
may be overwritten.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

import batchcorr as bc


class Data(NamedTuple):
    """Values (n, G), labels of samples, and the features that vary most."""

    x: Any
    obs: pd.DataFrame
    variable: Any = None

    @property
    def adata(self) -> ad.AnnData:
        return ad.AnnData(self.x, obs=self.obs)


# -- ComBat ---------------------------------------------------------------------------


def combat(data: Data) -> Any:
    return bc.ComBat(copy=False).fit_transform(data.x, batch=data.obs["batch"])


def read_and_write(data: Data) -> None:
    """One read and one write by NumPy: the least that memory allows."""
    data.x.sum()
    np.multiply(data.x, data.x.dtype.type(1 + 1e-6), out=data.x)


def scanpy_combat(data: Data) -> Any:
    import scanpy as sc

    adata = data.adata
    sc.pp.combat(adata, "batch")
    return adata.X


def inmoose_combat(data: Data) -> Any:
    from inmoose.pycombat import pycombat_norm

    return np.asarray(pycombat_norm(data.x.T, list(data.obs["batch"]))).T


def combatlearn(data: Data) -> Any:
    from combatlearn import ComBat

    frame = pd.DataFrame(data.x, index=data.obs.index, copy=False)
    return np.asarray(ComBat(data.obs["batch"]).fit_transform(frame))


def combaters(data: Data) -> Any:
    from combaters import combat as of

    return np.asarray(of(data.x, data.obs["batch"].cat.codes.to_numpy())["adjusted"])


def pycombat(data: Data) -> Any:
    from combat.pycombat import pycombat as of

    return of(pd.DataFrame(data.x.T, copy=False), list(data.obs["batch"])).to_numpy().T


def neurocombat(data: Data) -> Any:
    from neuroCombat import neuroCombat

    return neuroCombat(data.x.T, data.obs[["batch"]].astype(str), "batch")["data"].T


# -- batch means ------------------------------------------------------------------------


def remove(data: Data) -> Any:
    est = bc.RemoveBatchEffect(copy=False)
    return est.fit_transform(data.x, batch=data.obs["batch"])


def regress_out(data: Data) -> Any:
    import scanpy as sc

    adata = data.adata
    sc.pp.regress_out(adata, "batch")
    return adata.X


# -- counts -----------------------------------------------------------------------------


def combat_seq(data: Data) -> Any:
    group = data.obs[["sex"]]
    return bc.ComBatSeq().fit_transform(
        data.x, batch=data.obs["batch"], covariates=group
    )


def inmoose_seq(data: Data) -> Any:
    from inmoose.pycombat import pycombat_seq

    counts = np.ascontiguousarray(data.x.T)
    group = list(data.obs["sex"])
    return np.asarray(pycombat_seq(counts, list(data.obs["batch"]), covar_mod=group)).T


def log_normalize(data: Data) -> Any:
    return bc.LogNormalize(copy=False).fit_transform(data.x)


def scanpy_logs(data: Data) -> Any:
    import scanpy as sc

    adata = data.adata
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    return adata.X


# -- components ---------------------------------------------------------------------------


def components(data: Data, **options: Any) -> Any:
    adata = data.adata
    bc.tl.pca(adata, "batch", mask_var=data.variable, **options)
    return adata


def scanpy_pca(data: Data, solver: str = "arpack") -> Any:
    import scanpy as sc

    adata = data.adata
    sc.tl.pca(adata, svd_solver=solver, mask_var=data.variable)
    return adata


def scanpy_covariance(data: Data) -> Any:
    return scanpy_pca(data, "covariance_eigh")


def harmony(data: Data) -> Any:
    import harmonypy

    adata = scanpy_pca(data)
    return harmonypy.run_harmony(adata.obsm["X_pca"], adata.obs, "batch").Z_corr


# -- files --------------------------------------------------------------------------------


def corrected_file(data: Data) -> None:
    import psutil

    from batchcorr.cli import app

    least = psutil.Process().memory_info().rss >> 20  # of all that is loaded here
    with tempfile.TemporaryDirectory() as folder:
        options = ["--batch", "batch", "--memory", f"{least + 1024}MiB"]
        target = str(Path(folder, "y.zarr"))
        if app(["correct", str(data.x), target, *options], standalone_mode=False):
            msg = "batchcorr correct failed"
            raise RuntimeError(msg)


def copied_file(data: Data) -> None:
    import zarr

    x = zarr.open_group(data.x, mode="r")["X"]
    with tempfile.TemporaryDirectory() as folder:
        made = zarr.create_array(
            f"{folder}/y.zarr",
            shape=x.shape,
            dtype=x.dtype,
            chunks=x.chunks,
            compressors=x.compressors,
            zarr_format=x.metadata.zarr_format,
        )
        for start in range(0, x.shape[0], x.chunks[0]):
            rows = slice(start, start + x.chunks[0])
            made[rows] = x[rows]
