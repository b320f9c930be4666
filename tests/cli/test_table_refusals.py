"""Tables that are refused: one line that names the place, and nothing left."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

from batchcorr.errors import FileError
from tests.cli.commands import (
    KEEP,
    SHEET,
    make_samples,
    names_in,
    put,
    read_numbers,
    refused,
)


def test_a_quote_that_swallows_lines_is_refused(tmp_path):
    text = 'g\ts1\ts2\na\t1\t2\n"b\t3\t4\nc\t5\t6\n"d\t7\t8\ne\t9\t9\n'
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(FileError, match="quote that is not closed in its line"):
        read_numbers(tmp_path / "t.tsv")


@pytest.mark.usefixtures("tables")
def test_logarithms_of_counts_are_none_for_a_method_of_counts():
    said = refused(
        "correct", "in.csv", "o.csv", *SHEET, "--batch", "day", "--log-normalize",
        "--method", "combat_seq", code=2,
    )  # fmt: skip
    assert "combat_seq corrects raw counts" in said


def edit(name, old, new, count=1):
    """Return what changes a text file; the text must be there."""

    def change(tables):
        text = (tables / name).read_text()
        assert old in text
        (tables / name).write_text(text.replace(old, new, count))

    return change


def rows_named_as_columns(tables):
    adata = make_samples()[:, :24].copy()
    adata.var_names = adata.obs_names[::-1]
    put(tables / "in.csv", adata)


REFUSED = {
    "no number": (
        lambda tables: put(tables / "in.csv", make_samples(), x=np.where(np.arange(720).reshape(24, 30) == 31, "low", make_samples().X)),
        r"in\.csv contains 'low' in row 'g1', column 's \d+', which is not a number",
    ),
    "a comma for a point": (
        edit("in.csv", "\ng1,", '\ng1,"1,5",', 1),
        r"line 3 has 26 fields, and those before have 25",
    ),
    "a column of words": (
        lambda tables: put(tables / "in.csv", make_samples(), x=np.where(np.arange(24)[:, None] == 3, "TRUE", make_samples().X)),
        r"contains '?True'? in row 'g0', column 's \d+'",
    ),
    "cut": (
        lambda tables: (tables / "in.csv").write_bytes((tables / "in.csv").read_bytes()[:-60]),
        r"in\.csv is damaged or incomplete: line 31 has \d+ fields",
    ),
    "cut sheet": (
        edit("sheet.csv", ",b,", ",", 1),
        r"sheet\.csv is damaged or incomplete: line \d+ has 3 fields",
    ),
    "other separator": (
        edit("in.csv", ",", "|", -1),
        r"in\.csv has 1 fields in its header and 1 in its next line.* with --sep",
    ),
    "header only": (
        lambda tables: (tables / "in.csv").write_text("g,s1\n"),
        r"in\.csv has no row after its header",
    ),
    "empty": (
        lambda tables: (tables / "in.csv").write_text(""),
        r"in\.csv has no row after its header",
    ),
    "no text": (
        lambda tables: (tables / "in.csv").write_bytes(b"\xff\xfe\x00a,b\n" * 9),
        r"in\.csv cannot be read: it is no table of text",
    ),
    "an open quote": (
        edit("in.csv", "\ng7,", '\n"g7,'),
        r"in\.csv is damaged or incomplete: line 31",
    ),
    "no name": (
        edit("in.csv", "\ng7,", "\n,"),
        r"in\.csv has a row without a name: number 8",
    ),
    "sample twice": (
        edit("in.csv", make_samples().obs_names[3] + ",", make_samples().obs_names[4] + ","),
        r"in\.csv has samples of the same name: 's \d+'\. Names must differ",
    ),
    "sheet twice": (
        edit("sheet.csv", make_samples().obs_names[3] + ",", make_samples().obs_names[4] + ","),
        r"sheet\.csv has samples of the same name: 's \d+'",
    ),
    "column twice": (
        edit("sheet.csv", "group", "day"),
        r"sheet\.csv has columns of the same name: 'day'",
    ),
    "samples missing": (
        lambda tables: make_samples().obs.iloc[2:].to_csv(tables / "sheet.csv"),
        r"2 of 24 samples of in\.csv are not in sheet\.csv: 's \d+', 's \d+'\. It has",
    ),
    "no name known": (
        edit("sheet.csv", "s ", "t ", -1),
        r"Neither columns nor rows .* Columns: 's \d+', .*; rows: 'g0', .* sheet: 't ",
    ),
    "both sides known": (
        rows_named_as_columns,
        r"24 of 24 columns \('s .*\) and 24 of 24 rows \('s .*\) of in\.csv have names",
    ),
    "a label missing": (
        edit("sheet.csv", ",10,", ",,"),
        r"batch.*missing",
    ),
    "no such column": (
        edit("sheet.csv", "day", "dya"),
        r"'day' is not a column of sheet\.csv\. Did you mean 'dya'",
    ),
    "no file": (lambda tables: (tables / "in.csv").unlink(), r"no file in\.csv"),
    "no sheet": (lambda tables: (tables / "sheet.csv").unlink(), r"no file sheet\.csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_one_line_and_leave_nothing(tables, name):
    change, match = REFUSED[name]
    change(tables)
    before = {path: path.stat().st_mtime_ns for path in tables.iterdir()}
    line = refused("correct", "in.csv", "out.csv", *SHEET, *KEEP)
    assert re.search(match, line), line
    assert {path: path.stat().st_mtime_ns for path in tables.iterdir()} == before


def test_both_sides_partly_known_is_an_error(tables, adata):
    adata.var_names = [adata.obs_names[0], *adata.var_names[1:]]
    put(tables / "in.csv", adata)
    adata.obs.iloc[:9].to_csv(tables / "sheet.csv")
    line = refused("correct", "in.csv", "out.csv", *SHEET, *KEEP)
    assert "9 of 24 columns ('s " in line
    assert "and 1 of 30 rows ('s " in line


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"g,s 1\na,1\n" * 99, mtime=0)[:-20]]
)
def test_damaged_packed_tables_are_errors(tables, content):
    (tables / "in.csv.gz").write_bytes(content)
    line = refused("correct", "in.csv.gz", "out.csv", *SHEET, *KEEP)
    assert "in.csv.gz cannot be read: it is no table" in line


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["correct", "in.csv", "o.csv"], "--samples: in.csv is a table, which has no"),
        (["correct", "in.h5ad", "o.csv", *SHEET], "--samples: in.h5ad is an AnnData"),
        (["correct", "in.csv", "o.csv", "--samples", "in.h5ad"], "must end in .csv, .tsv or"),
        (["correct", "in.csv", "o.csv", *SHEET, "--memory", "1GiB"], "--memory: in.csv has"),
        (["correct", "in.h5ad", "o.csv", "--memory", "1GiB"], "--memory: o.csv has only one matrix"),
        (["correct", "in.h5ad", "o.csv", "--scheduler", "threads"], "--scheduler: o.csv"),
        (["correct", "in.csv", "o.csv", *SHEET, "--layer", "x"], "--layer: in.csv has only one m"),
        (["correct", "in.h5ad", "o.csv", "--key-added", "x"], "--key-added: o.csv has only one m"),
        (["correct", "in.h5ad", "o.csv", "--compress"], "--compress: .*such as o.csv.gz"),
        (["correct", "in.h5ad.gz", "o.csv"], r"in.h5ad.gz must end in .h5ad, .*also .gz"),
        (["fit", "in.csv", "c.npz", *SHEET, "--layer", "x"], "--layer: in.csv has only one m"),
        (["apply", "c.npz", "in.csv", "o.csv"], "--samples: in.csv is a table"),
        (["demo", "--output", "o.csv"], "must end in .h5ad or .zarr: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(tables, arguments, match):
    before = names_in(tables)
    more = [] if arguments[0] in {"demo", "apply"} else ["--batch", "day"]
    said = refused(*arguments, *more, code=2)
    assert re.search(match, said), said
    assert names_in(tables) == before


@pytest.mark.usefixtures("tables")
def test_the_sheet_is_not_overwritten():
    line = refused("correct", "in.csv", "sheet.csv", *SHEET, *KEEP, "--force")
    assert "sheet.csv is also the input" in line
