"""Write AnnData files piece by piece: copies of elements, and new dense matrices."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchcorr._files.damage import reading_or
from batchcorr._files.hdf5 import new_hdf5
from batchcorr.outofcore.stored_matrix import is_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np

    from batchcorr._files.chunks import Node
    from batchcorr.models.namespace import Matrix

__all__ = ["copy_element", "create_dense", "create_file"]

PIECE = 32 << 20
"""Bytes copied at a time, or one row of chunks where that is more."""

CHUNK = 4 << 20
"""Bytes of a chunk where the source has none to follow."""

FOLDERS = ("layers", "obsm", "varm", "obsp", "varp", "raw")
MAPPING = {"encoding-type": "dict", "encoding-version": "0.1.0"}
ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}


@contextmanager
def create_file(target: Path, like: object) -> Iterator[Node]:
    """Give the root group of a new file, zarr in the format of `like` if it is zarr."""
    root = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
    if target.suffix.lower() == ".zarr":
        import anndata
        import zarr

        version: Any = getattr(getattr(like, "metadata", None), "zarr_format", None)
        if version is None and anndata.__version__.startswith("0.12."):
            version = getattr(anndata.settings, "zarr_write_format", 2)
        version = version or 3  # what later anndata writes; its setting is deprecated
        group = zarr.open_group(str(target), mode="w", zarr_format=version)
        group.attrs.update(root)
        yield group
        return
    with new_hdf5(target) as file:
        file.attrs.update(root)
        yield file


def copy_element(node: Node, new: Node, name: str, *, leave_out: str = "") -> None:
    """Copy an element of a file into a group of another, matrices piece by piece."""
    from anndata.io import read_elem, write_elem

    if name == leave_out:
        return
    if is_matrix(node):
        if hasattr(node, "keys"):
            group = new.create_group(name)
            group.attrs.update(_plain(node.attrs))
            for part in ("data", "indices", "indptr"):
                _copy_array(node[part], group, part)
        else:
            _copy_array(node, new, name)
    elif name in FOLDERS and hasattr(node, "keys"):
        group = new.create_group(name)
        group.attrs.update(MAPPING | _plain(node.attrs))
        for key in node:
            inner = leave_out.removeprefix(f"{name}/") if "/" in leave_out else ""
            copy_element(node[key], group, key, leave_out=inner)
    else:
        write_elem(new, name, _read(node, read_elem, node))


def create_dense(
    group: Node,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    like: Node = None,
    *,
    tallest: int | None = None,
    compress: bool = False,
) -> Node:
    """Create an array to be filled, packed as `like` where that is of the same kind.

    Parameters
    ----------
    like
        The array it is made from; None where that was sparse.
    tallest
        Rows of a chunk at most, so that blocks can be written that hold whole ones.
    compress
        Whether an HDF5 array is written with gzip where `like` is not packed.
    """
    is_zarr = type(group).__module__.startswith("zarr")
    same = like is not None and type(like).__module__.startswith("zarr") == is_zarr
    width = dtype.itemsize
    for size in shape[1:]:
        width *= size
    rows = max(1, min(CHUNK // max(width, 1), shape[0]))
    chunks = tuple(like.chunks) if same and like.chunks else (rows, *shape[1:])
    chunks = (min(chunks[0], tallest or chunks[0]), *chunks[1:])
    if is_zarr:
        made = _create_zarr(
            group, name, shape, dtype, chunks=chunks, like=like if same else None
        )
    else:
        options: dict[str, Any] = {}
        if same and like.chunks:
            options = {
                "chunks": chunks,
                "compression": like.compression,
                "compression_opts": like.compression_opts,
                "shuffle": like.shuffle,
            }
        if compress and not options.get("compression"):
            options |= {"chunks": chunks, "compression": "gzip"}
            options.pop("compression_opts", None)
        made = group.create_dataset(name, shape=shape, dtype=dtype, **options)
    made.attrs.update(ARRAY)
    return made


def _create_zarr(
    group: Node,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    chunks: tuple[int, ...],
    like: Node,
) -> Node:
    chunks = tuple(max(1, min(c, s)) for c, s in zip(chunks, shape, strict=True))
    given: dict[str, Any] = {"shape": shape, "dtype": dtype, "chunks": chunks}
    same_format = like is not None and (
        like.metadata.zarr_format == group.metadata.zarr_format
    )
    if same_format:
        given["compressors"] = like.compressors or None
        if chunks == like.chunks:
            given["shards"] = like.shards
        if like.dtype == dtype:
            given["filters"] = like.filters or None
    return group.create_array(name, fill_value=0, **given)


def _plain(attributes: Any) -> dict[str, Any]:
    """Return attributes of HDF5 as zarr can write them."""
    return {
        key: value.tolist() if hasattr(value, "tolist") else value
        for key, value in dict(attributes).items()
    }


def _copy_array(node: Node, group: Node, name: str) -> None:
    made = create_dense(group, name, node.shape, node.dtype, node)
    made.attrs.update(_plain(node.attrs))
    n, size = node.shape[0], node.dtype.itemsize
    for extent in node.shape[1:]:
        size *= extent
    chunks = getattr(made, "shards", None) or made.chunks
    unit = int(chunks[0]) if chunks else 1
    step = max(1, PIECE // max(unit * size, 1)) * unit
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        made[rows] = _read(node, node.__getitem__, rows)


def _read(node: Node, how: Callable[[Any], Matrix], what: object) -> Matrix:
    """Read from the source, so that what is wrong with it is not said of the target."""
    with reading_or(
        f"The input cannot be read: {node.name.strip('/')} is damaged or incomplete"
    ):
        return how(what)
