"""Sheets: labels as they are meant, and which side of a table the samples are on."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.cli.dialects import Style
from batchcorr.cli.samples import Source
from batchcorr.cli.tables import read_texts
from batchcorr.errors import BatchCorrWarning
from tests.cli.commands import (
    KEEP,
    SHEET,
    done,
    put,
    refused,
)


def test_labels_are_read_as_they_are_meant(tmp_path):
    (tmp_path / "sheet.tsv").write_text(
        "day\twell\tage\tid\tdrug\tsmoker\tbmi\n"
        "s1\t1\t01\t5e+01\t3\tNone\tTRUE\t21\n"
        "s2\t2\t2\t7.5\t-4\tNA\tFALSE\t\n"
    )
    (tmp_path / "t.csv").write_text("g,s2,s1\na,1,2\nb,3,4.5\n")
    adata, layout = Source(tmp_path / "t.csv", ".csv", tmp_path / "sheet.tsv").open()
    assert layout == (True, Style(",", "g", ending=".csv"))
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
    adata, _ = Source(tmp_path / "t.csv", ".csv", tmp_path / "sheet.csv").open()
    assert adata.obs["well"].tolist() == texts


def test_labels_that_are_one_number_are_pointed_out(tmp_path):
    (tmp_path / "sheet.csv").write_text("n,kit\ns1,1.1\ns2,1.10\n")
    (tmp_path / "t.csv").write_text("g,s1,s2\na,1,2\n")
    with pytest.warns(BatchCorrWarning, match="'kit' .* 1.1 and 1.10 are the same"):
        adata, _ = Source(tmp_path / "t.csv", ".csv", tmp_path / "sheet.csv").open()
    assert adata.obs["kit"].tolist() == [1.1, 1.1]


def test_an_empty_column_of_the_sheet_can_be_written(tables):
    sheet = (tables / "sheet.csv").read_text().splitlines()
    sheet = [sheet[0] + ",note", *(line + "," for line in sheet[1:])]
    (tables / "sheet.csv").write_text("\n".join(sheet) + "\n")
    done("correct", "in.csv", "out.h5ad", *SHEET, "--batch", "day")
    assert anndata.read_h5ad(tables / "out.h5ad").obs["note"].isna().all()


def test_a_sheet_with_more_samples_warns(tables, adata):
    adata = adata[:20].copy()
    put(tables / "few.csv", adata)
    said = done("correct", "few.csv", "out.csv", *SHEET, *KEEP)
    assert re.match("Warning: 4 of 24 samples of sheet.csv are left out, because few.csv does not have them: 's ", said.stderr)  # fmt: skip
    bc.pp.combat(adata, "day", covariates=["group"])
    made = pd.read_csv(tables / "out.csv", index_col=0, float_precision="round_trip")
    np.testing.assert_array_equal(made.to_numpy().T, adata.X)


def test_a_square_table_is_told_by_names(tables, adata):
    square = adata[:, :24].copy()
    for in_columns in (True, False):
        put(tables / "square.csv", square, in_columns=in_columns)
        found, layout = Source(
            tables / "square.csv", ".csv", tables / "sheet.csv"
        ).open()
        assert layout.in_columns is in_columns
        np.testing.assert_array_equal(found.X, square.X)


def test_texts_are_read_without_blanks_around_them(tmp_path):
    (tmp_path / "s.csv").write_bytes(
        '\ufeffname,"a ""b"", c",d\r\nx, 1,\r\ny,NA,nan\r\n'.encode()
    )
    sheet = read_texts(tmp_path / "s.csv")
    assert sheet.style == Style(",", "name", ending=".csv")
    assert sheet.cells.to_dict("index") == {
        "x": {'a "b", c': "1", "d": None},
        "y": {'a "b", c': None, "d": None},
    }


@pytest.mark.parametrize("changed", ["in.csv", "sheet.csv"])
def test_names_that_r_changed_are_known(tables, changed):
    """`read.table` makes s.3 of "s 3", in either file; what is written keeps the table's."""
    wanted = Path("in.csv").read_text("utf-8")
    path = tables / changed
    path.write_text(path.read_text("utf-8").replace("s ", "s."), "utf-8")
    said = done("correct", "in.csv", "out.csv", *SHEET, *KEEP)
    assert "names that R has changed" in said.stderr
    header = wanted.splitlines()[0]
    header = header.replace("s ", "s.") if changed == "in.csv" else header
    assert Path("out.csv").read_text("utf-8").splitlines()[0] == header
    path.write_text(path.read_text("utf-8").replace("s.", "t-"), "utf-8")
    assert "match the sample names" in refused(
        "correct", "in.csv", "o.csv", *SHEET, *KEEP
    )


@pytest.mark.usefixtures("tables")
def test_one_sample_is_and_two_are():
    sheet = pd.read_csv("sheet.csv", index_col=0)
    for rows, verb in ((1, "is"), (2, "are")):
        sheet.iloc[rows:].to_csv("few.csv")
        said = refused("correct", "in.csv", "o.csv", "--samples", "few.csv", *KEEP)
        assert f"{rows} of 24 samples of in.csv {verb} not in few.csv" in said
