"""Write files, whole or not at all; what cannot be written is told in one sentence.

Whatever a full disk or Ctrl-C brings, the target is whole or as it was.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchcorr._files.atomic import replacing, replacing_folder
from batchcorr._files.damage import said_by
from batchcorr._files.hdf5 import new_hdf5
from batchcorr.cli.working import working
from batchcorr.errors import BatchCorrError, FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

__all__ = ["reason", "write_anndata", "write_json", "writing"]


def write_anndata(adata: AnnData, path: Path, *, compress: bool) -> None:
    """Write an .h5ad file or a .zarr store."""
    with writing(path) as part:
        if path.suffix.lower() == ".zarr":
            adata.write_zarr(part)
            return
        from anndata.io import write_elem

        with new_hdf5(part) as file:
            adata.strings_to_categoricals()  # as `write_h5ad` does in a file of its own
            if adata.raw is not None:
                adata.strings_to_categoricals(adata.raw.var)
            packing = {"compression": "gzip"} if compress else {}
            write_elem(file, "/", adata, dataset_kwargs=packing)


def write_json(path: Path, content: object) -> None:
    """Write a file for programs."""
    with writing(path) as part:
        part.write_text(json.dumps(content, indent=1), "utf-8")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the file's name when it is whole."""
    replace = replacing_folder if path.suffix.lower() == ".zarr" else replacing
    try:
        with replace(path) as part, working(f"Writing {path}"):
            yield part
    except (BatchCorrError, MemoryError):
        raise
    except Exception as error:
        msg = f"{path} could not be written and is unchanged: {reason(error)}."
        raise FileError(msg) from error


def reason(error: BaseException) -> str:
    """The system's reason for an error, else the error's first line.

    HDF5 may fail again when it closes the file: the reason then is one error further.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    said = said_by(error)
    return said.partition(": ")[2] if isinstance(error, OSError) else said
