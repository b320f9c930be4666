"""Tables as R and spreadsheets write them: a header, and names in the first column.

    ,s1,s2
    g1,0.5,NA

The corner may be empty, have a name, or be left out as R's `write.table` does; the header
then is one field short. The ending tells what separates fields, and .gz what is packed.
NA, NaN and nothing are missing values. Numbers are read and written without a loss.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from batchcorr._files.atomic import replacing
from batchcorr.cli.console import working
from batchcorr.cli.files import TABLES, ending, reading, writing
from batchcorr.cli.interrupt import interruptible
from batchcorr.errors import FileError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

__all__ = ["Style", "Table", "read_numbers", "read_texts", "write_table"]

MISSING = ["", "NA", "NaN", "nan"]
NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
MARK = "="
"""Put before names while pandas reads, so that one such as NA is not missing."""

SEPARATORS = {",": "commas", "\t": "tabs", " ": "single spaces"}
PACKING = 4
"""Level of gzip: a third of the time of 6, and 2 % larger."""

BLOCK = 2**22
"""Values of a sparse matrix that are made dense at a time."""


class Style(NamedTuple):
    """How a table is written: what separates fields; its corner, None if left out."""

    separator: str
    corner: str | None = ""


class Table(NamedTuple):
    """Names of rows and columns, and what is in the cells."""

    rows: list[str]
    columns: list[str]
    cells: Any
    style: Style


def read_numbers(path: Path) -> Table:
    """Read a table whose cells are numbers: all integers, or all float64.

    Raises
    ------
    FileError
        If the file is no table, or rows differ in length.
    InputError
        If a cell holds something else; the message names it.
    """
    table = _read(path, numbers=True)
    frame = table.cells
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in "iuf":
            frame.isetitem(place, _as_numbers(path, table, place))
    cells = frame.to_numpy()
    if cells.dtype != np.int64:
        cells = cells.astype(np.float64, copy=False)
    return table._replace(cells=cells)


def read_texts(path: Path) -> Table:
    """Read a table as a frame of texts, None where there is none."""
    table = _read(path, numbers=False)
    frame = table.cells.set_axis(table.columns, axis=1).set_axis(table.rows, axis=0)
    return table._replace(cells=frame.astype(object).mask(frame.isin(MISSING), None))


def write_table(path: Path, table: Table) -> None:
    """Write a table, whole or not at all; its cells may be a sparse matrix."""
    with (
        working(f"Writing {path}"),
        writing(path),
        replacing(path) as part,
        interruptible(),
        _create(part, packed=path.suffix.lower() == ".gz") as file,
    ):
        separator, corner = table.style
        spaced = separator if separator in "\t " else "\t"
        separator = TABLES[ending(path)] or spaced
        special = '"\r\n' + (separator if TABLES[ending(path)] else "\t #'")
        names = [*([] if corner is None else [corner]), *table.columns]
        file.write(separator.join(_quoted(name, special) for name in names) + "\n")
        for name, cells in zip(table.rows, _lines(table.cells), strict=True):
            fields = _quoted(name, special), *map(str, cells)
            file.write(separator.join(fields) + "\n")


def _read(path: Path, *, numbers: bool) -> Table:
    """Read names, and a frame of cells: as pandas takes them, or texts."""
    import pandas as pd

    kinds: dict[str, Any] = {"dtype": str, "na_filter": False}
    if numbers:
        kinds = {"keep_default_na": False, "na_values": MISSING}
        kinds["converters"] = {0: MARK.__add__}
        if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
            kinds["float_precision"] = "round_trip"  # what newer ones do unasked
    with reading(path, "table of text in UTF-8"), _open(path) as file:
        first = file.readline()
        separator = TABLES[ending(path)] or ("\t" if "\t" in first else " ")
        header = next(csv.reader([first], delimiter=separator), [])
        try:
            frame = pd.read_csv(file, sep=separator, header=None, **kinds)
        except pd.errors.EmptyDataError as error:
            msg = f"{path} holds no row after its header."
            raise FileError(msg) from error
        except pd.errors.ParserError:
            _require_even(path, separator)
            raise
    last = frame.iloc[:, -1]
    if last.dtype.kind == "O" or last.isna().any():  # empty, or not there
        with reading(path, "table"):
            _require_even(path, separator)
    rows = frame.iloc[:, 0].str.removeprefix(MARK) if numbers else frame.iloc[:, 0]
    return _named(path, header, rows.tolist(), frame, separator)


def _named(
    path: Path,
    header: list[str],
    rows: list[str],
    frame: pd.DataFrame,
    separator: str,
) -> Table:
    """Put names to columns and rows: cells tell whether the header has a corner."""
    style = Style(separator, header[0] if len(header) == frame.shape[1] else None)
    columns = header if style.corner is None else header[1:]
    if len(columns) != frame.shape[1] - 1 or (not columns):
        msg = (
            f"{path} has {len(header)} fields in its header and {frame.shape[1]} in its "
            f"next line, if {SEPARATORS[separator]} separate them: a table has a header "
            "and a first column of names, as R's write.csv and write.table write it "
            "(and write.csv2 does not)."
        )
        raise FileError(msg)
    for what, names in (("row", rows), ("column", columns)):
        if "" in names:
            msg = f"{path} has a {what} without a name: number {names.index('') + 1}."
            raise FileError(msg)
        over = [n for n in names if separator in n and ("\n" in n or "\r" in n)]
        if over:
            msg = (
                f"{path} has a quote that is not closed in its line, before "
                f"{over[0].splitlines()[0]!r}: close it, or leave it out."
            )
            raise FileError(msg)
    return Table(rows, columns, frame.iloc[:, 1:], style)


def _require_even(path: Path, separator: str) -> None:
    """Refuse rows of different lengths, which pandas would fill up."""
    with _open(path) as file:
        lines = csv.reader(file, delimiter=separator)
        next(lines)
        fields = 0
        for line in lines:
            fields = fields or len(line)
            if line and len(line) != fields:
                msg = (
                    f"{path} is damaged or incomplete: line {lines.line_num} has "
                    f"{len(line)} fields, and those before have {fields}."
                )
                raise FileError(msg)


def _as_numbers(path: Path, table: Table, place: int) -> list[float]:
    """Return a column that pandas took for texts as numbers, or say what is none."""
    numbers = []
    for row, cell in zip(table.rows, table.cells.iloc[:, place], strict=True):
        text = "NA" if cell != cell else str(cell)  # noqa: PLR0124 - NaN
        if text != "NA" and not NUMBER.fullmatch(text):
            msg = (
                f"{path} holds {text!r} in row {row!r}, column {table.columns[place]!r}, "
                "which is no number. Cells of a table are numbers, or NA or nothing "
                "where a value is missing; leave out rows and columns of other things."
            )
            raise InputError(msg)
        numbers.append(float("nan" if text == "NA" else text))
    return numbers


def _quoted(name: str, special: str) -> str:
    """Quote a name that would be misread, in a .txt by R's `read.table`."""
    if not set(name) & set(special):
        return name
    return '"' + name.replace('"', '""') + '"'


def _lines(cells: Any) -> Iterator[list[Any]]:
    """Return row by row what is written: Python's numbers, NA for missing ones."""
    sparse = hasattr(cells, "tocsr")
    cells = cells.tocsr() if sparse else cells
    step = max(BLOCK // max(cells.shape[1], 1), 1)
    for start in range(0, cells.shape[0], step):
        block = cells[start : start + step]
        for row in block.toarray() if sparse else block:
            if row.dtype.kind == "f" and np.isnan(row).any():
                yield ["NA" if cell != cell else cell for cell in row.tolist()]  # noqa: PLR0124
            else:
                yield row.tolist()


def _open(path: Path) -> TextIO:
    """Open a table to read; a mark of the byte order, as Excel writes it, is skipped."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


@contextmanager
def _create(path: Path, *, packed: bool) -> Iterator[TextIO]:
    """Open a table to write; what is packed does not know its passing name."""
    with path.open("wb") as file:
        if not packed:
            with io.TextIOWrapper(file, "utf-8", newline="") as text:
                yield text
            return
        with (
            gzip.GzipFile("", "wb", compresslevel=PACKING, fileobj=file) as packer,
            io.TextIOWrapper(packer, "utf-8", newline="") as text,
        ):
            yield text
