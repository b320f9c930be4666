"""Counts of Cell Ranger, which scanpy reads: an .h5 file, or a folder with a matrix.mtx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.cli.console import note
from batchcorr.cli.reading import reading

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

__all__ = ["read_tenx"]


def read_tenx(path: Path) -> AnnData:
    """Read counts of genes in cells, which are named by their barcodes."""
    import scanpy as sc

    with reading(path, "matrix of Cell Ranger (10x)", folder=path.is_dir()):
        if path.is_dir():
            adata = sc.read_10x_mtx(path, make_unique=False)
        else:
            adata = sc.read_10x_h5(path)
    if not adata.var_names.is_unique:
        adata.var_names_make_unique()
        note(f"Genes of {path} with the same symbol were numbered: -1, -2, …")
    adata.var_names.name = None
    return adata
