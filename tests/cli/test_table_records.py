"""How the values of a table were made is kept beside it, and known again."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.commands import KEEP, SHEET, done, refused

RECORD = Path("out.csv.batchcorr.json")


@pytest.fixture
def corrected(tables):
    counts = (pd.read_csv("in.csv", index_col=0).abs() * 40).round()
    counts.to_csv(tables / "counts.csv")
    said = done(
        "correct", "counts.csv", "out.csv", *SHEET, *KEEP, "--log-normalize=tmm"
    )
    assert f"How it was made is in {RECORD}" in said.stdout
    return pd.read_csv("out.csv", index_col=0)


def a_test(*options):
    return [
        "test",
        "out.csv",
        "t.csv",
        *SHEET,
        "--batch",
        "day",
        "--test=group",
        *options,
    ]


REWRITTEN = {
    "as it is": lambda table: table.to_csv("out.csv"),
    "with 15 digits": lambda table: table.to_csv("out.csv", float_format="%.15g"),
    "with samples in rows": lambda table: table.T.to_csv("out.csv"),
    "sorted, some samples": lambda table: table.iloc[::-1, 3:].to_csv("out.csv"),
    "with semicolons": lambda table: table.to_csv("out.csv", sep=";", decimal=","),
}


@pytest.mark.parametrize("how", REWRITTEN)
def test_corrected_values_are_not_tested(corrected, how):
    REWRITTEN[how](corrected)
    assert "X of IN was corrected by combat" in refused(*a_test())
    assert not Path("t.csv").exists()


@pytest.mark.usefixtures("corrected")
def test_every_command_knows_what_was_done():
    given = ["out.csv", "out.html", *SHEET]
    done("report", *given)
    page = Path("out.html").read_text("utf-8")
    assert "divided by TMM factors [1]" in page
    assert "removed by ComBat [2] with parametric priors, keeping group" in page
    again = done("correct", "out.csv", "twice.csv", *SHEET, "--batch", "day")
    assert "X of IN was corrected before, by combat" in again.stderr
    assert "delete its record (of a table the .json file beside it)" in again.stderr
    methods = json.loads(Path("twice.csv.batchcorr.json").read_text("utf-8"))["record"]
    assert [step["method"] for step in methods["earlier"]] == [
        "log_normalize",
        "combat",
    ]
    dropped = done("correct", "out.csv", "x.h5ad", *SHEET, *KEEP, "--missing=drop")
    assert "was corrected before" in dropped.stderr


def test_a_record_of_other_values_is_told_and_not_used(corrected):
    (corrected + 1).to_csv("out.csv")
    said = done(*a_test())
    assert f"{RECORD} records how other values (by combat)" in said.stderr
    done(
        "correct",
        "counts.csv",
        "out.csv",
        *SHEET,
        *KEEP,
        "--force",
        "--method=standardize",
    )
    assert "corrected by standardize" in refused(*a_test("--force"))
    RECORD.unlink()
    done(*a_test("--force"))


@pytest.mark.usefixtures("corrected")
def test_a_file_of_that_name_that_is_none_is_an_error():
    for text in ("[]", "{}", "no JSON", '{"record": {}, "totals": 1}'):
        RECORD.write_text(text, "utf-8")
        assert f"{RECORD} cannot be read" in refused(*a_test())
