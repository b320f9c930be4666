"""Read and write AnnData files, .h5ad or .zarr folders; and kinds of files by their names.

Whatever a damaged file, a full disk or Ctrl-C brings, the target is whole or as it was,
and the user is told in one sentence.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from batchcorr._files.atomic import replacing, replacing_folder
from batchcorr._files.hdf5 import new_hdf5
from batchcorr.cli.console import working
from batchcorr.cli.working import interruptible
from batchcorr.errors import BatchCorrError, FileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anndata import AnnData

__all__ = [
    "ANNDATA",
    "DATA",
    "SOURCES",
    "TABLES",
    "check_kind",
    "check_target",
    "ending",
    "is_table",
    "is_tenx",
    "read",
    "reading",
    "write",
    "write_json",
    "writing",
]

ANNDATA = (".h5ad", ".zarr")
TABLES = {".csv": ",", ".tsv": "\t", ".txt": None}
"""What separates the fields of a table; None: tabs or single spaces, as its header has.

Each may have .gz after it.
"""

DATA = (*ANNDATA, *TABLES)
TENX = ".h5"
SOURCES = (*DATA, TENX)
TENX_MATRICES = ("matrix.mtx", "matrix.mtx.gz")
STORE_MARKS = ("zarr.json", ".zgroup", ".zattrs")
"""One of these files is in every folder that is a zarr store."""


def ending(path: Path) -> str:
    """Return the ending that tells the kind of file: of a packed table the one before."""
    last = path.suffix.lower()
    inner = path.with_suffix("").suffix.lower() if last == ".gz" else last
    return inner if inner in TABLES else last


def is_table(path: Path) -> bool:
    """Whether a file name is that of a table."""
    return ending(path) in TABLES


def is_tenx(path: Path) -> bool:
    """Whether this is an .h5 file or a folder as Cell Ranger writes them."""
    in_folder = (path / name for name in TENX_MATRICES)
    return path.suffix.lower() == TENX or any(each.exists() for each in in_folder)


def check_kind(path: Path, kinds: tuple[str, ...] = ANNDATA) -> None:
    """Refuse, as wrong usage, a file name with another ending."""
    if ending(path) in kinds or (TENX in kinds and is_tenx(path)):
        return
    packed = " (tables also .gz)" if ".csv" in kinds else ""
    folder = ", or be a folder with a matrix.mtx" if TENX in kinds else ""
    msg = f"{path} must end in {', '.join(kinds[:-1])}{' or ' * (len(kinds) > 1)}"
    msg += f"{kinds[-1]}{packed}{folder}: this tells the kind of file."
    raise typer.BadParameter(msg)


def check_target(target: Path, sources: Iterable[Path | None], *, force: bool) -> None:
    """Refuse a target before any work is done for it; None stands for no source.

    Raises
    ------
    FileError
        If the target is a source, is in the way of one, exists without `force`, or
        cannot be written.
    """
    for source in filter(None, sources):
        one, other = source.resolve(), target.resolve()
        if one == other or (target.exists() and source.exists() and _same(one, other)):
            msg = (
                f"{target} is the input itself: the uncorrected values would be lost. "
                "Write to another file; with --key-added it holds both."
            )
            raise FileError(msg)
        if one in other.parents or other in one.parents:
            msg = f"{target} and {source} lie within each other: choose another place."
            raise FileError(msg)
    if os.path.lexists(target):
        if not force:
            msg = f"{target} exists already: choose another name, or add --force."
            raise FileError(msg)
        if target.is_dir() and not (_is_zarr(target) and target.suffix == ".zarr"):
            msg = f"{target} is a folder and no zarr store: --force does not delete it."
            raise FileError(msg)
    folder = target.resolve().parent
    if not folder.is_dir():
        msg = f"{target} cannot be written: there is no folder {folder}."
        raise FileError(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"{target} cannot be written: you may not write to {folder}."
        raise FileError(msg)


def read(path: Path) -> AnnData:
    """Read a file into memory.

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
        with working(f"Reading {path}"), interruptible():
            yield
    except (BatchCorrError, MemoryError):
        raise
    except Exception as error:
        msg = (
            f"{path} cannot be read: it is no {what}, or {_place(error)} is damaged or "
            f"incomplete ({_why(error)})."
        )
        raise FileError(msg) from error


def write(adata: AnnData, path: Path, *, compress: bool) -> None:
    """Write a file, whole or not at all."""
    with working(f"Writing {path}"), writing(path):
        if path.suffix.lower() == ".zarr":
            with replacing_folder(path) as part, interruptible():
                adata.write_zarr(part)
        else:
            with replacing(path) as part, interruptible(), new_hdf5(part) as file:
                _write_hdf5(adata, file, {"compression": "gzip"} if compress else {})


def _write_hdf5(adata: AnnData, file: Any, packing: dict[str, Any]) -> None:
    """Write all of an AnnData, as its `write_h5ad` does into a file of its own."""
    from anndata.io import write_elem

    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    write_elem(file, "/", adata, dataset_kwargs=packing)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence why a file could not be written."""
    try:
        yield
    except (BatchCorrError, MemoryError):
        raise
    except Exception as error:
        msg = f"{path} could not be written, and is as it was before: {_why(error)}."
        raise FileError(msg) from error


def write_json(path: Path, content: object) -> None:
    """Write a file for programs, whole or not at all."""
    with writing(path), replacing(path) as part:
        part.write_text(json.dumps(content, indent=1), "utf-8")


def _same(one: Path, other: Path) -> bool:
    """Whether two names are one file: a hard link, or a file system without case."""
    return one.samefile(other)


def _is_zarr(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in STORE_MARKS)


def _place(error: Exception) -> str:
    """The part of a file that anndata was reading, as its note on the error says."""
    for note in getattr(error, "__notes__", ()):
        if found := re.search(r"reading key '(.+)' of .* from (.*)", note):
            return "/".join(filter(None, [found[2].strip("/"), found[1].strip("/")]))
    return "it"


def _why(error: BaseException) -> str:
    """Return the system's reason for an error, else the error's first line.

    HDF5 may fail again when it closes the file: the reason then is one error further.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    line = next(iter(str(error).strip().splitlines()), "")
    return line if isinstance(error, OSError) else f"{type(error).__name__}: {line}"
