"""How a table of text is written: what stands before it, separators, decimal mark.

People's tables begin with comments (featureCounts), with the description of a series
(GEO), or with Excel's mark of a byte order; they separate fields by commas, tabs or
semicolons. What the first lines leave open is an error that names the option.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TextIO, cast

import typer

from batchcorr.cli.files import TABLES, ending
from batchcorr.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SEPARATORS", "Given", "Start", "Style", "open_text", "read_start", "split"]

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "single spaces"}
NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "space": " "}

CANDIDATES = {".csv": ",;\t", ".tsv": "\t", ".txt": "\t;, "}
"""What may separate the fields of a file with this ending, the likeliest first."""

LOOKED_AT = 20
"""Lines that tell the separator."""

TABLE_BEGINS, TABLE_ENDS = "!series_matrix_table_begin", "!series_matrix_table_end"


class Given(NamedTuple):
    """What the options say of tables; None is found from their first lines."""

    separator: str | None = None
    decimal: str | None = None

    @classmethod
    def of_options(cls, separator: str | None, decimal: str | None) -> Given:
        """What --sep and --decimal say."""
        if separator is not None:
            separator = NAMES.get(separator.lower(), separator)
            if len(separator) != 1 or separator.isalnum() or separator in "\"'.\r\n":
                msg = "give one character, or tab, comma, semicolon or space."
                raise typer.BadParameter(msg, param_hint="--sep")
        if decimal not in {None, ".", ","}:
            msg = "the decimal mark is . or ,"
            raise typer.BadParameter(msg, param_hint="--decimal")
        if separator == decimal == ",":
            msg = "a comma cannot separate both fields and decimals."
            raise typer.BadParameter(msg, param_hint="--decimal")
        return cls(separator, decimal)


class Style(NamedTuple):
    """How a table is written.

    Attributes
    ----------
    separator
        What separates its fields.
    corner
        What the first field of the header is; None if it is left out.
    decimal
        The decimal mark.
    ending
        That of the file it was read from.
    """

    separator: str
    corner: str | None = ""
    decimal: str = "."
    ending: str = ""

    def for_file(self, path: Path) -> Style:
        """The same style for a file, whose ending may ask for another separator."""
        kind = ending(path)
        usual = TABLES[kind] or (self.separator if self.separator in "\t " else "\t")
        separator = self.separator if kind == self.ending else usual
        decimal = "." if separator == "," else self.decimal
        return self._replace(separator=separator, decimal=decimal, ending=kind)


class Start(NamedTuple):
    """The lines before the header, the header, and what separates its fields."""

    skipped: int
    header: list[str]
    separator: str
    is_series: bool


def open_text(path: Path) -> TextIO:
    """Open a text file to read: UTF-8, or UTF-16 as Excel's "Unicode text"."""
    packed = path.suffix.lower() == ".gz"
    raw = gzip.GzipFile(path) if packed else path.open("rb")
    is_wide = raw.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
    raw.seek(0)
    return io.TextIOWrapper(
        cast("BinaryIO", raw), "utf-16" if is_wide else "utf-8-sig", newline=""
    )


def read_start(path: Path, given: str | None) -> Start:
    """Find where a table begins and what separates its fields.

    Raises
    ------
    FileError
        If there is no table, or if the separator cannot be told.
    """
    with open_text(path) as file:
        skipped, lines = _before(path, file)
        is_series = bool(skipped) and skipped[-1].startswith(TABLE_BEGINS)
        while len(lines) < LOOKED_AT and (line := file.readline()):
            lines.append(line)
    if skipped and skipped[0].lower().startswith("sep="):  # written for Excel
        given = given or skipped[0].strip()[4:5]
    marks = given or CANDIDATES[ending(path)]
    if (
        skipped
        and skipped[-1].startswith("#")
        and _is_header(skipped[-1], lines, marks)
    ):
        lines = [skipped.pop(), *lines]
    if not any(line.strip() for line in lines):
        msg = f"{path} has no row after its header."
        raise FileError(msg)
    separator = given or _separator(path, lines)
    header = [name.strip() for name in split(lines[0], separator)]
    return Start(len(skipped), header, separator, is_series)


def _before(path: Path, file: TextIO) -> tuple[list[str], list[str]]:
    """The lines before the header, and the header in a list."""
    skipped: list[str] = []
    while line := file.readline():
        if line.startswith(TABLE_BEGINS):
            return [*skipped, line], []
        comment = line.startswith(("#", "!")) or line.lower().startswith("sep=")
        if line.strip() and not comment:
            return skipped, [line]
        skipped.append(line)
    if any(line.startswith("!") for line in skipped):
        msg = (
            f"{path} is a GEO file without a table of values: use the series matrix "
            "file of arrays, or for sequencing the counts in the supplementary files."
        )
        raise FileError(msg)
    return skipped[:-1], skipped[-1:]


def _separator(path: Path, lines: list[str]) -> str:
    """What separates the fields of the first lines, if it can be told."""
    usual = CANDIDATES[ending(path)]
    found = [mark for mark in usual if len(split(lines[0], mark)) > 1]
    if len(found) > 1 and "\t" not in found[:1]:
        even = [mark for mark in found if _is_even(lines, mark)]
        if len(even) != 1:
            marks = " and by ".join(SEPARATORS[mark] for mark in found)
            msg = (
                f"{path} could be separated by {marks}: give the separator with --sep, "
                "and --decimal , if numbers have a decimal comma."
            )
            raise FileError(msg)
        found = even
    return found[0] if found else usual[0]


def _is_even(lines: list[str], separator: str) -> bool:
    """Whether all lines but the header have as many fields, and the header fits."""
    lengths = {len(split(line, separator)) for line in lines[1:] if line.strip()}
    header = len(split(lines[0], separator))
    return len(lengths) == 1 and lengths <= {header, header + 1}


def _is_header(comment: str, lines: list[str], marks: str) -> bool:
    """Whether a line that begins with # has as many fields as the next one."""
    fields = [(len(split(comment, mark)), len(split(lines[0], mark))) for mark in marks]
    return any(first == second > 1 for first, second in fields)


def split(line: str, separator: str) -> list[str]:
    """The fields of one line."""
    return next(csv.reader([line], delimiter=separator), [])
