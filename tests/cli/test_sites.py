"""Sites on the command line: schema, moments, fit, apply."""

from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import batchcorr as bc
from batchcorr.cli import app
from tests.sites.examples import KEPT, UNITS, corrected, make_adata, parts


@pytest.fixture(scope="module")
def pooled():
    return make_adata()


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


def test_from_files_to_a_corrected_file(pooled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, part in enumerate(parts(pooled), start=1):
        part.write_h5ad(f"{k}.h5ad")
    more = [f"--level=batch={b}" for b in "abd"]
    keys = ["--batch", "batch", "--covariate", "cell_type", "--covariate", "age"]
    said = run("schema", "2.h5ad", "-o", "s.json", *keys, "--units", UNITS, *more)
    assert (
        "30 features in log2 CPM; batches c, a, b, d; keeping cell_type (B, NK" in said
    )
    for k in (1, 2, 3):
        said = run("moments", f"{k}.h5ad", "--schema", "s.json", "-o", f"{k}.npz")
    assert "sums over 50 samples × 30 features, of batches c (24), d (26)." in said
    files = ["1.npz", "2.npz", "3.npz"]
    said = run("fit", *files, "-o", "c.npz", "--set", "mean_only=true")
    assert "combat, fitted to the sums of 3 sites over 127 samples" in said
    assert "the sums of 3 sites" in run("fit", *files, "last.npz")
    assert bc.load("last.npz").mean_only is False
    assert "last.npz exists already" in run("fit", *files, "last.npz", code=1)
    run("apply", "c.npz", "3.h5ad", "out.h5ad")
    whole = bc.fit(pooled, "batch", covariates=KEPT, mean_only=True)
    np.testing.assert_allclose(
        anndata.read_h5ad("out.h5ad").X, corrected(pooled, whole)[77:], atol=1e-5
    )


def test_sites_test_as_their_samples_would(pooled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schema = bc.make_schema(pooled, "batch", units=UNITS, covariates=KEPT)
    for k, part in enumerate(parts(pooled), start=1):
        bc.moments(part, schema, exact=True).save(f"{k}.npz")
    files = ["1.npz", "2.npz", "3.npz"]
    said = run("test", *files, "out.csv", "--test", "cell_type:T-NK", "--trend")
    assert "the sums of 3 sites over 127 samples, batch in the model" in said
    assert "T against NK" in said
    wanted = bc.tl.differential(
        pooled, "batch", ("cell_type", "T", "NK"), covariates=KEPT, trend=True
    )
    found = pd.read_csv("out.csv", index_col="feature")
    pd.testing.assert_frame_equal(
        found, wanted, check_names=False, check_index_type=False, rtol=1e-9
    )
    assert "any difference in cell_type" in run(
        "test", *files, "all.csv", "--test", "cell_type"
    )
    said = run("test", *files, "no.csv", "--test", "cel_type", code=1)
    assert "not a covariate of the sites' schema. Did you mean 'cell_type'" in said
    for option, hint in (
        (["--batch", "batch"], "--batch"),
        (["--layer", "l"], "--layer"),
    ):
        said = run("test", *files, "no.csv", "--test", "age", *option, code=2)
        assert hint in said
        assert "of their schema are in the model" in said
    pooled.write_h5ad("in.h5ad")
    assert "--batch" in run("test", "in.h5ad", "no.csv", "--test", "age", code=2)
    assert "only one file of samples" in run(
        "test", "in.h5ad", *files, "no.csv", "--test", "age", code=2
    )
    assert "only file" in run("test", "no.csv", "--test", "age", code=2)
    assert not (tmp_path / "no.csv").exists()


def test_commands_refuse_with_one_line(pooled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = parts(pooled)[1]
    part.obs["lane"] = np.resize([1, 2], part.n_obs)
    part.write_h5ad("in.h5ad")
    common = ["in.h5ad", "-o", "s.json", "--units", UNITS, "--batch"]
    said = run("schema", *common, "lane", "--level", "lane=3", "--level", "lane=2")
    assert "batches 1, 2, 3." in said
    assert "exists already" in run("schema", *common, "batch", code=1)
    said = run("schema", *common, "lane", "--force", "--level", "x=3", code=2)
    assert "'x=3' must be KEY=LABEL" in said
    said = run("schema", *common, "lane", "--force", "--covariate", "age", "--level",
               "age=3", code=2)  # fmt: skip
    assert "'age' contains numbers" in said
    few = part[:12].copy()
    few.obs["lane"] = [1] * 9 + [2] * 3
    few.write_h5ad("few.h5ad")
    said = run("moments", "few.h5ad", "--schema", "s.json", "-o", "m.npz", code=1)
    assert said.startswith(
        "Error: The sums of this site could disclose values of single persons"
    )
    assert not (tmp_path / "m.npz").exists()
    run("moments", "in.h5ad", "--schema", "s.json", "-o", "m.npz")
    said = run("fit", "m.npz", "-o", "c.npz", code=1)
    assert "No site has samples of the batches 3" in said
    said = run("fit", "m.npz", "-o", "m2.h5ad", code=2)
    assert "m2.h5ad must end in .npz" in said
    said = run("fit", "m.npz", "-o", "m.npz", code=1)
    assert "is also the input" in said
    assert "There is no file n.npz" in run("fit", "n.npz", "-o", "c.npz", code=1)
