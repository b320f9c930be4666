"""`batchcorr audit`: what a design allows, as text, as JSON and as an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from tests.cli.commands import SHEET, batchcorr, done, refused

TEST = ["--batch", "day", "--covariate", "age", "--test", "group"]


@pytest.fixture
def confounded(adata, tables):
    """A working folder in which every day has one group."""
    adata.obs["group"] = adata.obs["day"].map({1: "a", 2: "b", 10: "b"})
    adata.write_h5ad("confounded.h5ad")
    return tables


@pytest.mark.usefixtures("tables")
def test_a_file_and_a_table_are_audited_alike_and_as_in_python(adata):
    texts = [
        done("audit", *source, *TEST, "--json", f"{k}.json").stdout.partition(":")[2]
        for k, source in enumerate([["in.h5ad"], ["in.csv", *SHEET]])
    ]
    assert texts[0] == texts[1]
    audit = bc.tl.audit(adata, "day", covariates=["age"], test="group")
    for k in range(2):
        found = json.loads(Path(f"{k}.json").read_text("utf-8"))
        rates = pd.DataFrame(found["predicted"]).T
        pd.testing.assert_frame_equal(rates, audit.predicted, check_names=False)
        assert found["tables"] == audit.to_dict()["tables"]
        assert found["batches"]["10"]["samples"] == 8
    row = audit.predicted.loc["combat"]
    shares = [f"{row[name]:.1%}" for name in ("false_positive_rate", "effect_kept")]
    rows = [line.split() for line in texts[0].splitlines()]
    assert ["corrected", "by", "combat", *shares] in rows
    start = rows.index(["group", "by", "batch"]) + 2
    assert rows[start:] == [["1", "4", "4"], ["2", "4", "4"], ["10", "4", "4"]]


@pytest.mark.usefixtures("tables")
def test_counts_are_audited_on_the_scale_they_will_be_corrected_on(adata):
    adata.X = np.random.default_rng(0).poisson(50, adata.shape).astype(float)
    adata.write_h5ad("counts.h5ad")
    options = ["--batch", "day", "--test", "group", "--log-normalize=tmm"]
    done("audit", "counts.h5ad", *options, "--json", "found.json")
    bc.pp.log_normalize(adata, method="tmm")
    rates = bc.tl.audit(adata, "day", test="group").predicted
    found = json.loads(Path("found.json").read_text("utf-8"))["predicted"]
    pd.testing.assert_frame_equal(pd.DataFrame(found).T, rates, check_names=False)


@pytest.mark.usefixtures("tables")
def test_levels_are_shown_by_whole_names_as_far_as_there_is_room(adata):
    adata.obs["donor"] = [f"hospital_{k // 3 % 6}_person" for k in range(adata.n_obs)]
    adata.write_h5ad("donors.h5ad")
    lines = done(
        "audit", "donors.h5ad", "--batch", "day", "--covariate", "donor"
    ).stdout.splitlines()
    header = lines[lines.index("donor by batch") + 1].split()
    assert header == ["batch", *(f"hospital_{k}_person" for k in range(3))]
    assert lines[-1].strip() == "and 3 more levels: all are in --json."


@pytest.mark.usefixtures("folder")
def test_advice_can_be_typed():
    said = done("audit", "in.h5ad", "--batch", "batch", "--test", "cancer").stdout
    text = " ".join(said.split())
    assert "Test it in one step: batchcorr test … --test 'cancer'." in text
    assert "Keep it: --covariate 'cancer'" in text
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.usefixtures("confounded")
def test_what_makes_a_correction_impossible_has_its_own_exit_code():
    said = batchcorr("audit", "confounded.h5ad", "--batch", "day", "--test", "group")
    assert said.exit_code == 3
    assert said.stdout.splitlines()[1].startswith("blocks")
    assert "false positives" not in said.stdout
    assert said.stderr == ""


@pytest.mark.usefixtures("tables")
def test_mistakes_are_errors():
    assert "'dya'" in refused("audit", "in.h5ad", "--batch", "dya")
    wrong = [*TEST, "--alpha", "5"]
    assert "between 0 and 1" in refused("audit", "in.h5ad", *wrong, code=2)
    given = ["audit", "in.h5ad", *TEST, "--json"]
    assert "must end in .json" in refused(*given, "a.txt", code=2)
    Path("a.json").write_text("mine", "utf-8")
    assert "exists already" in refused(*given, "a.json")
    assert Path("a.json").read_text("utf-8") == "mine"
    assert "'Group'" in refused("audit", "in.h5ad", "--batch", "day", "--test", "Group")


@pytest.mark.usefixtures("tables")
def test_two_levels_are_audited_as_in_python(adata):
    said = done("audit", "in.h5ad", "--batch", "day", "--test", "group:b-a").stdout
    audit = bc.tl.audit(adata, "day", test=("group", "b", "a"))
    rate = audit.predicted.loc["standardize", "false_positive_rate"]
    rows = [line.split() for line in said.splitlines()]
    assert any(
        row[:4] == ["corrected", "by", "standardize", f"{rate:.1%}"] for row in rows
    )
