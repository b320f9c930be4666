"""Whether the chunks of a zarr store are whole, before anything unpacks them.

A buffer packed by blosc says in its head how long it is. Blosc itself believes this, and
reads on where a file was cut short: into other memory, or into none, which ends the
process. Other packers notice, and so do HDF5 files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from batchcorr.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["require_whole_chunks"]

HEAD = 16
"""Bytes of blosc's head; the last four of them are the length."""

NAME = re.compile(r"c|(c\.)?\d+(\.\d+)*")
"""What files of chunks are called: 3.1, or 1 in a folder 3; c.3.1; c for a number."""


def require_whole_chunks(path: Path, group: Any) -> None:
    """Refuse a zarr store that holds a chunk cut short.

    Parameters
    ----------
    path
        The folder of the store.
    group
        The open store, or a group in it.

    Raises
    ------
    FileError
        If the length of a chunk's file is not what the chunk says.
    """
    for key in group:
        node = group[key]
        if hasattr(node, "keys"):
            require_whole_chunks(path, node)
        elif _ends_in_blosc(node):
            for file in (path / node.path).rglob("*"):
                if _is_chunk(file) and not _whole(file):
                    msg = (
                        f"{path} cannot be read: {node.path} is damaged or incomplete "
                        f"(the chunk {file.relative_to(path)} is of another length than "
                        "it says)."
                    )
                    raise FileError(msg)


def _ends_in_blosc(array: Any) -> bool:
    """Whether files of an array are what blosc made, one a chunk."""
    if getattr(array, "shards", None):
        return False
    if hasattr(array, "compressors"):
        packers = list(array.compressors)
    else:  # zarr 2
        packers = [array.compressor]
    return bool(packers) and "blosc" in type(packers[-1]).__name__.lower()


def _is_chunk(file: Path) -> bool:
    return NAME.fullmatch(file.name) is not None and file.is_file()


def _whole(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    return len(head) == HEAD and int.from_bytes(head[-4:], "little") == (
        file.stat().st_size
    )
