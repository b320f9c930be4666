"""`batchcorr report`: one page of a file or a table."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.commands import SHEET, done, refused


@pytest.mark.usefixtures("tables")
def test_files_and_tables_before_and_after_a_correction():
    given = ["--batch", "day", "--test", "group:b-a"]
    for source in (["in.h5ad"], ["in.csv", *SHEET]):
        said = done("report", source[0], "out.html", *source[1:], *given, "--force")
        assert said.stdout.startswith("Wrote out.html")
        page = Path("out.html").read_text("utf-8")
        assert f"<title>{source[0]}</title>" in page
        assert "Nothing was corrected yet" in page
        assert "group: b against a" in page
    done("correct", "in.csv", "out.csv", *SHEET, "--batch", "day")
    done(
        "report", "in.csv", "out.html", *SHEET, *given, "--force", "--corrected=out.csv"
    )
    page = Path("out.html").read_text("utf-8")
    assert "After correction by ComBat, batch explains" in page
    done("correct", "in.h5ad", "x.h5ad", "--batch", "day")
    done("report", "in.h5ad", "out.html", "--force", "--corrected", "x.h5ad")
    assert "removed by ComBat" in Path("out.html").read_text("utf-8")
    done("correct", "in.h5ad", "c.h5ad", "--batch", "day", "--key-added", "corrected")
    done("report", "c.h5ad", "out.html", "--force", "--title", "Mine")
    page = Path("out.html").read_text("utf-8")
    assert "<title>Mine</title>" in page
    assert "removed by ComBat" in page


@pytest.mark.usefixtures("tables")
def test_mistakes_are_errors():
    given = ["report", "in.h5ad"]
    assert "--batch must name" in refused(*given, "a.html")
    table = ["report", "in.csv", "a.html", *SHEET, "--batch", "day"]
    assert "no file none.csv" in refused(*table, "--corrected", "none.csv")
    assert "must end in .html" in refused(*given, "a.pdf", code=2)
    assert "'grp'" in refused(*given, "a.html", "--batch", "day", "--test", "grp")
    Path("a.html").write_text("mine", "utf-8")
    assert "exists already" in refused(*given, "a.html", "--batch", "day")
    assert Path("a.html").read_text("utf-8") == "mine"


@pytest.mark.usefixtures("tables")
def test_remedies_are_options():
    given = ["--batch", "day", "--test", "group:b-a", "--covariate", "age"]
    done("report", "in.csv", "out.html", *SHEET, *given)
    page = Path("out.html").read_text("utf-8")
    command = (
        "batchcorr test in.csv results.csv --samples sheet.csv --batch day "
        "--test group:b-a --covariate age"
    )
    assert f"<code>{command}</code>" in page
    assert "bc.tl" not in page
    assert "batchcorr.tl" not in page


NORMALIZED = {
    "of counts, as they are": ([], "--voom"),
    "of counts, as is said": (["--log-normalize=tmm"], "--voom=tmm"),
    "of counts, enough of them": (["--min-count=120"], "--min-count 120 --voom"),
    "of counts, quantiles too": (
        ["--log-normalize", "--quantile-normalize"],
        "--voom",
    ),
    "of logarithms": (["--quantile-normalize"], "--quantile-normalize"),
}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("missing", ["drop", "level"])
def test_samples_without_labels_are_as_they_were_corrected(missing):
    sheet = pd.read_csv("sheet.csv", index_col=0)
    sheet.loc[sheet.index[:3], "group"] = None
    sheet.to_csv("sheet.csv")
    given = ["--batch", "day", "--covariate", "group", "--missing", missing]
    done("correct", "in.csv", "out.csv", *SHEET, *given)
    done("report", "in.csv", "out.html", *SHEET, "--corrected=out.csv", "--test=group")
    page = Path("out.html").read_text("utf-8")
    assert f"{21 if missing == 'drop' else 24} samples × 30 features" in page
    assert f"--missing {missing} --batch day --test group</code>" in page


@pytest.mark.parametrize("how", NORMALIZED)
def test_the_command_on_the_page_gives_the_numbers_on_the_page(tables, how):
    options, said = NORMALIZED[how]
    values = pd.read_csv("in.csv", index_col=0)
    counts = (values.abs() * 40).round().astype(int)
    (counts if "counts" in how else values).to_csv(tables / "given.csv")
    given = ["given.csv", "out.html", *SHEET, "--batch", "day", "--test", "group:b-a"]
    done("report", *given, *options)
    page = Path("out.html").read_text("utf-8")
    command = unescape(re.search("<code>batchcorr (test.*?)</code>", page)[1])
    assert command.endswith(said)
    done(*shlex.split(command))
    table = pd.read_csv("results.csv", index_col=0).dropna()
    tested = f"of {len(table)} features"
    assert (tested + " that were tested" if "enough" in how else tested) in page
    features = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])[
        "features"
    ]
    place = features["columns"].index("p")
    found = {row[0]: row[place] for row in features["rows"] if row[place] is not None}
    assert len(found) == len(table)
    np.testing.assert_allclose([found[g] for g in table.index], table["p_value"], 1e-3)
