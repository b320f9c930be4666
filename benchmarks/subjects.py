"""Persons measured in two studies, found again after correction with and without `subject=`.

    python benchmarks/subjects.py lcl_rnaseq_3studies.h5ad        # half a minute

A sample is found if the nearest of all other samples, in Euclidean distance of logarithms,
is one of the same person.
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


if __name__ == "__main__":
    sys.exit(main())
