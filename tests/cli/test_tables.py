"""Tables on the command line: the same numbers as an AnnData, and no guess at shapes."""

from __future__ import annotations

import csv
import gzip
import re
import signal
import time

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr._anndata.matrices import read_record
from batchcorr.cli.samples import open_data
from batchcorr.cli.tables import Style, Table, read_numbers, read_texts, write_table
from batchcorr.errors import BatchCorrWarning, FileError
from tests.cli.test_commands import (
    LIMITED,
    done,
    names_in,
    needs_posix,
    read,
    refused,
    shell,
)

KEEP = ["--batch", "day", "--covariate", "group"]
SHEET = ["--samples", "sheet.csv"]


def make():
    """Values with every digit in use, labels of both kinds, samples in no order."""
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(
        rng.normal(8, 2, (24, 30)) / 3,
        obs=pd.DataFrame(
            {"day": [1, 2, 10] * 8, "group": np.resize(list("abba"), 24)},
            index=[f"s {i}" for i in rng.permutation(24)],
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(30)]),
    )
    adata.obs["age"] = np.linspace(20, 80, 24)[rng.permutation(24)]
    return adata


def put(path, adata, *, x=None, in_columns=True, quote=csv.QUOTE_MINIMAL, r=False):
    """Write a table as pandas does, or as R's write.table, which leaves the corner out."""
    x = adata.X if x is None else x
    frame = pd.DataFrame(x, adata.obs_names, adata.var_names)
    frame = frame.T if in_columns else frame
    separator = {"csv": ",", "tsv": "\t", "txt": " "}[path.name.split(".")[1]]
    text = frame.to_csv(sep=separator, quoting=quote, na_rep="NA")
    text = text.partition(separator)[2] if r else text
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


@pytest.fixture
def adata():
    return make()


@pytest.fixture
def folder(adata, tmp_path, monkeypatch):
    """A working folder with the same data as AnnData, and as table and sheet."""
    monkeypatch.chdir(tmp_path)
    adata.write_h5ad("in.h5ad")
    put(tmp_path / "in.csv", adata)
    adata.obs.iloc[::-1].to_csv("sheet.csv")
    return tmp_path


# -- the same numbers ------------------------------------------------------------------


@pytest.mark.parametrize("in_columns", [True, False], ids=["columns", "rows"])
@pytest.mark.parametrize("r", [True, False], ids=["no corner", "corner"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz", "t.txt.gz"])
def test_a_table_equals_the_anndata_to_the_last_bit(folder, adata, name, r, in_columns):
    quote = csv.QUOTE_MINIMAL if name.endswith("gz") else csv.QUOTE_NONNUMERIC
    put(folder / name, adata, in_columns=in_columns, quote=quote, r=r)
    said = done("correct", name, f"out_{name}", *SHEET, *KEEP)
    assert f"Wrote out_{name}: 24 samples × 30 features, X corrected" in said.stdout
    bc.pp.combat(adata, "day", covariates=["group"])
    put(folder / name, adata, in_columns=in_columns, r=r)
    found, wanted = (folder / f"out_{name}", folder / name)
    if name.endswith(".gz"):
        found, wanted = (gzip.decompress(path.read_bytes()) for path in (found, wanted))
    else:
        found, wanted = found.read_bytes(), wanted.read_bytes()
    assert found == wanted


@pytest.mark.parametrize(
    "x",
    [
        np.array([[0.1, 1 / 3], [1e-320, 1e308], [-0.0, 123456789.123456789]]),
        np.float32([[0.1, 1 / 3], [1e-40, 1e38], [-0.0, 16777217]]).astype(float),
        np.array([[1, 2], [3, 2**53 + 1], [-5, 0]]),
        np.array([[np.nan, 2], [np.nan, np.nan], [-5, 0.5]]),
    ],
    ids=["doubles", "floats", "integers", "missing"],
)
def test_numbers_are_written_and_read_without_a_loss(tmp_path, x):
    table = Table(["a", 'b "c", d', "NA"], ["1", "nan"], x, Style(",", "gene"))
    write_table(tmp_path / "t.csv", table)
    found = read_numbers(tmp_path / "t.csv")
    assert (found.rows, found.columns, found.style) == (
        table.rows,
        table.columns,
        table.style,
    )
    assert found.cells.dtype == x.dtype
    assert found.cells.tobytes() == x.tobytes()


def test_a_sparse_matrix_is_written_as_a_dense_one(tmp_path, monkeypatch):
    monkeypatch.setattr("batchcorr.cli.tables.BLOCK", 8)
    x = np.random.default_rng(0).poisson(0.5, (7, 3)).astype(float)
    rows, columns = list("abcdefg"), list("xyz")
    for name, cells in (("d.csv", x), ("s.csv", sp.csr_matrix(x)), ("c.csv", sp.csc_matrix(x))):  # fmt: skip
        write_table(tmp_path / name, Table(rows, columns, cells, Style(",")))
        np.testing.assert_array_equal(read_numbers(tmp_path / name).cells, x)


def test_between_tables_and_anndata(folder, adata):
    done("correct", "in.csv", "out.h5ad", *SHEET, *KEEP, "--key-added", "new")
    done("correct", "in.h5ad", "out.csv", *KEEP)
    bc.pp.combat(adata, "day", covariates=["group"], key_added="new")
    found = read(folder / "out.h5ad")
    np.testing.assert_array_equal(found.layers["new"], adata.layers["new"])
    np.testing.assert_array_equal(found.X, adata.X)
    assert read_record(found, "new")["batches"] == read_record(adata, "new")["batches"]
    pd.testing.assert_frame_equal(
        found.obs, adata.obs.astype({"group": "category"}), check_dtype=True
    )
    put(folder / "wanted.csv", adata, x=adata.layers["new"])
    assert (folder / "out.csv").read_bytes() == (folder / "wanted.csv").read_bytes()
    adata.layers["log"] = adata.X**2
    adata.write_h5ad("layers.h5ad")
    done("correct", "layers.h5ad", "out.tsv", *KEEP, "--layer", "log")
    bc.pp.combat(adata, "day", covariates=["group"], layer="log")
    np.testing.assert_array_equal(
        read_numbers(folder / "out.tsv").cells.T, adata.layers["log"]
    )


def test_fit_and_apply_equal_correct(folder, adata):
    done("correct", "in.csv", "whole.csv", *SHEET, *KEEP)
    done("fit", "in.csv", "c.npz", *SHEET, *KEEP)
    done("apply", "c.npz", "in.csv", "applied.csv", *SHEET)
    assert (folder / "whole.csv").read_bytes() == (folder / "applied.csv").read_bytes()
    put(folder / "few.tsv", adata[5:9, ::-1].copy(), in_columns=False)
    done("apply", "c.npz", "few.tsv", "few.csv", *SHEET)
    whole, few = read_numbers(folder / "whole.csv"), read_numbers(folder / "few.csv")
    assert (few.rows, few.columns) == (whole.columns[5:9], whole.rows[::-1])
    np.testing.assert_allclose(few.cells, whole.cells[::-1, 5:9].T, rtol=1e-13)


def test_moments_of_tables_equal_those_of_anndata(folder):
    common = ["--units", "log2", "--batch", "day", "--covariate", "group"]
    sheets = {"in.h5ad": [], "in.csv": SHEET}
    for name, sheet in sheets.items():
        done("schema", name, "-o", f"{name}.json", *common, *sheet)
    texts = [(folder / f"{name}.json").read_text() for name in sheets]
    assert texts[0] == texts[1]
    for name, sheet in sheets.items():
        line = refused(
            "moments", name, *sheet, "--schema", f"{name}.json", "-o", "m.npz"
        )
        assert "could give a person away" in line
    large = anndata.concat([make() for _ in range(3)], index_unique="-")
    large.X *= np.linspace(1, 2, 72)[:, None]
    large.write_h5ad("large.h5ad")
    put(folder / "large.csv", large)
    large.obs.to_csv("large_sheet.csv")
    schema = ["--schema", "in.csv.json"]
    done("moments", "large.h5ad", *schema, "-o", "a.npz")
    done("moments", "large.csv", *schema, "-o", "b.npz", "--samples", "large_sheet.csv")
    one, two = (bc.SiteMoments.load(f"{name}.npz").moments for name in "ab")
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.cross, two.cross)


@pytest.mark.parametrize("in_columns", [True, False])
def test_counts_stay_whole_numbers(folder, adata, in_columns):
    counts = np.random.default_rng(0).negative_binomial(5, 0.05, adata.shape)
    put(folder / "counts.tsv", adata, x=counts, in_columns=in_columns)
    done("correct", "counts.tsv", "out.tsv", *SHEET, *KEEP, "--method", "combat_seq")
    assert re.fullmatch(r"[gs 0-9\t\n]+", (folder / "out.tsv").read_text())
    adata.X = counts
    bc.pp.combat_seq(adata, "day", covariates=["group"])
    found = read_numbers(folder / "out.tsv").cells
    np.testing.assert_array_equal(found.T if in_columns else found, adata.X)
    assert not np.array_equal(adata.X, counts)


def test_missing_values_are_kept(folder, adata):
    adata.X[3, 4] = adata.X[7, -1] = np.nan
    put(folder / "holes.csv", adata)
    text = (folder / "holes.csv").read_text()
    assert text.count(",NA") == 2
    (folder / "holes.csv").write_text(text.replace(",NA", ",", 1))
    done("correct", "holes.csv", "out.csv", *SHEET, *KEEP)
    assert (folder / "out.csv").read_text().count(",NA") == 2
    bc.pp.combat(adata, "day", covariates=["group"])
    np.testing.assert_array_equal(read_numbers(folder / "out.csv").cells.T, adata.X)


# -- which side, and which sample --------------------------------------------------------


def test_labels_are_read_as_they_are_meant(tmp_path):
    (tmp_path / "sheet.tsv").write_text(
        "day\twell\tage\tid\tdrug\tsmoker\tbmi\n"
        "s1\t1\t01\t5e+01\t3\tNone\tTRUE\t21\n"
        "s2\t2\t2\t7.5\t-4\tNA\tFALSE\t\n"
    )
    (tmp_path / "t.csv").write_text("g,s2,s1\na,1,2\nb,3,4.5\n")
    adata, layout = open_data(tmp_path / "t.csv", tmp_path / "sheet.tsv")
    assert layout == (True, (",", "g"))
    assert list(adata.obs_names) == ["s2", "s1"]
    assert adata.obs["day"].tolist() == [2, 1]
    assert adata.obs["day"].dtype == np.int64
    assert adata.obs["well"].tolist() == ["2", "01"]
    assert adata.obs["age"].tolist() == [7.5, 50]
    assert adata.obs["id"].tolist() == [-4, 3]
    assert adata.obs["drug"].tolist() == [None, "None"]
    assert adata.obs["smoker"].tolist() == ["FALSE", "TRUE"]
    np.testing.assert_array_equal(adata.obs["bmi"], [np.nan, 21])
    np.testing.assert_array_equal(adata.X, [[1, 3], [2, 4.5]])


@pytest.mark.parametrize(
    "texts",
    [
        ["-", "3"],
        ["e5", "e6"],
        ["1E1", "10E0"],
        [".", "1"],
        ["12345678901234567890", "12345678901234567891"],
        ["1e", "2"],
    ],
    ids=lambda texts: texts[0],
)
def test_what_only_looks_like_a_number_is_a_label(tmp_path, texts):
    (tmp_path / "sheet.csv").write_text(f"n,well\ns1,{texts[0]}\ns2,{texts[1]}\n")
    (tmp_path / "t.csv").write_text("g,s1,s2\na,1,2\n")
    adata, _ = open_data(tmp_path / "t.csv", tmp_path / "sheet.csv")
    assert adata.obs["well"].tolist() == texts


def test_labels_that_are_one_number_are_pointed_out(tmp_path):
    (tmp_path / "sheet.csv").write_text("n,kit\ns1,1.1\ns2,1.10\n")
    (tmp_path / "t.csv").write_text("g,s1,s2\na,1,2\n")
    with pytest.warns(BatchCorrWarning, match="'kit' .* 1.1 and 1.10 are the same"):
        adata, _ = open_data(tmp_path / "t.csv", tmp_path / "sheet.csv")
    assert adata.obs["kit"].tolist() == [1.1, 1.1]


def test_an_empty_column_of_the_sheet_can_be_written(folder):
    sheet = (folder / "sheet.csv").read_text().splitlines()
    sheet = [sheet[0] + ",note", *(line + "," for line in sheet[1:])]
    (folder / "sheet.csv").write_text("\n".join(sheet) + "\n")
    done("correct", "in.csv", "out.h5ad", *SHEET, "--batch", "day")
    assert anndata.read_h5ad(folder / "out.h5ad").obs["note"].isna().all()


def test_names_that_r_would_misread_are_quoted(tmp_path):
    names = ["a", "#b", "3' end", 'c "d"', "e f"]
    cells = np.arange(10.0).reshape(5, 2)
    for name, first in (
        ("t.txt", 's1\ts2\na\t0.0\t1.0\n"#b"\t2.0\t3.0\n"3\' end"\t'),
        ("t.tsv", "s1\ts2\na\t0.0\t1.0\n#b\t2.0\t3.0\n3' end\t"),
        ("t.csv", "s1,s2\na,0.0,1.0\n#b,2.0,3.0\n3' end,"),
    ):
        write_table(
            tmp_path / name, Table(names, ["s1", "s2"], cells, Style(",", None))
        )
        assert (tmp_path / name).read_text().startswith(first)
        again = read_numbers(tmp_path / name)
        assert (again.rows, again.columns) == (names, ["s1", "s2"])
        np.testing.assert_array_equal(again.cells, cells)


def test_a_quote_that_swallows_lines_is_refused(tmp_path):
    text = 'g\ts1\ts2\na\t1\t2\n"b\t3\t4\nc\t5\t6\n"d\t7\t8\ne\t9\t9\n'
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(FileError, match="quote that is not closed in its line"):
        read_numbers(tmp_path / "t.tsv")


@pytest.mark.usefixtures("folder")
def test_logarithms_of_counts_are_none_for_a_method_of_counts():
    said = refused(
        "correct", "in.csv", "o.csv", *SHEET, "--batch", "day", "--log-normalize",
        "--method", "combat_seq", code=2,
    )  # fmt: skip
    assert "combat_seq corrects counts as they are" in said


def test_a_sheet_with_more_samples_warns(folder, adata):
    adata = adata[:20].copy()
    put(folder / "few.csv", adata)
    said = done("correct", "few.csv", "out.csv", *SHEET, *KEEP)
    assert re.match("Warning: 4 of 24 samples of sheet.csv are not in few.csv and are left out: 's ", said.stderr)  # fmt: skip
    bc.pp.combat(adata, "day", covariates=["group"])
    np.testing.assert_array_equal(read_numbers(folder / "out.csv").cells.T, adata.X)


def test_a_square_table_is_told_by_names(folder, adata):
    square = adata[:, :24].copy()
    for in_columns in (True, False):
        put(folder / "square.csv", square, in_columns=in_columns)
        found, layout = open_data(folder / "square.csv", folder / "sheet.csv")
        assert layout.in_columns is in_columns
        np.testing.assert_array_equal(found.X, square.X)


def edit(name, old, new, count=1):
    """Return what changes a text file; the text must be there."""

    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, count))

    return change


def rows_named_as_columns(folder):
    adata = make()[:, :24].copy()
    adata.var_names = adata.obs_names[::-1]
    put(folder / "in.csv", adata)


REFUSED = {
    "no number": (
        lambda folder: put(folder / "in.csv", make(), x=np.where(np.arange(720).reshape(24, 30) == 31, "low", make().X)),
        r"in\.csv holds 'low' in row 'g1', column 's \d+', which is no number",
    ),
    "a comma for a point": (
        edit("in.csv", "\ng1,", '\ng1,"1,5",', 1),
        r"line 3 has 26 fields, and those before have 25",
    ),
    "a column of words": (
        lambda folder: put(folder / "in.csv", make(), x=np.where(np.arange(24)[:, None] == 3, "TRUE", make().X)),
        r"holds '?True'? in row 'g0', column 's \d+'",
    ),
    "cut": (
        lambda folder: (folder / "in.csv").write_bytes((folder / "in.csv").read_bytes()[:-60]),
        r"in\.csv is damaged or incomplete: line 31 has \d+ fields",
    ),
    "cut sheet": (
        edit("sheet.csv", ",b,", ",", 1),
        r"sheet\.csv is damaged or incomplete: line \d+ has 3 fields",
    ),
    "other separator": (
        edit("in.csv", ",", ";", -1),
        r"in\.csv has 1 fields in its header and 1 in its next line, if commas sep",
    ),
    "header only": (
        lambda folder: (folder / "in.csv").write_text("g,s1\n"),
        r"in\.csv holds no row after its header",
    ),
    "empty": (
        lambda folder: (folder / "in.csv").write_text(""),
        r"in\.csv holds no row after its header",
    ),
    "no text": (
        lambda folder: (folder / "in.csv").write_bytes(b"\xff\xfe\x00a,b\n" * 9),
        r"in\.csv cannot be read: it is no table of text in UTF-8",
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
        edit("in.csv", make().obs_names[3] + ",", make().obs_names[4] + ","),
        r"in\.csv has samples of the same name: 's \d+'\. Names must differ",
    ),
    "sheet twice": (
        edit("sheet.csv", make().obs_names[3] + ",", make().obs_names[4] + ","),
        r"sheet\.csv has samples of the same name: 's \d+'",
    ),
    "column twice": (
        edit("sheet.csv", "group", "day"),
        r"sheet\.csv has columns of the same name: 'day'",
    ),
    "samples missing": (
        lambda folder: make().obs.iloc[2:].to_csv(folder / "sheet.csv"),
        r"2 of 24 samples of in\.csv are not in sheet\.csv: 's \d+', 's \d+'\. It has",
    ),
    "no name known": (
        edit("sheet.csv", "s ", "s.", -1),
        r"Neither columns nor rows .* Columns: 's \d+', .*; rows: 'g0', .* sheet: 's\.",
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
        r"'day' is not a column of obs \(or SHEET\)\. Did you mean 'dya'",
    ),
    "no file": (lambda folder: (folder / "in.csv").unlink(), r"no file in\.csv"),
    "no sheet": (lambda folder: (folder / "sheet.csv").unlink(), r"no file sheet\.csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_one_line_and_leave_nothing(folder, name):
    change, match = REFUSED[name]
    change(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    line = refused("correct", "in.csv", "out.csv", *SHEET, *KEEP)
    assert re.search(match, line), line
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_both_sides_partly_known_is_an_error(folder, adata):
    adata.var_names = [adata.obs_names[0], *adata.var_names[1:]]
    put(folder / "in.csv", adata)
    adata.obs.iloc[:9].to_csv(folder / "sheet.csv")
    line = refused("correct", "in.csv", "out.csv", *SHEET, *KEEP)
    assert "9 of 24 columns ('s " in line
    assert "and 1 of 30 rows ('s " in line


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"g,s 1\na,1\n" * 99, mtime=0)[:-20]]
)
def test_damaged_packed_tables_are_errors(folder, content):
    (folder / "in.csv.gz").write_bytes(content)
    line = refused("correct", "in.csv.gz", "out.csv", *SHEET, *KEEP)
    assert "in.csv.gz cannot be read: it is no table" in line


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["correct", "in.csv", "o.csv"], "--samples: in.csv is a table, which holds no"),
        (["correct", "in.h5ad", "o.csv", *SHEET], "--samples: in.h5ad is an AnnData"),
        (["correct", "in.csv", "o.csv", "--samples", "in.h5ad"], "must end in .csv or"),
        (["correct", "in.csv", "o.csv", *SHEET, "--memory", "1GiB"], "--memory: in.csv is"),
        (["correct", "in.h5ad", "o.csv", "--memory", "1GiB"], "--memory: o.csv is a table"),
        (["correct", "in.h5ad", "o.csv", "--scheduler", "threads"], "--scheduler: o.csv"),
        (["correct", "in.csv", "o.csv", *SHEET, "--layer", "x"], "--layer: in.csv is a t"),
        (["correct", "in.h5ad", "o.csv", "--key-added", "x"], "--key-added: o.csv is a t"),
        (["correct", "in.h5ad", "o.csv", "--compress"], "--compress: .*such as o.csv.gz"),
        (["correct", "in.h5ad.gz", "o.csv"], r"in.h5ad.gz must end in .h5ad or .*also .gz"),
        (["fit", "in.csv", "c.npz", *SHEET, "--layer", "x"], "--layer: in.csv is a table"),
        (["apply", "c.npz", "in.csv", "o.csv"], "--samples: in.csv is a table"),
        (["demo", "--output", "o.csv"], "must end in .h5ad or .zarr: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(folder, arguments, match):
    before = names_in(folder)
    more = [] if arguments[0] in {"demo", "apply"} else ["--batch", "day"]
    said = refused(*arguments, *more, code=2)
    assert re.search(match, said), said
    assert names_in(folder) == before


@pytest.mark.usefixtures("folder")
def test_the_sheet_is_not_overwritten():
    line = refused("correct", "in.csv", "sheet.csv", *SHEET, *KEEP, "--force")
    assert "sheet.csv is the input itself" in line


# -- nothing is half written -------------------------------------------------------------


@needs_posix
@pytest.mark.parametrize("target", ["out.csv", "out.tsv.gz"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(folder, target):
    (folder / target).write_text("old")
    x = np.random.default_rng(0).normal(size=(24, 200))
    large = anndata.AnnData(x, obs=make().obs)
    large.write_h5ad(folder / "in.h5ad")
    bc.pp.combat(large, "day", copy=True)  # so that compiled kernels are on the disk
    before = names_in(folder)
    command = ["correct", "in.h5ad", target, "--batch", "day", "--force"]
    process = shell(*command, cwd=folder, code=LIMITED)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == f"Error: {target} could not be written, and is as it was before: File too large.\n"  # fmt: skip
    assert names_in(folder) == before
    assert (folder / target).read_text() == "old"


@needs_posix
@pytest.mark.parametrize("target", ["out.csv", "out.csv.gz"])
def test_ctrl_c_in_the_midst_of_writing(folder, target):
    x = np.random.default_rng(0).normal(size=(4500, 800))
    large = anndata.AnnData(x)
    large.obs["day"] = ["a", "b", "c"] * 1500
    large.write_h5ad(folder / "in.h5ad")
    before = names_in(folder)
    process = shell("correct", "in.h5ad", target, "--batch", "day", cwd=folder)
    while process.poll() is None and not any(
        part.stat().st_size > 50_000 for part in folder.glob(".out*")
    ):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert (out, err) == ("", "Stopped: no file is half written.\n")
    assert names_in(folder) == before


def test_help_shows_how_a_table_is_given():
    for command in ("correct", "fit", "apply", "moments"):
        assert re.search(r"\.csv .*--samples sheet\.csv", done(command, "-h").stdout)


def test_texts_are_read_as_they_stand(tmp_path):
    (tmp_path / "s.csv").write_bytes(
        '\ufeffname,"a ""b"", c",d\r\nx, 1,\r\ny,NA,nan\r\n'.encode()
    )
    sheet = read_texts(tmp_path / "s.csv")
    assert sheet.style == (",", "name")
    assert sheet.cells.to_dict("index") == {
        "x": {'a "b", c': " 1", "d": None},
        "y": {'a "b", c': None, "d": None},
    }
