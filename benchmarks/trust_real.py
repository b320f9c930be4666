"""Evaluations of real data with a known truth: the tables of docs/trust.md.

python benchmarks/trust_real.py DATA        a folder with seqc_5sites.h5ad,
                                            lcl_rnaseq_3studies.h5ad and
                                            cellbench_3protocols.h5ad; some minutes

Beside the scores of `tl.evaluate`, which need nothing but the data, stand truths that users
do not have: TaqMan's ratios of the same two RNAs, the same people measured twice.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import harmonypy
import numpy as np
import scanpy as sc

import batchcorr as bc

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "combat": (bc.pp.combat, {}),
    "combat, mean only": (bc.pp.combat, {"mean_only": True}),
    "standardize": (bc.pp.standardize, {}),
    "remove_batch_effect": (bc.pp.remove_batch_effect, {}),
}
SCORES = (
    "batch_beyond_covariates",
    "pc_regression",
    "ilisi",
    "batch_predicted",
    "clisi",
    "ari",
    "structure_kept",
)


def corrected(adata: ad.AnnData, keep: str | None) -> None:
    for name, (function, options) in METHODS.items():
        function(adata, "batch", covariates=keep, key_added=name, **options)


def harmony(adata: ad.AnnData) -> None:
    """harmonypy on scanpy's components, as it comes."""
    sc.pp.pca(adata, n_comps=min(50, adata.n_obs // 5))
    points = harmonypy.run_harmony(adata.obsm["X_pca"], adata.obs, "batch").Z_corr
    points = np.asarray(points)
    adata.obsm["harmonypy"] = points if len(points) == adata.n_obs else points.T


def logged(path: Path) -> ad.AnnData:
    adata = ad.read_h5ad(path)
    bc.pp.log_normalize(adata, base=2)
    return adata


def show(adata: ad.AnnData, labels: str, truth: dict[str, dict[str, float]]) -> None:
    layers = [None, *(key for key in adata.layers if key is not None)]
    found = bc.tl.evaluate(
        adata, "batch", labels=labels, layers=layers, embeddings=["harmonypy"]
    )
    print(
        f"| | {' | '.join([*truth, *SCORES])} |\n|---|{'---|' * (len(truth) + len(SCORES))}"
    )
    for row in found.scores.index:
        cells = [
            f"{truth[name][row]:.3f}" if row in truth[name] else "–" for name in truth
        ]
        for score in SCORES:
            value, chance = found.scores.loc[row, score], found.chance.loc[row, score]
            text = "–" if np.isnan(value) else f"{value:.2f}"
            cells.append(text if np.isnan(chance) else f"{text} ({chance:.2f})")
        print(f"| {'none' if row == 'X' else row} | {' | '.join(cells)} |")
    for note in found.notes:
        print(f"- {note}")


def layers_of(adata: ad.AnnData) -> dict[str, NDArray[Any]]:
    named = {"X": adata.X}
    named |= {key: adata.layers[key] for key in adata.layers if key is not None}
    return {
        key: x.toarray() if hasattr(x, "toarray") else np.asarray(x)
        for key, x in named.items()
    }


def taqman(adata: ad.AnnData, sites: list[str]) -> dict[str, float]:
    """Correlation of log2 A/B within a site with TaqMan's, the mean over sites."""
    ratio = (adata.var["taqman_A"] / adata.var["taqman_B"]).to_numpy()
    known = np.isfinite(ratio) & (ratio > 0)
    batch, rna = (adata.obs[name].to_numpy() for name in ("batch", "condition"))
    found = {}
    for key, x in layers_of(adata).items():
        each = []
        for site in sites:
            a, b = (x[(batch == site) & (rna == level)].mean(axis=0) for level in "AB")
            each.append(np.corrcoef((a - b)[known], np.log2(ratio[known]))[0, 1])
        found[key] = float(np.mean(each))
    return found


def same_person(adata: ad.AnnData) -> dict[str, float]:
    """Share of people measured twice whose nearest sample is their other one."""
    people = adata.obs["individual"].astype(str).to_numpy()
    names, counts = np.unique(people, return_counts=True)
    twice = np.isin(people, names[counts > 1])
    found = {}
    points = layers_of(adata) | {"harmonypy": adata.obsm["harmonypy"]}
    for key, x in points.items():
        z = x - x.mean(axis=0)
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        near = z @ z.T
        np.fill_diagonal(near, -np.inf)
        nearest = people[near.argmax(axis=1)]
        found[key] = float((nearest == people)[twice].mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    warnings.simplefilter("ignore")  # of association and of size: that is what is shown

    print("\n### SEQC: two RNAs at five sites\n")
    adata = logged(folder / "seqc_5sites.h5ad")
    corrected(adata, "condition")
    harmony(adata)
    sites = {"ILM_COH": ["ILM_COH"], "ROC_*": ["ROC_MGP", "ROC_NYU", "ROC_SQW"]}
    truth = {f"TaqMan, {name}": taqman(adata, each) for name, each in sites.items()}
    show(adata, "condition", truth)

    print("\n### LCL: people measured in two studies\n")
    adata = logged(folder / "lcl_rnaseq_3studies.h5ad")
    corrected(adata, "condition")
    harmony(adata)
    show(adata, "condition", {"same person": same_person(adata)})

    print("\n### Mixed cell lines, three protocols\n")
    adata = ad.read_h5ad(folder / "cellbench_3protocols.h5ad")
    bc.pp.log_normalize(adata)
    adata.X = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
    corrected(adata, None)
    harmony(adata)
    show(adata, "cell_type", {})


if __name__ == "__main__":
    main()
