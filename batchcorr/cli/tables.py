"""Read tables as R and spreadsheets write them: a header, and names in the first column.

    ,s1,s2
    g1,0.5,NA

The corner may be empty, have a name, or be left out as R's `write.table` does; the header
then is one field short. NA, NaN, #N/A and nothing are missing values; blanks around names
and rows without anything are dropped. Numbers are read without a loss.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.cli.dialects import (
    SEPARATORS,
    TABLE_ENDS,
    Given,
    Start,
    Style,
    open_text,
    read_start,
)
from batchcorr.cli.files import ending
from batchcorr.cli.reading import reading
from batchcorr.errors import FileError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__all__ = ["Table", "is_number", "read_table", "read_texts", "to_numbers"]

MISSING = ["", "NA", "NaN", "nan", "#N/A", "N/A", "n/a", "<NA>", "null", "NULL"]
NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
COMMA = re.compile(r"\s*[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?\s*")
THOUSANDS = re.compile(r"\s*[+-]?[1-9][0-9]{0,2},[0-9]{3}\s*")
MARK = "="
"""Put before names while pandas reads, so that one such as NA is not missing."""


class Table(NamedTuple):
    """Names of rows and columns, and what is in the cells."""

    rows: list[str]
    columns: list[str]
    cells: Any
    style: Style


def read_table(path: Path, given: Given = Given()) -> Table:
    """Read names, and a frame whose columns are numbers, or texts where some are none.

    Raises
    ------
    FileError
        If the file is no table, or rows differ in length.
    """
    table = _read(path, given.separator, numbers=True, decimal=given.decimal or ".")
    if given.decimal is None and table.style.separator != ",":
        texts = [cell for cell in _texts(table.cells) if "," in cell]
        if texts and all(map(COMMA.fullmatch, texts)):
            if all(map(THOUSANDS.fullmatch, texts)):
                msg = (
                    f"{path} contains {texts[0]!r}, in which the comma may be a "
                    "decimal mark or a thousands separator: give --decimal , if it is "
                    "a decimal mark, otherwise write numbers without commas."
                )
                raise InputError(msg)
            return _read(path, given.separator, numbers=True, decimal=",")
    return table


def to_numbers(path: Path, table: Table) -> Table:
    """A table that was read with its cells as one matrix of numbers."""
    frame = table.cells.copy()
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in "iuf":
            frame.isetitem(place, _as_numbers(path, table, place))
    cells = frame.to_numpy()
    if cells.dtype != np.int64:
        cells = cells.astype(np.float64, copy=False)
    return table._replace(cells=cells)


def read_texts(path: Path, given: Given = Given()) -> Table:
    """Read a table as a frame of texts, None where there is none."""
    separator = given.separator
    if separator and len(read_start(path, separator).header) < 2:
        separator = None  # that of the other table
    table = _read(path, separator, numbers=False, decimal=given.decimal or ".")
    frame = table.cells.set_axis(table.columns, axis=1).set_axis(table.rows, axis=0)
    frame = frame.apply(lambda column: column.str.strip()).astype(object)
    return table._replace(cells=frame.mask(frame.isin(MISSING), None))


def is_number(text: str, decimal: str = ".") -> bool:
    """Whether a cell holds a number with this decimal mark, and no other."""
    if decimal != ".":
        text = text.replace(".", "|").replace(decimal, ".")
    return bool(NUMBER.fullmatch(text))


def _read(path: Path, separator: str | None, *, numbers: bool, decimal: str) -> Table:
    """Read names, and a frame of cells: as pandas takes them, or texts."""
    import pandas as pd

    kinds: dict[str, Any] = {"dtype": str, "na_filter": False}
    if numbers:
        kinds = {"keep_default_na": False, "na_values": MISSING, "decimal": decimal}
        kinds["converters"] = {0: MARK.__add__}
        if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
            kinds["float_precision"] = "round_trip"  # what newer ones do unasked
    with reading(path, "table of text in UTF-8 (or UTF-16)"):
        start = read_start(path, separator)
        frame = _frame(path, start, **kinds)
        last = frame.iloc[:, -1]
        if last.dtype.kind == "O" or last.isna().any():  # empty, or not there
            _require_even(path, start)
        names = frame.iloc[:, 0].str.removeprefix(MARK) if numbers else frame.iloc[:, 0]
        empty = _empty_rows(frame, names)
        if empty.any():
            whole = int(np.flatnonzero(~empty).max(initial=-1)) + 1
            if numbers and empty[whole:].all():  # integers were read as numbers
                frame = _frame(path, start, nrows=whole, **kinds) if whole else frame
            names, frame = names[: len(frame)], frame[~empty[: len(frame)]]
            names = names[~empty[: len(names)]]
        if not len(frame):
            msg = f"{path} has no row after its header."
            raise FileError(msg)
    return _named(path, start, names.str.strip().tolist(), frame, decimal)


def _frame(path: Path, start: Start, **kinds: Any) -> pd.DataFrame:
    """The lines after the header, as pandas reads them."""
    import pandas as pd

    with open_text(path) as file:
        for _ in range(start.skipped + 1):
            file.readline()
        try:
            frame: pd.DataFrame = pd.read_csv(
                file, sep=start.separator, header=None, **kinds
            )
            return frame
        except pd.errors.EmptyDataError as error:
            msg = f"{path} has no row after its header."
            raise FileError(msg) from error
        except pd.errors.ParserError:
            _require_even(path, start)
            raise


def _empty_rows(frame: pd.DataFrame, names: pd.Series) -> Any:
    """Which rows hold nothing, as at the end of spreadsheets and series matrices."""
    unnamed = (names.str.strip().isin(["", TABLE_ENDS])).to_numpy(copy=True)
    for place in np.flatnonzero(unnamed):
        cells = frame.iloc[place].tolist()[1:]
        unnamed[place] = all(cell != cell or cell == "" for cell in cells)  # noqa: PLR0124
    return unnamed


def _named(
    path: Path, start: Start, rows: list[str], frame: pd.DataFrame, decimal: str
) -> Table:
    """Put names to columns and rows: cells tell whether the header has a corner."""
    header = start.header
    corner = header[0] if len(header) == frame.shape[1] else None
    style = Style(start.separator, corner, decimal, ending(path))
    columns = header if corner is None else header[1:]
    if len(columns) != frame.shape[1] - 1 or (not columns):
        how = SEPARATORS.get(start.separator, repr(start.separator))
        msg = (
            f"{path} has {len(header)} fields in its header and {frame.shape[1]} in "
            f"its next line, if {how} separate them: a table must have a header and a "
            "first column of names, as written by R's write.csv and write.table. Give "
            "another separator with --sep, or a decimal comma with --decimal ,."
        )
        raise FileError(msg)
    cells = frame.iloc[:, 1:]
    unnamed = [k for k, name in enumerate(columns) if not name]
    nothing = [k for k in unnamed if _is_empty(cells.iloc[:, k])]
    if nothing:
        kept = [k for k in range(len(columns)) if k not in set(nothing)]
        columns, cells = [columns[k] for k in kept], cells.iloc[:, kept]
    for what, names in (("row", rows), ("column", columns)):
        if "" in names:
            msg = f"{path} has a {what} without a name: number {names.index('') + 1}."
            raise FileError(msg)
        over = [n for n in names if start.separator in n and ("\n" in n or "\r" in n)]
        if over:
            msg = (
                f"{path} has a quote that is not closed in its line, before "
                f"{over[0].splitlines()[0]!r}: close it, or leave it out."
            )
            raise FileError(msg)
    return Table(rows, columns, cells, style)


def _is_empty(column: pd.Series) -> bool:
    return bool((column.isna() | column.isin(["", " "])).all())


def _require_even(path: Path, start: Start) -> None:
    """Refuse rows of different lengths, which pandas would fill up."""
    with open_text(path) as file:
        for _ in range(start.skipped + 1):
            file.readline()
        lines = csv.reader(file, delimiter=start.separator)
        fields = 0
        for line in lines:
            fields = fields or len(line)
            if any(line) and len(line) != fields and line != [TABLE_ENDS]:
                number = lines.line_num + start.skipped + 1
                msg = (
                    f"{path} is damaged or incomplete: line {number} has "
                    f"{len(line)} fields, and those before have {fields}."
                )
                raise FileError(msg)


def _texts(frame: pd.DataFrame) -> list[str]:
    """The texts among the cells of a frame."""
    places = (k for k, kind in enumerate(frame.dtypes) if kind.kind not in "iuf")
    cells = (cell for place in places for cell in frame.iloc[:, place].tolist())
    return [cell for cell in cells if isinstance(cell, str)]


def _as_numbers(path: Path, table: Table, place: int) -> list[float]:
    """A column that pandas took for texts as numbers; what is none is an error."""
    numbers, decimal = [], table.style.decimal
    for row, cell in zip(table.rows, table.cells.iloc[:, place], strict=True):
        text = "NA" if cell != cell else str(cell)  # noqa: PLR0124 - NaN
        missing = text.strip() in MISSING
        if not missing and not is_number(text, decimal):
            msg = (
                f"{path} contains {text!r} in row {row!r}, column "
                f"{table.columns[place]!r}, which is not a number. Cells must be "
                "numbers, or NA or empty if a value is missing; leave out rows and "
                "columns with other content"
            )
            comma = "," in text or decimal == ","
            raise InputError(msg + (" (and see --decimal)." if comma else "."))
        numbers.append(float("nan" if missing else text.replace(decimal, ".")))
    return numbers
