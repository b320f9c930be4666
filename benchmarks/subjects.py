"""Persons measured in two studies, found again after correction with and without `subject=`.

    python benchmarks/subjects.py lcl_rnaseq_3studies.h5ad        # half a minute

A sample is found if the nearest of all other samples, in Euclidean distance of logarithms,
is one of the same person. Two rows show what hides persons: the batches' means and standard
deviations taken from the persons measured twice alone, which is the best that a map by batch
can know, and five surrogate variables removed with the batch.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np

import batchcorr as bc


def found(x: np.ndarray, person: np.ndarray, twice: np.ndarray) -> int:
    """Samples of persons measured twice whose nearest sample is of the same person."""
    centred = x - x.mean(axis=0)
    size = (centred**2).sum(axis=1)
    distance = size[:, None] + size - 2 * centred @ centred.T
    np.fill_diagonal(distance, np.inf)
    same = person[distance.argmin(axis=1)] == person
    return int((same & twice).sum())


def of_pairs(adata: ad.AnnData, twice: np.ndarray) -> np.ndarray:
    """Batches brought together by the mean and deviation of persons measured twice."""
    x, batch = adata.X, adata.obs["batch"].to_numpy()
    known = {b: x[(batch == b) & twice] for b in np.unique(batch[twice])}
    mean = np.mean([own.mean(axis=0) for own in known.values()], axis=0)
    sd = np.sqrt(np.mean([own.var(axis=0, ddof=1) for own in known.values()], axis=0))
    y = x.copy()
    for b in np.unique(batch):
        own = known.get(b, x[batch == b])
        deviation = own.std(axis=0, ddof=1)
        scale = np.divide(sd, deviation, out=np.ones_like(sd), where=deviation > 0)
        y[batch == b] = (x[batch == b] - own.mean(axis=0)) * scale + mean
    return y


def main() -> None:
    """Print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(parser.parse_args().file)
    bc.pp.log_normalize(adata)
    x = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    adata.X = np.asarray(x, dtype=np.float64)
    person = adata.obs["individual"].astype(str).to_numpy()
    names, counts = np.unique(person, return_counts=True)
    twice = np.isin(person, names[counts > 1])
    print(f"| of {twice.sum()} samples found | without subject | with subject= |")
    print(f"|---|---|---|\n| uncorrected | {found(adata.X, person, twice)} | |")
    for name, face, options in (
        ("combat", bc.pp.combat, {}),
        ("combat, mean_only", bc.pp.combat, {"mean_only": True}),
        ("standardize", bc.pp.standardize, {}),
        ("remove_batch_effect", bc.pp.remove_batch_effect, {}),
    ):
        row = [
            found(
                face(adata, "batch", subject=subject, copy=True, **options).X,
                person,
                twice,
            )
            for subject in (None, "individual")
        ]
        print(f"| {name} | {row[0]} | {row[1]} |", flush=True)
    print(
        f"| from the pairs alone | | {found(of_pairs(adata, twice), person, twice)} |"
    )
    bc.tl.surrogate_variables(
        adata, covariates="batch", null="batch", method="two_step", n_variables=5
    )
    cleaned = bc.pp.remove_batch_effect(adata, "batch", nuisance="X_sv", copy=True).X
    print(f"| linear, surrogate variables | {found(cleaned, person, twice)} | |")


if __name__ == "__main__":
    sys.exit(main())
