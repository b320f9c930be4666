"""Functions that take any method by its name, or any fitted estimator."""

from __future__ import annotations

import signal

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError
from batchcorr.methods import registry


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    values = rng.negative_binomial(4, 0.05, (24, 30)).astype(np.float32)
    obs = pd.DataFrame(
        {"batch": ["a", "b", "c"] * 8}, index=[f"s{i}" for i in range(24)]
    )
    return ad.AnnData(sp.csr_matrix(values), obs=obs)


@pytest.mark.parametrize(
    "name", [name for name, kind in registry().items() if kind.record.normalizes]
)
def test_normalization_is_no_correction(counts, name):
    before = counts.X.toarray()
    for function in (bc.pp.correct, bc.fit):
        with pytest.raises(InputError, match=rf"use batchcorr\.pp\.{name}"):
            function(counts, "batch", method=name)
    np.testing.assert_array_equal(counts.X.toarray(), before)


def test_a_frozen_normalization_is_applied_to_new_samples(counts, tmp_path):
    frozen = bc.LogNormalize().fit(counts.X)
    frozen.save(tmp_path / "frozen.npz")
    new = counts[5:9].copy()
    bc.pp.apply(new, bc.load(tmp_path / "frozen.npz"))
    assert new.X.format == "csr"  # zeros stay zeros: no need to ask for dense
    expected = frozen.transform(counts.X)[5:9]
    np.testing.assert_array_equal(new.X.toarray(), expected.toarray())


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, kind in registry().items()
        if not kind.record.normalizes and kind.record.returns == "matrix"
    ],
)
def test_every_correction_goes_through_the_registry(counts, name):
    counts.X = counts.X.toarray()
    if name != "combat_seq":
        bc.pp.log_normalize(counts)
    own = getattr(bc.pp, name)(counts, "batch", copy=True)
    bc.pp.correct(counts, "batch", name)
    np.testing.assert_array_equal(counts.X, own.X)


def test_ctrl_c_waits_for_matrix_and_record(counts, monkeypatch):
    """The interrupt comes in mid-way, and is raised when both are written."""
    from batchcorr._anndata import matrices

    counts.X = counts.X.toarray()
    bc.pp.log_normalize(counts)
    own, buffer = counts.copy(), counts.X
    set_matrix = matrices.set_matrix

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        set_matrix(*args)

    monkeypatch.setattr(matrices, "set_matrix", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bc.pp.combat(counts, "batch")
    monkeypatch.undo()
    bc.pp.combat(own, "batch")
    assert counts.X is buffer
    np.testing.assert_array_equal(counts.X, own.X)
    assert counts.uns["batchcorr"]["X"] == own.uns["batchcorr"]["X"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
