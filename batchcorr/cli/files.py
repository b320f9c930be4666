"""Kinds of files by their names; sources and targets are refused before any work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from batchcorr.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "ANNDATA",
    "DATA",
    "SOURCES",
    "TABLES",
    "TENX",
    "check_place",
    "check_target",
    "ending",
    "kind_of",
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

NONE: dict[str, object] = {}


def ending(path: Path) -> str:
    """The ending that tells the kind of file: of a packed table the one before."""
    last = path.suffix.lower()
    inner = path.with_suffix("").suffix.lower() if last == ".gz" else last
    return inner if inner in TABLES else last


def kind_of(
    path: Path, kinds: Iterable[str] = ANNDATA, of_anndata: Mapping[str, object] = NONE
) -> str:
    """The kind of a file by its name, one of `kinds`; 10x is ".h5".

    Parameters
    ----------
    of_anndata
        Options that a table or 10x matrix has no place for, and what was given.

    Raises
    ------
    typer.BadParameter
        If the file is of another kind, or an option is given that does not go with it.
    """
    kinds, kind = tuple(kinds), ending(path)
    if TENX in kinds and any((path / name).exists() for name in TENX_MATRICES):
        kind = TENX  # a folder as Cell Ranger writes it
    if kind not in kinds:
        packed = " (tables also .gz)" if ".csv" in kinds else ""
        folder = ", or be a folder with a matrix.mtx" if TENX in kinds else ""
        msg = f"{path} must end in {', '.join(kinds[:-1])}{' or ' * (len(kinds) > 1)}"
        msg += f"{kinds[-1]}{packed}{folder}: this tells the kind of file."
        raise typer.BadParameter(msg)
    given = [option for option, value in of_anndata.items() if value]
    if given and kind not in ANNDATA:
        msg = (
            f"{path} has only one matrix: this option needs an AnnData, "
            f"{' or '.join(ANNDATA)}."
        )
        raise typer.BadParameter(msg, param_hint=given[0])
    return kind


def check_target(
    target: Path,
    kinds: Iterable[str],
    sources: Iterable[Path | None],
    *,
    force: bool,
    compress: bool = False,
    of_anndata: Mapping[str, object] = NONE,
) -> None:
    """Refuse a target before any work is done for it; None stands for no source.

    Raises
    ------
    typer.BadParameter
        If the file is of another kind, or an option is given that does not go with it.
    FileError
        If the target is a source, is in the way of one, exists without `force`, or
        cannot be written.
    """
    kind = kind_of(target, kinds, of_anndata)
    if compress and kind in TABLES:
        msg = (
            "tables are compressed if their name ends in .gz, such as "
            f"{target.name}.gz."
        )
        raise typer.BadParameter(msg, param_hint="--compress")
    check_place(target, sources, force=force)


def check_place(target: Path, sources: Iterable[Path | None], *, force: bool) -> None:
    """Refuse a place that cannot be written, or where something is: see `check_target`."""
    for source in filter(None, sources):
        one, other = source.resolve(), target.resolve()
        if one == other or (target.exists() and source.exists() and _same(one, other)):
            msg = (
                f"{target} is also the input: the uncorrected values would be lost. "
                "Write to another file; with --key-added it contains both."
            )
            raise FileError(msg)
        if one in other.parents or other in one.parents:
            msg = f"{target} and {source} are inside each other: choose another folder."
            raise FileError(msg)
    if os.path.lexists(target):
        if not force:
            msg = f"{target} exists already: choose another name, or add --force."
            raise FileError(msg)
        if target.is_dir() and not (_is_zarr(target) and target.suffix == ".zarr"):
            msg = (
                f"{target} is a folder that is not a zarr store: --force does not "
                "delete it."
            )
            raise FileError(msg)
    folder = target.resolve().parent
    if not folder.is_dir():
        msg = f"{target} cannot be written: there is no folder {folder}."
        raise FileError(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"{target} cannot be written: there is no write permission for {folder}."
        raise FileError(msg)


def _same(one: Path, other: Path) -> bool:
    """Whether two names are one file: a hard link, or a file system without case."""
    return one.samefile(other)


def _is_zarr(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in STORE_MARKS)
