"""Whether the chunks of a zarr store are whole and there, before anything unpacks them.

A buffer packed by blosc says in its head how long it is. Blosc itself believes this, and
reads on where a file was cut short: into other memory, or into none, which ends the
process. Other packers notice, and so do HDF5 files.

A chunk without a file is read as zeros or blanks, and zarr 3 writes none for a chunk of
these. So a lost chunk is found where it cannot hold zeros alone: among row ends, column
numbers, names and categories. In dense matrices and codes of labels nobody can tell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from batchcorr.errors import FileError, FileWarning, warn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Node", "require_whole_chunks"]

HEAD = 16
"""Bytes of blosc's head; the last four of them are the length."""

Node: TypeAlias = Any
"""A group or an array of an open zarr store or HDF5 file."""

NAME = re.compile(r"c|(c\.)?\d+(\.\d+)*")
"""What files of chunks are called: 3.1, or 1 in a folder 3; c.3.1; c for a number."""


def require_whole_chunks(path: Path, group: Node) -> None:
    """Refuse a zarr store with a chunk that was cut short, or that must be there.

    Raises
    ------
    FileError
        If the length of a chunk's file is not what the chunk says, or if there is none.

    Warns
    -----
    FileWarning
        If a chunk of a sparse matrix's values has no file: they may all be stored zeros.
    """
    _require_all_chunks(path, group)
    for key in group:
        node = group[key]
        if hasattr(node, "keys"):
            require_whole_chunks(path, node)
        elif _ends_in_blosc(node):
            for file in (path / node.path).rglob("*"):
                if _is_chunk(file) and not _whole(file):
                    chunk = file.relative_to(path)
                    what = f"the chunk {chunk} is of another length than it says"
                    _refuse(path, node, what)


def _require_all_chunks(path: Path, group: Node) -> None:
    """Refuse a group of AnnData's that lacks a chunk which cannot hold zeros alone."""
    kind = group.attrs.get("encoding-type")
    if kind in {"csr_matrix", "csc_matrix"}:
        _require_sparse(path, group)
    elif kind == "categorical":
        _require_texts(path, group["categories"])
    elif kind == "dataframe" and group.attrs.get("_index") in group:
        _require_texts(path, group[group.attrs["_index"]])


def _require_sparse(path: Path, group: Node) -> None:
    ends = np.asarray(group["indptr"][:])
    data, indices = group["data"], group["indices"]
    wanted = data.shape[0]
    ascend = ends.size > 0 and ends[0] == 0 and (np.diff(ends) >= 0).all()
    if not ascend or ends[-1] != wanted or indices.shape[0] != wanted:
        what = "it does not ascend from 0 to the number of values"
        _refuse(path, group["indptr"], what)
    for chunk, _, stop in _missing(path, group["indptr"]):
        row = np.asarray(indices[ends[stop - 1] : ends[min(stop, ends.size - 1)]])
        if np.unique(row).size < row.size:  # the values of many rows
            _refuse(path, group["indptr"], f"the chunk {chunk} is missing")
    for chunk, start, stop in _missing(path, indices):
        if (np.diff(np.clip(ends, start, stop)) > 1).any():  # a row has column 0 twice
            _refuse(path, indices, f"the chunk {chunk} is missing")
    for chunk, start, stop in _missing(path, data):
        msg = (
            f"{path} has no chunk {chunk} of {data.path}, so that {stop - start:,} "
            "values are read as 0. Unless they are zeros, the file is incomplete: copy "
            "it again from its source."
        )
        warn(msg, FileWarning)


def _require_texts(path: Path, texts: Node) -> None:
    """Refuse blanks that are read for names or categories, of which each occurs once."""
    if hasattr(texts, "keys"):  # of values that may be missing, and which are
        texts = texts.get("values", texts)
    if hasattr(texts, "keys") or texts.ndim != 1 or texts.dtype.kind in "biuf":
        return
    for chunk, start, stop in _missing(path, texts):
        if stop - start > 1:
            _refuse(path, texts, f"the chunk {chunk} is missing")


def _missing(path: Path, array: Node) -> Iterator[tuple[int, int, int]]:
    """The chunks of a 1-D array that have no file: number, first value, one past last."""
    size, n = (getattr(array, "shards", None) or array.chunks)[0], array.shape[0]
    folder = path / array.path
    for chunk in range(-(-n // size)):
        names = (f"c/{chunk}", f"c.{chunk}", str(chunk))
        if not any((folder / name).exists() for name in names):
            yield chunk, chunk * size, min((chunk + 1) * size, n)


def _refuse(path: Path, array: Node, why: str) -> NoReturn:
    msg = f"{path} cannot be read: {array.path} is damaged or incomplete ({why})."
    raise FileError(msg)


def _ends_in_blosc(array: Node) -> bool:
    """Whether files of an array are what blosc made, one a chunk."""
    if getattr(array, "shards", None):
        return False
    packers = list(array.compressors)
    return bool(packers) and "blosc" in type(packers[-1]).__name__.lower()


def _is_chunk(file: Path) -> bool:
    return NAME.fullmatch(file.name) is not None and file.is_file()


def _whole(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    return len(head) == HEAD and int.from_bytes(head[-4:], "little") == (
        file.stat().st_size
    )
