"""Read files into memory; what cannot be read is told in one sentence."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchcorr.cli.working import working
from batchcorr.cli.writing import reason
from batchcorr.errors import BatchCorrError, FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

__all__ = ["read_anndata", "reading"]


def read_anndata(path: Path) -> AnnData:
    """Read an .h5ad file or a .zarr store.

    Raises
    ------
    FileError
        If there is none, or it is damaged or of another kind than its name says.
    """
    import anndata

    is_zarr = path.suffix.lower() == ".zarr"
    kind = "zarr store" if is_zarr else "HDF5 file"
    with reading(path, f"{kind} that holds an AnnData"):
        if not is_zarr:
            return anndata.read_h5ad(path)
        from batchcorr._files.chunks import require_whole_chunks
        from batchcorr.outofcore.stored_matrix import open_file

        require_whole_chunks(path, open_file(path))
        return anndata.read_zarr(path)


@contextmanager
def reading(path: Path, what: str, *, folder: bool = False) -> Iterator[None]:
    """Say in one sentence why a file, or a folder, could not be read."""
    if not path.exists():
        msg = f"There is no file {path}."
        raise FileError(msg)
    if (folder or path.suffix.lower() == ".zarr") != path.is_dir():
        msg = f"{path} is {'a' if path.is_dir() else 'no'} folder: is its name right?"
        raise FileError(msg)
    try:
        with working(f"Reading {path}"):
            yield
    except (BatchCorrError, MemoryError):
        raise
    except Exception as error:
        msg = (
            f"{path} cannot be read: it is no {what}, or {_place(error)} is damaged or "
            f"incomplete ({reason(error)})."
        )
        raise FileError(msg) from error


def _place(error: Exception) -> str:
    """The part of a file that anndata was reading, as its note on the error says."""
    for note in getattr(error, "__notes__", ()):
        if found := re.search(r"reading key '(.+)' of .* from (.*)", note):
            return "/".join(filter(None, [found[2].strip("/"), found[1].strip("/")]))
    return "it"
