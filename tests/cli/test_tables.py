"""Tables on the command line: the same numbers as an AnnData, to the last bit."""

from __future__ import annotations

import csv
import gzip
import re

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr._anndata import records
from batchcorr.cli.dialects import Style
from batchcorr.cli.table_writing import write_table
from batchcorr.cli.tables import Table
from tests.cli.commands import (
    KEEP,
    SHEET,
    done,
    make_samples,
    put,
    read,
    read_numbers,
    refused,
    shell,
)


@pytest.mark.parametrize("in_columns", [True, False], ids=["columns", "rows"])
@pytest.mark.parametrize("r", [True, False], ids=["no corner", "corner"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz", "t.txt.gz"])
def test_a_table_equals_the_anndata_to_the_last_bit(tables, adata, name, r, in_columns):
    quote = csv.QUOTE_MINIMAL if name.endswith("gz") else csv.QUOTE_NONNUMERIC
    put(tables / name, adata, in_columns=in_columns, quote=quote, r=r)
    said = done("correct", name, f"out_{name}", *SHEET, *KEEP)
    assert f"Wrote out_{name}: 24 samples × 30 features, corrected" in said.stdout
    bc.pp.combat(adata, "day", covariates=["group"])
    put(tables / name, adata, in_columns=in_columns, r=r)
    found, wanted = (tables / f"out_{name}", tables / name)
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
    table = Table(
        ["a", 'b "c", d', "NA"], ["1", "nan"], x, Style(",", "gene", ending=".csv")
    )
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
    monkeypatch.setattr("batchcorr.cli.table_writing.BLOCK", 8)
    x = np.random.default_rng(0).poisson(0.5, (7, 3)).astype(float)
    rows, columns = list("abcdefg"), list("xyz")
    for name, cells in (("d.csv", x), ("s.csv", sp.csr_matrix(x)), ("c.csv", sp.csc_matrix(x))):  # fmt: skip
        write_table(tmp_path / name, Table(rows, columns, cells, Style(",")))
        np.testing.assert_array_equal(read_numbers(tmp_path / name).cells, x)


def test_between_tables_and_anndata(tables, adata):
    done("correct", "in.csv", "out.h5ad", *SHEET, *KEEP, "--key-added", "new")
    done("correct", "in.h5ad", "out.csv", *KEEP)
    bc.pp.combat(adata, "day", covariates=["group"], key_added="new")
    found = read(tables / "out.h5ad")
    np.testing.assert_array_equal(found.layers["new"], adata.layers["new"])
    np.testing.assert_array_equal(found.X, adata.X)
    assert (
        records.read(found, "new")["batches"] == records.read(adata, "new")["batches"]
    )
    pd.testing.assert_frame_equal(
        found.obs, adata.obs.astype({"group": "category"}), check_dtype=True
    )
    put(tables / "wanted.csv", adata, x=adata.layers["new"])
    assert (tables / "out.csv").read_bytes() == (tables / "wanted.csv").read_bytes()
    adata.layers["log"] = adata.X**2
    adata.write_h5ad("layers.h5ad")
    done("correct", "layers.h5ad", "out.tsv", *KEEP, "--layer", "log")
    bc.pp.combat(adata, "day", covariates=["group"], layer="log")
    np.testing.assert_array_equal(
        read_numbers(tables / "out.tsv").cells.T, adata.layers["log"]
    )


def test_fit_and_apply_equal_correct(tables, adata):
    done("correct", "in.csv", "whole.csv", *SHEET, *KEEP)
    done("fit", "in.csv", "c.npz", *SHEET, *KEEP)
    done("apply", "c.npz", "in.csv", "applied.csv", *SHEET)
    assert (tables / "whole.csv").read_bytes() == (tables / "applied.csv").read_bytes()
    put(tables / "few.tsv", adata[5:9, ::-1].copy(), in_columns=False)
    done("apply", "c.npz", "few.tsv", "few.csv", *SHEET)
    whole, few = read_numbers(tables / "whole.csv"), read_numbers(tables / "few.csv")
    assert (few.rows, few.columns) == (whole.columns[5:9], whole.rows[::-1])
    np.testing.assert_allclose(few.cells, whole.cells[::-1, 5:9].T, rtol=1e-13)


def test_moments_of_tables_equal_those_of_anndata(tables):
    common = ["--units", "log2", "--batch", "day", "--covariate", "group"]
    sheets = {"in.h5ad": [], "in.csv": SHEET}
    for name, sheet in sheets.items():
        done("schema", name, "-o", f"{name}.json", *common, *sheet)
    texts = [(tables / f"{name}.json").read_text() for name in sheets]
    assert texts[0] == texts[1]
    for name, sheet in sheets.items():
        line = refused(
            "moments", name, *sheet, "--schema", f"{name}.json", "-o", "m.npz"
        )
        assert "could disclose values of single persons" in line
    large = anndata.concat([make_samples() for _ in range(3)], index_unique="-")
    large.X *= np.linspace(1, 2, 72)[:, None]
    large.write_h5ad("large.h5ad")
    put(tables / "large.csv", large)
    large.obs.to_csv("large_sheet.csv")
    schema = ["--schema", "in.csv.json"]
    done("moments", "large.h5ad", *schema, "-o", "a.npz")
    done("moments", "large.csv", *schema, "-o", "b.npz", "--samples", "large_sheet.csv")
    one, two = (bc.SiteMoments.load(f"{name}.npz").moments for name in "ab")
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.cross, two.cross)


@pytest.mark.parametrize("in_columns", [True, False])
def test_counts_stay_whole_numbers(tables, adata, in_columns):
    counts = np.random.default_rng(0).negative_binomial(5, 0.05, adata.shape)
    put(tables / "counts.tsv", adata, x=counts, in_columns=in_columns)
    done("correct", "counts.tsv", "out.tsv", *SHEET, *KEEP, "--method", "combat_seq")
    assert re.fullmatch(r"[gs 0-9\t\n]+", (tables / "out.tsv").read_text())
    adata.X = counts
    bc.pp.combat_seq(adata, "day", covariates=["group"])
    found = read_numbers(tables / "out.tsv").cells
    np.testing.assert_array_equal(found.T if in_columns else found, adata.X)
    assert not np.array_equal(adata.X, counts)


def test_missing_values_are_kept(tables, adata):
    adata.X[3, 4] = adata.X[7, -1] = np.nan
    put(tables / "holes.csv", adata)
    text = (tables / "holes.csv").read_text()
    assert text.count(",NA") == 2
    (tables / "holes.csv").write_text(text.replace(",NA", ",", 1))
    done("correct", "holes.csv", "out.csv", *SHEET, *KEEP)
    assert (tables / "out.csv").read_text().count(",NA") == 2
    bc.pp.combat(adata, "day", covariates=["group"])
    np.testing.assert_array_equal(read_numbers(tables / "out.csv").cells.T, adata.X)


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


def test_a_small_table_needs_nothing_that_takes_long_to_import(tables):
    code = """
import sys
from batchcorr.__main__ import main
heavy = {"anndata", "dask", "numba", "scanpy", "scipy.sparse", "sklearn", "zarr"}
try:
    main()
finally:
    print(sorted(heavy & set(sys.modules)))
"""
    options = [*SHEET, *KEEP]
    process = shell("correct", "in.csv", "out.csv", *options, cwd=tables, code=code)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "[]"
    done("correct", "in.csv", "out.h5ad", *options)
    table = pd.read_csv("out.csv", index_col=0).T
    np.testing.assert_allclose(table, read(tables / "out.h5ad").X, rtol=1e-12)
