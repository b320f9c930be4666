"""The bladder data are R's, bit for bit, and the file is the one data/README.md names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from batchcorr import datasets
from batchcorr.datasets import _bladder
from batchcorr.errors import FileError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def bladder():
    return datasets.bladder()


@pytest.fixture(scope="module")
def summary():
    return json.loads((GOLDEN / "bladder_full_summary.json").read_text())["input"]


def test_the_file_is_the_one_its_readme_names():
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    named = re.search(r"\| sha256 \| `([0-9a-f]{64})` \|", readme)
    digest = hashlib.sha256((ROOT / "data" / "bladderbatch.h5ad").read_bytes())
    assert named is not None
    assert digest.hexdigest() == named[1]


def test_two_thousand_probes_equal_those_r_was_given(bladder):
    with np.load(GOLDEN / "bladder_input.npz") as golden:
        chosen = bladder[:, golden["gene_index0_in_bladderbatch"]]
        np.testing.assert_array_equal(chosen.X, golden["X"])
        assert chosen.var_names.tolist() == golden["genes"].tolist()
        assert chosen.obs_names.tolist() == golden["samples"].tolist()
        assert chosen.obs["batch"].tolist() == golden["batch"].astype(str).tolist()
        assert chosen.obs["cancer"].tolist() == golden["cancer"].tolist()
        assert chosen.obs["outcome"].tolist() == golden["outcome"].tolist()


def test_the_whole_matrix_has_r_s_sums(bladder, summary):
    x = bladder.X
    assert list(x.shape) == summary["shape_samples_x_genes"]
    assert x.min() == summary["min"]
    assert x.max() == summary["max"]
    np.testing.assert_allclose(x.sum(), summary["sum"], rtol=1e-13)
    np.testing.assert_allclose((x**2).sum(), summary["sum_sq"], rtol=1e-13)
    np.testing.assert_allclose(x.std(ddof=1), summary["sd"], rtol=1e-12)
    for entry in summary["entries"]:
        assert x[entry["sample0"], entry["gene0"]] == entry["value"]


def test_each_batch_has_r_s_moments(bladder, summary):
    assert list(summary["per_batch"]) == list(bladder.obs["batch"].cat.categories)
    for batch, expected in summary["per_batch"].items():
        x = bladder.X[bladder.obs["batch"] == batch]
        assert len(x) == expected["n"]
        assert x.min() == expected["min"]
        assert x.max() == expected["max"]
        np.testing.assert_allclose(x.mean(), expected["mean"], rtol=1e-13)
        np.testing.assert_allclose(x.std(ddof=1), expected["sd"], rtol=1e-12)


def test_columns_and_words_about_the_data(bladder):
    assert bladder.X.dtype == np.float64
    assert list(bladder.obs.columns) == ["batch", "cancer", "outcome"]
    assert all(str(dtype) == "category" for dtype in bladder.obs.dtypes)
    assert {"source", "licence", "citation"} <= set(bladder.uns)


def test_every_call_reads_anew(bladder):
    again = datasets.bladder()
    again.X[:] = 0
    assert bladder.X.min() > 0


def test_a_missing_file_is_named_with_the_remedy(tmp_path, monkeypatch):
    elsewhere = tmp_path / "batchcorr" / "datasets" / "_bladder.py"
    monkeypatch.setattr(_bladder, "__file__", str(elsewhere))
    with pytest.raises(FileError, match=r"bladderbatch\.h5ad.*reinstall batchcorr"):
        datasets.bladder()
