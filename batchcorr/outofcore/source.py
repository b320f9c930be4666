"""An AnnData file to read from: opened, its small parts read, its matrix found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from batchcorr._files.chunks import Node, require_whole_chunks
from batchcorr._files.damage import reading_or
from batchcorr.errors import MissingKeyError, did_you_mean
from batchcorr.outofcore.dask_blocks import scheduled
from batchcorr.outofcore.stored_matrix import StoredMatrix, block_limit, open_file

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anndata import AnnData

__all__ = ["Resources", "find_matrix", "open_source", "read_small"]

LARGEST = 192 << 20
"""Bytes of a block, if chunks allow: larger ones are not faster."""


class Resources(NamedTuple):
    """What a file may be worked on with.

    Attributes
    ----------
    memory
        Bytes that this process may take; with a scheduler, each of its workers.
    scheduler
        Address of a Dask scheduler, "threads" or "processes"; None: no Dask.
    """

    memory: int
    scheduler: str | None = None


def open_source(source: Path) -> Node:
    """The open file, no chunk of which is missing."""
    with _reading(source):
        file = open_file(source)
        if source.suffix.lower() == ".zarr":
            require_whole_chunks(source, file)
    return file


def read_small(source: Path, file: Node) -> AnnData:
    """Everything of a file that is not a matrix."""
    from anndata import AnnData
    from anndata.io import read_elem

    with _reading(source):
        names = ["obs", "var", *(["uns"] if "uns" in file else [])]
        found = {name: read_elem(file[name]) for name in names}
        return AnnData(**found)


def _reading(source: Path) -> AbstractContextManager[None]:
    return reading_or(
        f"{source} cannot be read: it holds no AnnData, or it is damaged or incomplete"
    )


def find_matrix(
    source: Path, file: Node, layer: str | None, resources: Resources
) -> StoredMatrix:
    """The matrix to correct, in blocks that suit the memory."""
    name = "X" if layer is None else f"layers/{layer}"
    if name not in file:
        names = list(file["layers"].keys()) if "layers" in file else []
        what = "There is no X" if layer is None else f"There is no layer {layer!r}"
        msg = f"{what} in {source}. {did_you_mean(layer or '', names)}"
        raise MissingKeyError(msg)
    shared = 1
    if resources.scheduler is not None:
        with scheduled(resources.scheduler) as workers:
            shared = workers if resources.scheduler == "threads" else 1
    most_bytes = block_limit(resources.memory, shared)
    block_bytes = min(most_bytes, LARGEST)
    return StoredMatrix(
        source, name, file, block_bytes=block_bytes, most_bytes=most_bytes
    )
