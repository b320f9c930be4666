"""ComBat-seq with a reference (ComBat-ref), against its formulas in R."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError

CASES = ["06_combat_ref", "08_combat_ref_no_group"]


@pytest.fixture(params=CASES)
def case(request, golden):
    r = golden(f"combat_relatives_{request.param}")
    labels = {"batch": r["batch"]}
    if "group" in r:
        labels["covariates"] = (r["group"] == r["group"][0]).astype(float)[:, None]
    return r, labels


def test_counts_are_those_of_r(case, tmp_path):
    r, labels = case
    model = bc.ComBatSeq(reference="auto").fit(r["counts"], **labels)
    levels = list(dict.fromkeys(r["batch"]))
    own = model.batches_.index(model.summary()["reference"])
    assert model.summary()["reference"] == sorted(levels, key=str)[own]
    np.testing.assert_array_equal(model.model_.adjusted.sum(), len(r["kept_genes"]))
    found = model.transform(r["counts"], **labels)
    np.testing.assert_array_equal(found, r["converged_expected"])
    stays = r["batch"] == model.batches_[own]
    np.testing.assert_array_equal(found[stays], r["counts"][stays])
    model.save(tmp_path / "ref.npz")
    again = bc.load(tmp_path / "ref.npz").transform(r["counts"], **labels)
    np.testing.assert_array_equal(again, found)


def test_a_sparse_matrix_gives_the_same(case):
    r, labels = case
    expected = bc.ComBatSeq(reference="auto").fit_transform(r["counts"], **labels)
    for make in (sp.csr_matrix, sp.csc_matrix):
        counts = make(r["counts"])
        found = bc.ComBatSeq(reference="auto").fit_transform(counts, **labels)
        assert found.format == counts.format
        np.testing.assert_array_equal(found.toarray(), expected)


def test_a_reference_by_name(case):
    r, labels = case
    level = r["batch"][0]
    found = bc.ComBatSeq(reference=level).fit_transform(r["counts"], **labels)
    stays = r["batch"] == level
    np.testing.assert_array_equal(found[stays], r["counts"][stays])
    assert (found[~stays] != r["counts"][~stays]).any()
    with pytest.raises(InputError, match="not one of the batches"):
        bc.ComBatSeq(reference="lab3").fit(r["counts"], **labels)
    with pytest.raises(InputError, match="cannot be combined"):
        bc.ComBatSeq(reference="auto", shrink=True).fit(r["counts"], **labels)
