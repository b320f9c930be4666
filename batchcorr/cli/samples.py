"""Open files as samples × features, and write such: an AnnData, 10x, or table and sheet.

A table of numbers may have its samples in columns, as R has them, or in rows. A second
table, the sheet, has their names, batch and covariates. Names tell which side of the
table the samples are on; sizes are never asked.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

import typer

from batchcorr._anndata.table_data import TableData
from batchcorr.cli.dialects import Given
from batchcorr.cli.files import ANNDATA, SOURCES, TABLES, TENX, kind_of
from batchcorr.cli.matching import labels_of, renamed_as_in, samples_in_columns
from batchcorr.cli.reading import read_anndata
from batchcorr.cli.words import labels_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from batchcorr.cli.dialects import Style

__all__ = ["Layout", "Source", "save"]

NONE: dict[str, object] = {}


class Layout(NamedTuple):
    """How a table was written, so that the corrected one is written alike."""

    in_columns: bool
    style: Style


class Source(NamedTuple):
    """A file to read, and what the options say of tables.

    Attributes
    ----------
    path
        The file.
    kind
        What it is, as `files.kind_of` says.
    sheet, column
        Of a table or 10x: what is known of its samples, and the column of their names.
    given
        What the options say of separators and decimal marks.
    """

    path: Path
    kind: str
    sheet: Path | None = None
    column: str | None = None
    given: Given = Given()

    @classmethod
    def of_options(
        cls,
        path: Path,
        sheet: Path | None,
        column: str | None,
        separator: str | None,
        decimal: str | None,
        *,
        of_anndata: Mapping[str, object] = NONE,
    ) -> Source:
        """IN with --samples, --sample-column, --sep and --decimal, checked.

        Raises
        ------
        typer.BadParameter
            If the file is of no kind that is read, samples have no labels, or options
            do not go with the kind; `of_anndata` as for `files.kind_of`.
        """
        given = Given.of_options(separator, decimal)
        kind = kind_of(path, SOURCES, of_anndata)
        if sheet is not None:
            kind_of(sheet, TABLES)
        bare = kind in TABLES or kind == TENX
        if sheet is None and bare:
            what = "table" if kind in TABLES else "10x matrix"
            msg = (
                f"{path} is a {what}, which has no batches: give a table with one row "
                "per sample, with its name in the first column."
            )
            raise typer.BadParameter(msg, param_hint="--samples")
        if sheet is not None and not bare:
            msg = (
                f"{path} is an AnnData, which has batch and covariates in obs: leave "
                "out --samples."
            )
            raise typer.BadParameter(msg, param_hint="--samples")
        if sheet is None and (column is not None or given != Given()):
            msg = f"{path} is an AnnData: this option is for tables."
            hint = "--sample-column" if column is not None else "--sep, --decimal"
            raise typer.BadParameter(msg, param_hint=hint)
        if sheet is not None:
            labels_in.set(str(sheet))
        return cls(path, kind, sheet, column, given)

    def typed(self, target: str, missing: str) -> str:
        """IN and another command's OUT with the options of IN, as they are typed."""
        words = [str(self.path), target]
        for option, value in (
            ("--samples", self.sheet),
            ("--sample-column", self.column),
            ("--sep", "tab" if self.given.separator == "\t" else self.given.separator),
            ("--decimal", self.given.decimal),
            ("--missing", None if missing == "error" else missing),
        ):
            words += [] if value is None else [option, str(value)]
        return shlex.join(words)

    def open(self) -> tuple[AnnData, Layout | None]:
        """Read the file into memory; of a table also how it was written."""
        adata, layout = self.open_data()
        if isinstance(adata, TableData):
            adata = adata.to_anndata()
        return adata, layout

    def open_data(self) -> tuple[AnnData | TableData, Layout | None]:
        """Read the file into memory: a table without anndata, which takes a second.

        Raises
        ------
        FileError
            If a file cannot be read.
        MissingKeyError
            If samples are not in the sheet.
        InputError
            If cells are no numbers, names are not unique, or it cannot be told which
            side of a table the samples are on.
        """
        if self.sheet is None:
            return read_anndata(self.path), None
        if self.kind in TABLES:
            return self._open_table(self.sheet)
        from batchcorr.cli.sheets import read_sheet
        from batchcorr.cli.tenx import read_tenx

        adata = read_tenx(self.path)
        names = list(adata.obs_names)
        known = read_sheet(self.sheet, self.given, self.column, names)
        adata.obs = labels_of(self.path, names, self.sheet, known)
        return adata, None

    def _open_table(self, sheet: Path) -> tuple[TableData, Layout]:
        """Read a table and its sheet."""
        import numpy as np
        import pandas as pd

        from batchcorr._anndata import records
        from batchcorr.cli.annotation import sample_names, set_apart
        from batchcorr.cli.sheets import read_sheet, require_unique
        from batchcorr.cli.table_records import read_record
        from batchcorr.cli.tables import read_table, to_numbers

        path, table = self.path, read_table(self.path, self.given)
        candidates = {*table.rows, *table.columns}
        names = candidates | {*sample_names(table.columns)}
        known = read_sheet(sheet, self.given, self.column, names)
        if not candidates & set(known.index):
            known = renamed_as_in(path, known, candidates)
        if not candidates & set(known.index):  # samples are named by their BAM files
            table = table._replace(columns=sample_names(table.columns))
        table, annotation = set_apart(path, table, set(known.index))
        in_columns = samples_in_columns(path, table, sheet, set(known.index))
        samples, features = table.columns, table.rows
        if not in_columns:
            samples, features = features, samples
        require_unique(samples, "samples", path)
        obs = labels_of(path, samples, sheet, known)
        table = to_numbers(path, table)
        data = TableData(
            np.ascontiguousarray(table.cells.T if in_columns else table.cells),
            obs=obs,
            var=annotation.astype(str) if in_columns else pd.DataFrame(index=features),
        )
        record = read_record(path, samples, data.X)
        if record is not None:
            records.write(data, records.key_of(), record)
        return data, Layout(in_columns, table.style)


def save(
    adata: AnnData | TableData,
    target: Path,
    layout: Layout | None,
    *,
    layer: str | None = None,
    compress: bool = False,
) -> None:
    """Write a file, whole or not at all; a table gets X, or a layer.

    It is written as the table that was read, else as features × samples; how its
    values were made goes into a file beside it.
    """
    if target.suffix.lower() in ANNDATA:
        from batchcorr.cli.writing import write_anndata

        whole = adata.to_anndata() if isinstance(adata, TableData) else adata
        write_anndata(whole, target, compress=compress)
        return
    from batchcorr._anndata import records
    from batchcorr._files.atomic import replacing
    from batchcorr.cli.dialects import Style
    from batchcorr.cli.table_records import record_of, record_path
    from batchcorr.cli.table_writing import write_table
    from batchcorr.cli.tables import Table

    cells = adata.X if layer is None else adata.layers[layer]
    rows, columns = list(adata.obs_names), list(adata.var_names)
    record = records.read(adata, records.key_of(layer)) or {}
    text = record_of(record, rows, cells)
    in_columns, style = layout or Layout(in_columns=True, style=Style("\t"))
    if in_columns:
        rows, columns, cells = columns, rows, cells.T
    with replacing(record_path(target)) as part:
        part.write_text(text, "utf-8")
        write_table(target, Table(rows, columns, cells, style))
