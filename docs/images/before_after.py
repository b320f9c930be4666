"""Draw the picture of the README: bladder arrays before and after ComBat."""

from __future__ import annotations

import warnings
from pathlib import Path

import scanpy as sc

import batchcorr as bc

adata = bc.datasets.bladder()
adata.obs = adata.obs.rename(columns={"cancer": "tissue"})
with warnings.catch_warnings(action="ignore"):  # tissue goes with batch here
    bc.pp.combat(adata, "batch", covariates="tissue", key_added="combat")
sc.pp.pca(adata, n_comps=2, key_added="pca_before")
sc.pp.pca(adata, n_comps=2, layer="combat", key_added="pca_after")

axes = bc.pl.embedding(
    adata,
    ["pca_before", "pca_after"],
    ["batch", "tissue"],
    titles=["before", "after ComBat, tissue kept"],
)
figure = axes[0, 0].figure
figure.set_size_inches(5.8, 4.4)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=130, metadata={"Software": None})
