"""Draw the pictures of the README and of docs/figures.md, from the bladder arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc
from sklearn.feature_selection import f_classif

import batchcorr as bc

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

HERE = Path(__file__).parent


def corrected() -> AnnData:
    """The bladder arrays, a corrected layer, and components of both."""
    adata = bc.datasets.bladder()
    adata.obs = adata.obs.rename(columns={"cancer": "tissue"})
    bc.pp.combat(adata, "batch", covariates="tissue", key_added="combat")
    sc.pp.pca(adata, n_comps=2, key_added="pca_before")
    sc.pp.pca(adata, n_comps=2, layer="combat", key_added="pca_after")
    return adata


def before_after(adata: AnnData) -> None:
    """The picture of the README."""
    axes = bc.pl.embedding(
        adata,
        ["pca_before", "pca_after"],
        ["batch", "tissue"],
        titles=["before", "after ComBat, tissue kept"],
    )
    axes[0, 0].figure.set_size_inches(5.8, 4.4)


def null_tests(adata: AnnData) -> dict[str, np.ndarray]:
    """p-values of tissue where nothing is to be found, by two roads."""
    null = adata[:, :5000].copy()
    null.X = np.random.default_rng(0).normal(8, 1, null.shape)
    bc.pp.combat(null, "batch", covariates="tissue", key_added="kept")
    table = bc.tl.differential(null, "batch", "tissue")
    return {
        "corrected, then tested": f_classif(null.layers["kept"], null.obs["tissue"])[1],
        "batch in the model": table["p_value"].to_numpy(),
    }


def figures(adata: AnnData) -> dict[str, Callable[[], object]]:
    """What draws each figure."""
    correction = bc.fit(adata, "batch", method="combat", covariates="tissue")
    table = bc.tl.differential(adata, "batch", ("tissue", "Cancer", "Normal"))
    audit = bc.tl.audit(adata, "batch", test="tissue")
    result = bc.tl.evaluate(adata, "batch", labels="tissue")
    layers = [None, "combat"]
    return {
        "before_after": lambda: before_after(adata),
        "design": lambda: bc.pl.design(adata, "batch", "tissue"),
        "predicted_error": lambda: bc.pl.predicted_error(audit),
        "variance_explained": lambda: bc.pl.variance_explained(
            adata, "batch", "combat", covariates="tissue"
        ),
        "relative_log_expression": lambda: bc.pl.relative_log_expression(
            adata, "batch", layers=layers
        ),
        "priors": lambda: bc.pl.priors(correction),
        "shrinkage": lambda: bc.pl.shrinkage(correction),
        "evaluation": lambda: bc.pl.evaluation(result),
        "volcano": lambda: bc.pl.volcano(table),
        "p_values": lambda: bc.pl.p_values(table),
        "calibration": lambda: bc.pl.calibration(null_tests(adata)),
    }


with warnings.catch_warnings(action="ignore"):  # tissue goes with batch here
    for name, draw in figures(corrected()).items():
        draw()
        dpi = 130 if name == "before_after" else 90
        plt.savefig(HERE / f"{name}.png", dpi=dpi, metadata={"Software": None})
        plt.close()
