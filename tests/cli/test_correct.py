"""What correct, fit and apply write is what the functions give."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr._anndata import records
from batchcorr.cli.normalizing import METHODS
from batchcorr.errors import CountsWarning
from batchcorr.methods import registry
from batchcorr.models.counts import size_factors
from tests.cli.commands import (
    KEEP,
    SHEET,
    done,
    names_in,
    put,
    read,
    refused,
)


@pytest.mark.parametrize("target", ["out.h5ad", "out.zarr"])
@pytest.mark.parametrize("source", ["in.h5ad", "in.zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_correct_equals_the_function(folder, bladder, source, target):
    if source == "in.zarr":
        bladder.write_zarr(folder / source)
    said = done("correct", source, target, "--batch", "batch", "--covariate", "cancer")
    assert f"Wrote {target}: 57 samples × 60 features" in said.stdout
    assert "not for differential testing" in said.stdout
    assert said.stderr.startswith("Warning: 'cancer' is strongly associated")
    assert len(said.stderr.splitlines()) == 1
    wanted = bc.pp.combat(bladder, "batch", covariates="cancer", copy=True)
    found = read(folder / target)
    np.testing.assert_array_equal(found.X, wanted.X)
    assert found.obs.equals(wanted.obs)
    assert records.read(found, "X") == records.read(wanted, "X")


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (["--reference", "5"], {"reference": "5"}),
        (["--formula", "~ cancer"], {"covariates": "~ cancer"}),
        (["--formula", "cancer"], {"covariates": "~ cancer"}),
        (["--set", "mean_only=true"], {"mean_only": True}),
        (["--set", "mean-only=yes", "--set", "parametric=0"], "both"),
        (["--method", "standardize", "--set", "target=unit"], "unit"),
        (
            ["--method", "remove_batch_effect", "--nuisance", "age", "--batch", "site"],
            "nuisance",
        ),
        (["--key-added", "new"], {"key_added": "new"}),
        (["--layer", "log"], {"layer": "log"}),
        (["--compress"], {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_are_the_function_s_parameters(folder, bladder, options, parameters):
    bladder = bladder.copy()
    bladder.obs["age"] = np.linspace(20, 80, 57)[np.arange(57) * 5 % 57]
    bladder.obs["site"] = np.where(np.arange(57) % 2, "a", "b")
    bladder.layers["log"] = bladder.X**2
    bladder.write_h5ad(folder / "in.h5ad")
    more = {
        "both": {"mean_only": True, "parametric": False},
        "unit": {"method": "standardize", "target": "unit"},
        "nuisance": {
            "batch_key": ["batch", "site"],
            "method": "remove_batch_effect",
            "nuisance": ["age"],
        },
    }
    given = {"batch_key": "batch", "method": "combat"}
    given |= more[parameters] if isinstance(parameters, str) else parameters
    done("correct", "in.h5ad", "out.h5ad", "--batch", "batch", *options)
    wanted = bc.pp.correct(bladder, copy=True, **given)
    found = read(folder / "out.h5ad")
    np.testing.assert_array_equal(found.X, wanted.X)
    assert set(found.layers) == set(wanted.layers)
    for layer in found.layers:
        np.testing.assert_array_equal(found.layers[layer], wanted.layers[layer])


@pytest.mark.parametrize(
    "method",
    [
        name
        for name, kind in sorted(registry().items())
        if not kind.record.normalizes and kind.record.returns == "matrix"
    ],
)
def test_every_method_of_the_registry_runs(folder, method):
    counts = np.random.default_rng(0).negative_binomial(5, 0.2, size=(24, 30))
    data = anndata.AnnData(counts.astype(np.float32))
    data.obs["batch"] = ["a", "b"] * 12
    data.write_h5ad(folder / "in.h5ad")
    options = ["--batch", "batch", "--method", method]
    done("correct", "in.h5ad", "whole.h5ad", *options)
    done("fit", "in.h5ad", "c.npz", *options)
    done("apply", "c.npz", "in.h5ad", "applied.h5ad")
    whole, applied = (read(folder / f"{name}.h5ad").X for name in ("whole", "applied"))
    np.testing.assert_array_equal(applied, whole)
    assert not np.array_equal(whole, counts)


def test_fit_and_apply_equal_correct(folder, bladder):
    keep = ["--batch", "batch", "--covariate", "cancer"]
    done("correct", "in.h5ad", "whole.h5ad", *keep)
    assert "Wrote c.npz: combat" in done("fit", "in.h5ad", "c.npz", *keep).stdout
    done("fit", "in.h5ad", *keep, "-o", "o.npz")
    one, other = (bc.load(name) for name in ("c.npz", "o.npz"))
    np.testing.assert_array_equal(one.correction_.scale, other.correction_.scale)
    done("apply", "c.npz", "in.h5ad", "applied.h5ad")
    whole = read(folder / "whole.h5ad").X
    np.testing.assert_array_equal(read(folder / "applied.h5ad").X, whole)

    bladder[40:].copy().write_h5ad(folder / "new.h5ad")  # other samples, other name
    done("apply", "c.npz", "new.h5ad", "new_out.h5ad", "--key-added", "corrected")
    found = read(folder / "new_out.h5ad")
    np.testing.assert_array_equal(found.X, bladder.X[40:])
    np.testing.assert_allclose(found.layers["corrected"], whole[40:], rtol=1e-12)


def test_apply_finds_batches_in_another_column(folder, bladder):
    done("fit", "in.h5ad", "c.npz", "--batch", "batch", "--method", "standardize")
    other = bladder.copy()
    other.obs = other.obs.rename(columns={"batch": "day"})
    other.write_h5ad(folder / "other.h5ad")
    line = refused("apply", "c.npz", "other.h5ad", "out.h5ad")
    assert "'batch' is not a column" in line
    done("apply", "c.npz", "other.h5ad", "out.h5ad", "--batch", "day")
    wanted = bc.pp.standardize(bladder, "batch", copy=True)
    np.testing.assert_allclose(read(folder / "out.h5ad").X, wanted.X, rtol=1e-12)


def test_counts_are_logged_and_corrected_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(4, 0.05, (24, 30)).astype(np.float32)
    obs = pd.DataFrame(
        {"batch": ["a", "b", "c"] * 8}, index=[f"s{i}" for i in range(24)]
    )
    adata = anndata.AnnData(counts.copy(), obs=obs)
    adata.write_h5ad("in.h5ad")
    done("correct", "in.h5ad", "out.h5ad", "--batch", "batch", "--log-normalize")
    found = read(tmp_path / "out.h5ad")
    bc.pp.log_normalize(adata)
    bc.pp.combat(adata, "batch")
    np.testing.assert_array_equal(found.X, adata.X)
    done(
        "correct",
        "in.h5ad",
        "k.h5ad",
        "--batch",
        "batch",
        "--log-normalize",
        "--key-added",
        "corrected",
    )
    beside = read(tmp_path / "k.h5ad")
    np.testing.assert_array_equal(beside.X, counts)
    np.testing.assert_array_equal(beside.layers["corrected"], adata.X)


def test_a_sparse_matrix_becomes_dense_only_when_told(folder, bladder):
    sparse = bladder.copy()
    sparse.X = sp.csr_matrix(np.where(sparse.X > 6, sparse.X, 0))
    sparse.write_h5ad(folder / "sparse.h5ad")
    command = ["correct", "sparse.h5ad", "out.h5ad", "--batch", "batch"]
    line = refused(*command, "--no-dense")
    assert line.endswith("or give --dense to make it dense anyway.")
    assert names_in(folder) == ["in.h5ad", "sparse.h5ad"]
    said = done(*command).stderr  # a matter of kilobytes, of which nothing is said
    assert done(*command, "--dense", "--force").stderr == said
    assert "dense" not in said
    assert isinstance(read(folder / "out.h5ad").X, np.ndarray)


@pytest.mark.usefixtures("folder")
def test_correcting_twice_warns_in_the_words_of_the_command():
    done("correct", "in.h5ad", "once.h5ad", "--batch", "batch")
    twice = done("correct", "once.h5ad", "twice.h5ad", "--batch", "batch")
    assert "keep them by giving --key-added." in twice.stderr


@pytest.mark.parametrize(
    "steps",
    [
        ["--log-normalize"],
        ["--log-normalize", "tmm"],
        ["--log-normalize=rle", "--quantile-normalize"],
    ],
    ids=" ".join,
)
def test_fit_and_apply_normalize_as_correct_does(tmp_path, monkeypatch, steps):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(4, 0.05, (24, 30)) * rng.integers(1, 9, (24, 1))
    data = anndata.AnnData(counts.astype(np.float32))
    data.obs["batch"] = list("abc") * 8
    data.write_h5ad("in.h5ad")
    done("correct", "in.h5ad", "whole.h5ad", "--batch", "batch", *steps)
    done("fit", "in.h5ad", "c.npz", "--batch", "batch", *steps)
    done("apply", "c.npz", "in.h5ad", "all.h5ad")
    whole = read(tmp_path / "whole.h5ad").X
    np.testing.assert_array_equal(read(tmp_path / "all.h5ad").X, whole)

    few = data[5:8, ::-1].copy()  # alone, in another order, with a gene more
    more = few[:, :1].copy()
    more.var_names = ["more"]
    few = anndata.concat([few, more], axis=1, merge="same")
    few.write_h5ad("few.h5ad")
    said = done("apply", "c.npz", "few.h5ad", "out.h5ad", "--key-added", "new")
    assert "1 of 31 features is not known" in said.stderr
    assert "no record of it" not in said.stderr
    with pytest.warns(CountsWarning, match="log_normalize.* have no record of it"):
        bc.pp.apply(data, bc.load("c.npz"), copy=True)
    found = read(tmp_path / "out.h5ad")
    assert list(found.var_names) == list(data.var_names)
    np.testing.assert_allclose(found.layers["new"], whole[5:8], rtol=2e-5)
    np.testing.assert_array_equal(found.X, counts[5:8])
    record = records.read(found, records.key_of("new"))
    assert record["earlier"][0]["method"] == "log_normalize"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            ["--log-normalize=tnn"],
            "--log-normalize: there is no method 'tnn'. Available: total",
        ),
        (
            ["--method", "combat_seq", "--quantile-normalize"],
            "--quantile-norm.*raw counts",
        ),
        (["--memory", "1GiB", "--quantile-normalize"], "--quantile-normalize: .*whole"),
        (["--memory", "1GiB", "--log-normalize=tmm"], "--log-normalize: with --memory"),
    ],
)
def test_normalizations_that_cannot_be(options, match):
    command = ["correct", "in.h5ad", "o.h5ad", "--batch", "batch"]
    assert re.search(match, refused(*command, *options, code=2))


def test_methods_of_normalization_are_those_of_the_function():
    assert set(METHODS) == set(size_factors.METHODS)


def test_memory_that_the_result_fits_into_needs_no_dense(folder, bladder):
    sparse = bladder.copy()
    sparse.X = sp.csr_matrix(np.where(sparse.X > 6, sparse.X, 0))
    sparse.write_h5ad("in.h5ad")
    given = ["in.h5ad", "--batch", "batch", "--memory", "8GiB"]
    done("correct", given[0], "one.h5ad", *given[1:])
    bc.pp.combat(sparse, "batch", dense=True)
    np.testing.assert_allclose(read(folder / "one.h5ad").X, sparse.X, rtol=1e-9)
    said = refused("correct", given[0], "two.h5ad", *given[1:], "--no-dense")
    assert "--dense" in said


def test_memory_is_kept_where_the_system_does_not_tell(folder, monkeypatch):
    exists = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda p: p.parts[:2] != ("/", "proc") and exists(p)
    )
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    done("correct", "in.h5ad", "out.h5ad", "--batch", "batch", "--memory", "1GiB")
    done("correct", "in.h5ad", "whole.h5ad", "--batch", "batch")
    found, wanted = (read(folder / f"{name}.h5ad").X for name in ("out", "whole"))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.usefixtures("tables")
def test_new_batches_are_placed_on_a_frozen_correction(adata):
    old, new = (
        adata[adata.obs["day"] != 10].copy(),
        adata[adata.obs["day"] == 10].copy(),
    )
    put(Path("old.csv"), old)
    put(Path("new.csv"), adata)
    done("fit", "old.csv", "c.npz", *SHEET, *KEEP)
    assert "Add --add-batches" in refused("apply", "c.npz", "new.csv", "o.csv", *SHEET)
    said = done("apply", "c.npz", "new.csv", "o.csv", *SHEET, "--add-batches")
    assert said.stdout.startswith("Added to the correction: 10.")
    fitted = bc.load("c.npz")
    about = {"batch": new.obs["day"], "covariates": new.obs[["group"]]}
    grown = fitted.add_batches(new.X, **about)
    about = {"batch": adata.obs["day"], "covariates": adata.obs[["group"]]}
    wanted = grown.transform(adata.X, **about)
    table = pd.read_csv("o.csv", index_col=0).T
    np.testing.assert_allclose(table.loc[adata.obs_names], wanted, rtol=1e-14)
    said = done("apply", "c.npz", "old.csv", "p.csv", *SHEET, "--add-batches")
    assert "no new batch" in said.stdout


@pytest.mark.usefixtures("tables")
def test_what_a_correction_keeps_must_be_known_of_new_samples():
    done("fit", "in.csv", "c.npz", *SHEET, *KEEP)
    pd.read_csv("sheet.csv", index_col=0)[["day"]].to_csv("less.csv")
    said = refused("apply", "c.npz", "in.csv", "o.csv", "--samples", "less.csv")
    assert "The covariate 'group' is not a column of less.csv" in said
    assert "The correction keeps this covariate" in said
    assert "--set mean_only=True" in said
