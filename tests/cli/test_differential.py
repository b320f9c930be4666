"""`batchcorr test`: the table of `bc.tl.differential`, from files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from tests.cli.commands import KEEP, SHEET, done, put, refused

TEST = ["--batch", "day", "--test", "group"]


@pytest.mark.usefixtures("tables")
def test_the_table_is_that_of_python(adata):
    adata.X[adata.obs["group"] == "b", :7] += np.linspace(-9, 3, 7)
    adata.write_h5ad("in.h5ad")
    options = [*TEST, "--covariate", "age", "--robust", "--unequal-variances"]
    said = done("test", "in.h5ad", "out.csv", *options).stdout
    wanted = bc.tl.differential(
        adata, "day", "group", covariates=["age"], robust=True, equal_variances=False
    )
    found = pd.read_csv("out.csv", index_col="feature", float_precision="round_trip")
    pd.testing.assert_frame_equal(
        found, wanted, check_names=False, check_index_type=False, check_exact=True
    )
    found = wanted[wanted["p_adjusted"] < 0.05]["t"]
    counts = [str(n) for n in (len(found), (found > 0).sum(), (found < 0).sum())]
    assert said.splitlines()[-1].split() == ["b", "against", "a", *counts]
    assert 4 < len(found) < 12


@pytest.mark.usefixtures("tables")
def test_tables_give_what_files_do():
    done("test", "in.h5ad", "one.tsv", *TEST)
    done("test", "in.csv", "other.tsv", *SHEET, *TEST)
    one, other = (pd.read_csv(f"{name}.tsv", sep="\t") for name in ("one", "other"))
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("group:x-1-y", ("x-1", "y")),
        ("group:y-x-1", ("y", "x-1")),
    ],
)
@pytest.mark.usefixtures("tables")
def test_levels_with_dashes_are_told_apart(adata, text, pair):
    adata.obs["group"] = np.resize(["x-1", "y", "y", "z"], adata.n_obs)
    adata.write_h5ad("dashes.h5ad")
    said = done("test", "dashes.h5ad", "out.csv", "--batch", "day", "--test", text)
    assert " against ".join(pair) in said.stdout
    found = pd.read_csv("out.csv", index_col=0)
    wanted = bc.tl.differential(adata, "day", ("group", *pair))
    np.testing.assert_allclose(found["coefficient"], wanted["coefficient"], rtol=1e-12)


@pytest.mark.usefixtures("tables")
def test_contrasts_that_cannot_be_read_are_refused(adata):
    given = ["test", "in.h5ad", "out.csv", "--batch", "day", "--test"]
    said = refused(*given, "group:a-c")
    assert "must be group:A-B, with two levels of 'group': 'a', 'b'" in said
    assert "'grup' is not a column" in refused(*given, "grup:a-b")
    assert "group:A-B" in refused(*given, "group:a-a")
    adata.obs["group"] = np.resize(["a", "b-c", "a-b", "c"], adata.n_obs)
    adata.write_h5ad("dashes.h5ad")
    given[1] = "dashes.h5ad"
    assert "in two ways: a and b-c, a-b and c" in refused(*given, "group:a-b-c")


@pytest.mark.usefixtures("folder")
def test_all_levels_are_compared_with_the_first_and_numbers_by_their_slope():
    said = done("test", "in.h5ad", "o.csv", "--batch", "batch", "--test", "cancer")
    for row in ("any difference in cancer", "Cancer against Biopsy", "Normal against"):
        assert row in said.stdout
    adata = bc.datasets.bladder()[:, :20].copy()
    adata.obs["age"] = np.random.default_rng(0).uniform(20, 80, adata.n_obs)
    adata.write_h5ad("age.h5ad")
    said = done("test", "age.h5ad", "age.csv", "--batch", "batch", "--test", "age")
    assert "slope of age" in said.stdout


def test_counts_are_tested_as_logarithms(adata, tables):
    rng = np.random.default_rng(1)
    adata.X = rng.negative_binomial(20, 0.1, adata.shape).astype(float)
    put(tables / "counts.csv", adata)
    options = [*SHEET, *TEST, "--trend"]
    assert "--log-normalize" in done("test", "counts.csv", "a.csv", *options).stderr
    done("test", "counts.csv", "b.csv", *options, "--log-normalize=tmm")
    bc.pp.log_normalize(adata, method="tmm")
    wanted = bc.tl.differential(adata, "day", "group", trend=True)
    found = pd.read_csv("b.csv", index_col=0)
    pd.testing.assert_frame_equal(
        found, wanted, check_names=False, check_index_type=False, rtol=1e-12
    )
    assert "log2_fold_change" in found


def test_corrected_values_are_refused(tables):
    done("correct", "in.h5ad", "corrected.h5ad", *KEEP)
    said = refused("test", "corrected.h5ad", "out.csv", *TEST)
    assert "was corrected by combat" in said
    assert not (tables / "out.csv").exists()


def test_what_was_there_stays(tables):
    (tables / "out.csv").write_text("mine", "utf-8")
    assert "exists already" in refused("test", "in.h5ad", "out.csv", *TEST)
    assert "must end in" in refused("test", "in.h5ad", "out.h5ad", *TEST, code=2)
    assert (tables / "out.csv").read_text("utf-8") == "mine"


@pytest.mark.usefixtures("tables")
def test_subjects_weights_and_counts(adata, tables):
    who = np.resize(["p1", "p2", "p3", "p4", "p5"], adata.n_obs)
    adata.obs["who"], adata.obs["w"] = who, np.linspace(1, 2, adata.n_obs)
    adata.layers["counts"] = np.random.default_rng(0).poisson(40, adata.shape)
    adata.write_h5ad("in.h5ad")
    given = ["test", "in.h5ad", "out.csv", *TEST, "--force"]
    said = done(*given, "--subject", "who", "--weights", "w")
    wanted = bc.tl.differential(adata, "day", "group", subject="who", weights="w")
    found = pd.read_csv("out.csv", index_col="feature", float_precision="round_trip")
    pd.testing.assert_frame_equal(
        found, wanted, check_names=False, check_index_type=False
    )
    correlation = wanted.attrs["subject_correlation"]
    assert f"Samples of one who correlate by {correlation:.3f}." in said.stdout
    for option, voom in (("--voom", True), ("--voom=tmm", "tmm")):
        done(*given, "--layer", "counts", option)
        wanted = bc.tl.differential(adata, "day", "group", layer="counts", voom=voom)
        found = pd.read_csv("out.csv", index_col="feature")
        pd.testing.assert_frame_equal(
            found, wanted, check_names=False, check_index_type=False
        )
    (tables / "out.csv").unlink()
    assert "there is no method 'tmn'" in refused(*given, "--voom=tmn", code=2)
    assert "leave out" in refused(*given, "--voom", "--log-normalize", code=2)
    assert "Did you mean 'who'" in refused(*given, "--weights", "whom")
    assert not (tables / "out.csv").exists()


@pytest.mark.usefixtures("tables")
def test_missing_labels(adata):
    labels = adata.obs["group"].astype(object)
    labels.iloc[[2, 5, 9, 11]] = None
    adata.obs["group"] = labels
    adata.obs["lane"] = np.where(np.arange(24) % 5 == 1, None, "one")
    adata.write_h5ad("in.h5ad")
    known = ["--covariate", "lane"]
    assert "'group'" in refused("test", "in.h5ad", "no.csv", *TEST)
    said = done("test", "in.h5ad", "one.csv", *TEST, "--missing=drop")
    assert "4 of 24 samples left out" in said.stdout
    part = adata[adata.obs["group"].notna().to_numpy()].copy()
    wanted = bc.tl.differential(part, "day", "group")
    found = pd.read_csv("one.csv", index_col="feature", float_precision="round_trip")
    np.testing.assert_array_equal(found["t"], wanted["t"])
    done("test", "in.h5ad", "two.csv", *TEST[:3], "age", *known, "--missing=level")
    adata.obs["lane"] = adata.obs["lane"].astype(object).fillna("missing")
    wanted = bc.tl.differential(adata, "day", "age", covariates=["lane"])
    found = pd.read_csv("two.csv", index_col="feature", float_precision="round_trip")
    np.testing.assert_array_equal(found["t"], wanted["t"])
    options = ["--batch", "day", "--test", "group"]
    assert "'group'" in refused("audit", "in.h5ad", *options)
    said = done("audit", "in.h5ad", *options, "--missing=drop").stdout
    assert "20 samples" in said
