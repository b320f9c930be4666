"""Open a file as samples × features, and write such: an AnnData, or a table and a sheet.

A table of numbers may have its samples in columns, as R has them, or in rows. A second
table, the sheet, has their names in its first column, and batch and covariates beside.
Its names tell which side of the table the samples are on; sizes are never asked.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import typer

from batchcorr.cli.files import ANNDATA, DATA, TABLES, check_kind, is_table, read, write
from batchcorr.errors import BatchCorrWarning, InputError, MissingKeyError, some, warn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from batchcorr.cli.tables import Style, Table

__all__ = ["Layout", "check_data", "check_one_matrix", "open_data", "save_data"]

WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")
DECIMAL = re.compile(r"-?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)([eE][+-][0-9]+)?")
"""As R writes numbers: a well 1E5 and a number of many digits are names."""


class Layout(NamedTuple):
    """How a table was written, so that the corrected one is written alike."""

    in_columns: bool
    style: Style


def check_data(source: Path, sheet: Path | None) -> None:
    """Refuse, as wrong usage, a kind of file that is none, and a table without labels."""
    check_kind(source, DATA)
    if sheet is not None:
        check_kind(sheet, tuple(TABLES))
    if is_table(source) and sheet is None:
        msg = (
            f"{source} is a table, which holds no batches: name a second table with a "
            "row for each sample, its name first."
        )
        raise typer.BadParameter(msg, param_hint="--samples")
    if sheet is not None and not is_table(source):
        msg = f"{source} is an AnnData, and holds what is known of its samples in obs."
        raise typer.BadParameter(msg, param_hint="--samples")


def check_one_matrix(path: Path, option: str, given: object) -> None:
    """Refuse, as wrong usage, an option that a table has no place for."""
    if given and is_table(path):
        msg = (
            f"{path} is a table, which is one matrix in memory and no more: this needs "
            f"an AnnData, {' or '.join(ANNDATA)}."
        )
        raise typer.BadParameter(msg, param_hint=option)


def open_data(source: Path, sheet: Path | None) -> tuple[AnnData, Layout | None]:
    """Read a file into memory; of a table also how it was written.

    Raises
    ------
    FileError
        If a file cannot be read.
    MissingKeyError
        If samples are not in the sheet.
    InputError
        If cells are no numbers, names are not unique, or it cannot be told which side
        of a table the samples are on.
    """
    if sheet is None:
        return read(source), None
    import anndata
    import numpy as np
    import pandas as pd

    from batchcorr.cli.tables import read_numbers, read_texts

    known = read_texts(sheet)
    _require_unique(known.rows, "samples", sheet)
    _require_unique(known.columns, "columns", sheet)
    table = read_numbers(source)
    in_columns = _in_columns(source, table, sheet, set(known.rows))
    names, features = table.columns, table.rows
    if not in_columns:
        names, features = features, names
    _require_unique(names, "samples", source)
    _require_known(source, names, sheet, known.rows)
    adata = anndata.AnnData(
        np.ascontiguousarray(table.cells.T if in_columns else table.cells),
        obs=known.cells.loc[names].apply(_as_labels),
        var=pd.DataFrame(index=features),
    )
    return adata, Layout(in_columns, table.style)


def save_data(
    adata: AnnData,
    target: Path,
    layout: Layout | None,
    *,
    layer: str | None = None,
    compress: bool = False,
) -> None:
    """Write a file, whole or not at all; a table gets X, or a layer.

    It is written as the table that was read, else as features × samples.
    """
    if not is_table(target):
        write(adata, target, compress=compress)
        return
    from batchcorr.cli.tables import Style, Table, write_table

    cells = adata.X if layer is None else adata.layers[layer]
    rows, columns = list(adata.obs_names), list(adata.var_names)
    in_columns, style = layout or Layout(in_columns=True, style=Style("\t"))
    if in_columns:
        rows, columns, cells = columns, rows, cells.T
    write_table(target, Table(rows, columns, cells, style))


def _in_columns(
    source: Path, table: Table, sheet: Path, known: Collection[str]
) -> bool:
    """Whether the samples are the columns of a table: the side whose names are known."""
    sides = {"columns": table.columns, "rows": table.rows}
    found = {side: [n for n in sides[side] if n in known] for side in sides}
    whole = [len(found[side]) == len(sides[side]) for side in sides]
    if whole[0] != whole[1]:
        return whole[0]
    if bool(found["columns"]) != bool(found["rows"]):  # the others are missing
        return bool(found["columns"])
    if found["columns"]:
        both = " and ".join(
            f"{len(named)} of {len(sides[side])} {side} ({some(map(repr, named), 3)})"
            for side, named in found.items()
        )
        msg = (
            f"{both} of {source} have names of samples in {sheet}, so that either could "
            "be the samples: give other names to the features."
        )
    else:
        msg = (
            f"Neither columns nor rows of {source} have names of samples in {sheet}. "
            f"Columns: {some(map(repr, sides['columns']), 3)}; rows: "
            f"{some(map(repr, sides['rows']), 3)}; samples of the sheet: "
            f"{some(map(repr, known), 3)}. Write the names alike, in the sheet's "
            "first column."
        )
    raise InputError(msg)


def _require_known(
    source: Path, names: list[str], sheet: Path, known: list[str]
) -> None:
    """Refuse samples that the sheet lacks; say which of its own are left out."""
    rest = set(known)
    missing = [name for name in names if name not in rest]
    if missing:
        msg = (
            f"{len(missing)} of {len(names)} samples of {source} are not in {sheet}: "
            f"{some(map(repr, missing), 3)}. It has {some(map(repr, known), 3)}. Add a row for each, or leave "
            "them out of the table."
        )
        raise MissingKeyError(msg)
    rest -= set(names)
    if rest:
        more = [name for name in known if name in rest]
        msg = f"{len(more)} of {len(known)} samples of {sheet} are not in {source} and "
        warn(f"{msg}are left out: {some(map(repr, more), 3)}.", BatchCorrWarning)


def _require_unique(names: list[str], what: str, path: Path) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        msg = f"{path} has {what} of the same name: {some(map(repr, twice), 3)}. Names must differ."
        raise InputError(msg)


def _as_labels(column: pd.Series) -> pd.Series:
    """Return a column of texts as whole numbers or decimals, if all of it is.

    Numbers that begin with a 0, such as 007, are names and stay texts.
    """
    import pandas as pd

    texts = {text for text in column if text is not None}
    complete = not column.isna().any()
    kind: type = str
    if all(WHOLE.fullmatch(text) for text in texts):
        kind = int if complete else float
    elif all(DECIMAL.fullmatch(text) for text in texts):
        kind = float
        _warn_of_merged(str(column.name), texts)
    if kind is str:
        return column
    values = [float("nan") if text is None else kind(text) for text in column]
    return pd.Series(values, index=column.index, name=column.name)


def _warn_of_merged(column: str, texts: Iterable[str]) -> None:
    """Warn of labels that are told apart as texts and not as numbers: 1.1 and 1.10."""
    known: dict[float, str] = {}
    for text in sorted(texts):
        same = known.setdefault(float(text), text)
        if same != text:
            msg = (
                f"{column!r} holds numbers, so that {same} and {text} are the same: if "
                "they are labels, put a letter before them."
            )
            warn(msg, BatchCorrWarning)
            return
