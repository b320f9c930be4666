# /// script
# requires-python = ">=3.11"
# dependencies = ["anndata>=0.11", "h5py>=3.11", "numpy>=2.0", "pandas>=2.2", "rdata>=1.1"]
# ///
"""Make bladderbatch.h5ad from R's bladderdata.rda, value for value.

The .rda is the one inside Debian's package r-bioc-bladderbatch 1.36.0-1:

    apt-get download r-bioc-bladderbatch
    dpkg-deb --extract r-bioc-bladderbatch_1.36.0-1_all.deb unpacked
    python make_bladderbatch.py \
        unpacked/usr/lib/R/site-library/bladderbatch/data/bladderdata.rda \
        bladderbatch.h5ad

No R is needed: `rdata` reads its file format. Nothing is computed on the way: probes x
samples becomes samples x probes, and batch numbers become the labels "1" to "5".
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import rdata
from anndata.io import write_elem

SOURCE_SHA256 = "f53a2f19116f03c2f2c3b71bb8a8803c760116bea73cfb2abaa83b56bf22fd3e"
ABOUT = {
    "title": "Bladder cancer expression arrays in five batches (bladderbatch)",
    "values": "log2 expression, Affymetrix HG-U133A, RMA-normalized",
    "source": "Debian package r-bioc-bladderbatch 1.36.0-1 (Bioconductor bladderbatch)",
    "licence": "Artistic-2.0, copyright Jeffrey T. Leek",
    "citation": (
        "Dyrskjøt L, Kruhøffer M, Thykjaer T, Marcussen N, Jensen JL, Møller K, "
        "Ørntoft TF (2004). Gene expression in the urinary bladder: a common carcinoma "
        "in situ gene expression signature exists disregarding histopathological "
        "classification. Cancer Research 64:4040-4048. "
        "doi:10.1158/0008-5472.CAN-03-3620"
    ),
}


def read_rda(path: Path) -> anndata.AnnData:
    """Return the expression set stored in R's file, samples x probes."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SOURCE_SHA256:
        sys.exit(f"{path} is not the file of 1.36.0-1: its sha256 is {digest}")
    with warnings.catch_warnings():
        # rdata has no class of its own for Bioconductor's and returns their slots.
        warnings.filterwarnings("ignore", module="rdata")
        eset = rdata.conversion.convert(rdata.parser.parse_file(path))["bladderEset"]
    expression = eset.assayData["exprs"]
    samples = eset.phenoData.data
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(samples["batch"].astype(int).astype(str)),
            "cancer": pd.Categorical(samples["cancer"].astype(str)),
            "outcome": pd.Categorical(samples["outcome"].astype(str)),
        },
        index=pd.Index(expression.coords["dim_1"].values.astype(str), dtype=object),
    )
    probes = pd.Index(expression.coords["dim_0"].values.astype(str), dtype=object)
    return anndata.AnnData(
        np.ascontiguousarray(expression.values.T),
        obs=obs,
        var=pd.DataFrame(index=probes),
        uns=dict(ABOUT),
    )


def write(adata: anndata.AnnData, path: Path) -> None:
    """Write the file as small as it gets without loss."""
    table = anndata.AnnData(obs=adata.obs, var=adata.var, uns=adata.uns)
    table.write_h5ad(path, compression="gzip", compression_opts=9)
    # `write_h5ad` has no option for the shuffle filter, which saves a tenth.
    small = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with h5py.File(path, "r+") as file:
        write_elem(file, "X", adata.X, dataset_kwargs=small | {"chunks": adata.shape})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = map(Path, sys.argv[1:])
    write(read_rda(source), target)
    print(f"{hashlib.sha256(target.read_bytes()).hexdigest()}  {target}")
