"""The paragraph for a paper names each step once and cites in order."""

from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr._anndata import records
from batchcorr._report.methods_text import CORRECTIONS, REFERENCES, methods_text
from batchcorr.methods import registry


@pytest.fixture
def steps():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"run": np.repeat(["a", "b"], 12), "kind": list("xy") * 12})
    counts = rng.poisson(rng.gamma(2, 20, 40), (24, 40)).astype(float)
    adata = anndata.AnnData(counts, obs.set_axis([f"s{k}" for k in range(24)]))
    bc.pp.log_normalize(adata, method="tmm", key_added="logs")
    bc.pp.quantile_normalize(adata, layer="logs")
    bc.pp.combat(adata, "run", covariates="kind", reference="b", layer="logs")
    return records.steps_of(adata, "logs", adata.layers["logs"])


def test_steps_are_told_in_their_order(steps):
    text, references = methods_text(steps, version="1", test="kind")
    assert text.startswith(
        "Counts of 24 samples were divided by TMM factors [1] and log-transformed. "
        "Samples were quantile-normalized [2]. Effects of run (2 batches; 24 samples × "
        "40 features) were removed by ComBat [3] with parametric priors, batch b as the "
        "reference, keeping kind. Differences (kind) were tested"
    )
    version = steps[0]["versions"]["batchcorr"]
    assert text.endswith(f"Computations were made with batchcorr {version}.")
    assert [each.split()[0] for each in references] == [
        "Robinson",
        "Bolstad",
        "Johnson",
        "Smyth",
        "Benjamini",
        "Nygaard",
    ]
    cited = [int(number) for number in re.findall(r"\[(\d+)\]", text)]
    assert cited == [1, 2, 3, 4, 5, 6]


def test_nothing_done_is_nothing_told():
    text, references = methods_text([], version="1.2", test=None)
    assert text == "Computations were made with batchcorr 1.2."
    assert references == []


def test_names_are_of_corrections_and_references_exist():
    for name in CORRECTIONS:
        record = registry()[name].record
        assert not record.normalizes
        assert record.returns == "matrix"
    for _, keys in CORRECTIONS.values():
        assert set(keys) <= set(REFERENCES)
