"""Open files as samples × features, and write such: an AnnData, 10x, or table and sheet.

A table of numbers may have its samples in columns, as R has them, or in rows. A second
table, the sheet, has their names, batch and covariates. Names tell which side of the
table the samples are on; sizes are never asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import typer

from batchcorr.cli.dialects import Given
from batchcorr.cli.files import (
    ANNDATA,
    SOURCES,
    TABLES,
    check_kind,
    is_table,
    is_tenx,
    read,
    write,
)
from batchcorr.errors import BatchCorrWarning, InputError, MissingKeyError, some, warn

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from batchcorr.cli.dialects import Style
    from batchcorr.cli.tables import Table

__all__ = [
    "Layout",
    "TableOptions",
    "check_data",
    "check_one_matrix",
    "open_data",
    "save_data",
]


class TableOptions(NamedTuple):
    """What the options say of tables: the sheet, its column of names, and the rest."""

    sheet: Path | None = None
    column: str | None = None
    given: Given = Given()

    @classmethod
    def of_options(
        cls,
        sheet: Path | None,
        column: str | None,
        separator: str | None,
        decimal: str | None,
    ) -> TableOptions:
        """What --samples, --sample-column, --sep and --decimal say."""
        return cls(sheet, column, Given.of_options(separator, decimal))


class Layout(NamedTuple):
    """How a table was written, so that the corrected one is written alike."""

    in_columns: bool
    style: Style


def check_data(source: Path, options: TableOptions) -> None:
    """Refuse, as wrong usage, a kind of file that is none, and samples without labels."""
    check_kind(source, SOURCES)
    sheet, column, given = options
    if sheet is not None:
        check_kind(sheet, tuple(TABLES))
    if sheet is None and (is_table(source) or is_tenx(source)):
        msg = (
            f"{source} is a {'table' if is_table(source) else '10x matrix'}, which holds "
            "no batches: name a table with a row for each sample, its name first."
        )
        raise typer.BadParameter(msg, param_hint="--samples")
    if sheet is not None and not (is_table(source) or is_tenx(source)):
        msg = f"{source} is an AnnData, and holds what is known of its samples in obs."
        raise typer.BadParameter(msg, param_hint="--samples")
    if sheet is None and (column is not None or given != Given()):
        msg = f"{source} is an AnnData: this is said of tables."
        hint = "--sample-column" if column is not None else "--sep, --decimal"
        raise typer.BadParameter(msg, param_hint=hint)


def check_one_matrix(path: Path, option: str, given: object) -> None:
    """Refuse, as wrong usage, an option that a table or 10x matrix has no place for."""
    if given and (is_table(path) or is_tenx(path)):
        msg = (
            f"{path} is one matrix in memory and no more: this needs an AnnData, "
            f"{' or '.join(ANNDATA)}."
        )
        raise typer.BadParameter(msg, param_hint=option)


def open_data(source: Path, options: TableOptions) -> tuple[AnnData, Layout | None]:
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
    sheet = options.sheet
    if sheet is None:
        return read(source), None
    from batchcorr.cli.sheets import read_sheet

    if is_tenx(source):
        from batchcorr.cli.tenx import read_tenx

        adata = read_tenx(source)
        names = list(adata.obs_names)
        known = read_sheet(sheet, options.given, options.column, names)
        adata.obs = _labels_of(source, names, sheet, known)
        return adata, None
    return _open_table(source, sheet, options)


def _open_table(
    source: Path, sheet: Path, options: TableOptions
) -> tuple[AnnData, Layout]:
    """Read a table and its sheet."""
    import anndata
    import numpy as np
    import pandas as pd

    from batchcorr.cli.annotation import sample_names, set_apart
    from batchcorr.cli.sheets import read_sheet, require_unique
    from batchcorr.cli.tables import read_table, to_numbers

    table = read_table(source, options.given)
    candidates = {*table.rows, *table.columns}
    known = read_sheet(
        sheet,
        options.given,
        options.column,
        candidates | {*sample_names(table.columns)},
    )
    if not candidates & set(known.index):  # samples are named by their BAM files
        table = table._replace(columns=sample_names(table.columns))
    table, annotation = set_apart(source, table, set(known.index))
    in_columns = _in_columns(source, table, sheet, set(known.index))
    names, features = table.columns, table.rows
    if not in_columns:
        names, features = features, names
    require_unique(names, "samples", source)
    obs = _labels_of(source, names, sheet, known)
    table = to_numbers(source, table)
    adata = anndata.AnnData(
        np.ascontiguousarray(table.cells.T if in_columns else table.cells),
        obs=obs,
        var=annotation.astype(str) if in_columns else pd.DataFrame(index=features),
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
    from batchcorr.cli.dialects import Style
    from batchcorr.cli.table_writing import write_table
    from batchcorr.cli.tables import Table

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
            f"{len(found[side])} of {len(sides[side])} {side} "
            f"({some(map(repr, found[side]), 3)})"
            for side in sides
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
            f"{some(map(repr, known), 3)}. Write the names alike, or say with "
            "--sample-column which column of the sheet has them."
        )
    raise InputError(msg)


def _labels_of(
    source: Path, names: list[str], sheet: Path, known: pd.DataFrame
) -> pd.DataFrame:
    """The rows of the sheet for some samples; warns of others it has."""
    rest = set(known.index)
    missing = [name for name in names if name not in rest]
    if missing:
        msg = (
            f"{len(missing)} of {len(names)} samples of {source} are not in {sheet}: "
            f"{some(map(repr, missing), 3)}. It has {some(map(repr, known.index), 3)}. "
            "Add a row for each, or leave them out of the table."
        )
        raise MissingKeyError(msg)
    rest -= set(names)
    if rest:
        more = [repr(name) for name in known.index if name in rest]
        msg = f"{len(more)} of {len(known)} samples of {sheet} are not in {source} and "
        warn(f"{msg}are left out: {some(more, 3)}.", BatchCorrWarning)
    return known.loc[names]
