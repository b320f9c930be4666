"""`batchcorr surrogate`: columns for unknown batches, which other commands take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import batchcorr as bc
from tests.cli.commands import SHEET, done, make_samples, put, read, refused


@pytest.fixture
def hidden(folder):
    """Samples with a batch that nobody wrote down, as AnnData and as table and sheet."""
    adata = make_samples()
    batch = np.resize([0.0, 1.0, 1.0, 0.0, 1.0], 24)
    adata.X += np.outer(batch, np.linspace(-3, 3, 30))
    adata.obs["run"] = batch  # in obs here, so that the command says what it found
    adata.write_h5ad(folder / "in.h5ad")
    put(folder / "in.csv", adata)
    adata.obs.to_csv(folder / "sheet.csv")
    return adata


KNOWN = ["--covariate", "group", "--number", "1"]


def test_a_sheet_that_other_commands_take(hidden):
    said = done("surrogate", "in.csv", "new.csv", *SHEET, *KNOWN).stdout
    assert "1 surrogate variable of 24 samples × 30 features, by sva." in said
    assert "--nuisance sv1" in said
    header, row = (line.split() for line in said.splitlines()[1:3])
    assert header[:4] == [
        "variance",
        "explained",
        "by",
        "run",
    ]  # most with what is hidden
    assert int(row[1].rstrip("%")) > 80
    sheet = pd.read_csv("new.csv", index_col=0)
    assert list(sheet) == ["day", "group", "age", "run", "sv1"]
    found = bc.tl.surrogate_variables(hidden, covariates="group", n_variables=1)
    assert_allclose(sheet["sv1"][hidden.obs_names], found.columns_[:, 0], rtol=1e-12)
    options = ["--samples", "new.csv", "--batch", "day", "--test", "group"]
    done("test", "in.csv", "results.csv", *options, "--nuisance", "sv1")
    table = pd.read_csv("results.csv", index_col=0)
    ours = bc.tl.differential(hidden, "day", "group", covariates="X_sv")
    assert_allclose(table["p_value"], ours["p_value"], rtol=1e-9)


def test_found_variables_serve_where_no_batch_is_known(hidden):
    done("surrogate", "in.csv", "new.csv", *SHEET, *KNOWN)
    options = ["--samples", "new.csv", "--nuisance", "sv1"]
    done("test", "in.csv", "results.csv", *options, "--test", "group")
    columns = bc.tl.surrogate_variables(hidden, covariates="group", n_variables=1)
    ours = bc.tl.differential(hidden, None, "group", nuisance=columns.columns_)
    table = pd.read_csv("results.csv", index_col=0)
    assert_allclose(table["p_value"], ours["p_value"], rtol=1e-9)
    linear = ["--method", "remove_batch_effect", "--covariate", "group"]
    said = done("correct", "in.csv", "out.csv", *options, *linear).stdout
    assert "batches" not in said
    assert "removing sv1" in said


def test_an_anndata_keeps_its_values(hidden):
    hidden.X = np.random.default_rng(0).poisson(50, hidden.shape).astype(float)
    hidden.write_h5ad("in.h5ad")
    done("surrogate", "in.h5ad", "out.h5ad", *KNOWN, "--log-normalize")
    after = read(Path("out.h5ad"))
    assert_allclose(after.X, hidden.X)
    assert after.obsm["X_sv"].shape == (24, 1)
    assert "obsm X_sv" in after.uns["batchcorr"]
    options = ["--batch", "day", "--nuisance", "X_sv", "--log-normalize"]
    done("correct", "out.h5ad", "c.h5ad", *options)


def test_controls_of_a_table_are_names_in_a_file(hidden):
    names = list(hidden.var_names[::3])
    Path("genes.txt").write_text("\ufeff" + "\r\n".join(names) + "\r\n")
    way = ["--method", "ruvg", "--controls"]
    done("surrogate", "in.csv", "new.csv", *SHEET, *KNOWN, *way, "genes.txt")
    found = pd.read_csv("new.csv", index_col=0)["sv1"]
    model = bc.SurrogateVariables(1, method="ruvg")
    expected = model.fit_transform(hidden.X, controls=hidden.var_names.isin(names))
    assert_allclose(found, expected[:, 0], rtol=1e-6)
    given = ["surrogate", "in.csv", "more.csv", *SHEET, *KNOWN, *way]
    text = refused(*given, "genes", code=2)
    assert "--controls: 'genes' is no column of var (these are: none)" in text
    Path("genes.txt").write_text("TP35")
    assert "1 of 1 controls are not among the features" in refused(*given, "genes.txt")


@pytest.mark.usefixtures("hidden")
def test_mistakes_are_told_in_options():
    wanted = ["surrogate", "in.h5ad", "out.h5ad"]
    assert "give it as --covariate, and as --null" in refused(*wanted)
    assert "ruvg needs --controls" in refused(*wanted, *KNOWN, "--method", "ruvg")
    text = refused(*wanted, "--covariate", "group", "--method", "ruvr")
    assert "give --number, starting with 1 or 2" in text
    assert "'grp'" in refused(*wanted, "--covariate", "grp")
    assert not Path("out.h5ad").exists()
