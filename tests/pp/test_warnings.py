"""Warnings come when they are due, and point at the caller's line."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    AssociationWarning,
    BatchSizeWarning,
    CountsWarning,
    CovariateWarning,
    DensifyWarning,
    collected,
)
from tests.pp.annotated import (
    BATCH,
    COUNTS,
    FEW,
    N,
    annotated,
    record,
    sparse,
    values,
)

TIED = np.where(np.arange(N) % 12 < 10, BATCH == "a", BATCH == "b").astype(str)

DUE = {
    AssociationWarning: (
        lambda: annotated(group=TIED),
        {"covariates": "group"},
        r"'group' is strongly associated with batch \(0\.\d\d.*uncorrected",
    ),
    BatchSizeWarning: (
        lambda: annotated(batch=FEW),
        {},
        r"fewer than 3 samples: 'a' \(2\)",
    ),
    CountsWarning: (
        lambda: annotated(COUNTS * 1.0),
        {},
        "look like raw counts.*log1p",
    ),
    CovariateWarning: (
        lambda: annotated(grade=np.resize([1, 2, 3, 4], N)),
        {"covariates": "grade"},
        "'grade' has only the values 1, 2, 3, 4.*category",
    ),
}


def fit_estimator(adata, batch_key, covariates=None):
    table = None if covariates is None else adata.obs[[covariates]]
    return bc.ComBat().fit(adata.X, batch=adata.obs[batch_key], covariates=table)


@pytest.mark.parametrize("kind", DUE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "face",
    [
        pytest.param(bc.pp.combat, id="pp.combat"),
        pytest.param(partial(bc.pp.correct, method="standardize"), id="pp.correct"),
        pytest.param(bc.fit, id="fit"),
        pytest.param(fit_estimator, id="estimator"),
    ],
)
def test_a_warning_comes_when_due_and_points_at_the_caller(kind, face):
    make, options, message = DUE[kind]
    adata = make()
    with pytest.warns(kind, match=message) as caught:
        face(adata, "batch", **options)
    assert [w.category for w in caught] == [kind]
    assert caught[0].filename == __file__


def test_a_warning_of_fit_transform_points_at_the_caller():
    with pytest.warns(BatchSizeWarning) as caught:
        bc.ComBat().fit_transform(values(), batch=FEW)
    assert caught[0].filename == __file__


@pytest.mark.usefixtures("tiny_is_large")
def test_a_warning_of_transform_points_at_the_caller():
    estimator = bc.ComBat().fit(values(), batch=BATCH)
    with pytest.warns(DensifyWarning) as caught:
        estimator.transform(sparse(), batch=BATCH)
    assert caught[0].filename == __file__


def test_warnings_are_not_given_without_need():
    bc.pp.combat(annotated(), "batch", covariates=["sex", "age"])
    bc.pp.combat(annotated(COUNTS % 15 * 1.0), "batch")  # small integers may be logs
    bc.pp.combat(annotated(COUNTS + 0.5), "batch")
    bc.pp.combat(annotated(batch=np.resize(["a", "b"], N)), "batch")


def test_counts_are_recognized_in_integers_and_sparse():
    for x in (COUNTS, COUNTS.astype(np.float32), sp.csr_matrix(COUNTS)):
        with pytest.warns(CountsWarning):
            bc.pp.standardize(annotated(x), "batch", dense=True)


def test_counts_are_recognized_when_a_correction_of_logs_is_applied():
    correction = bc.fit(annotated(), "batch")
    with pytest.warns(CountsWarning, match="ComBat expects values on a log scale"):
        bc.pp.apply(annotated(COUNTS), correction)


def test_every_thread_records_its_own_warnings():
    """Whatever others do at the same time, and the filters of the process stay."""
    before = list(warnings.filters), warnings.showwarning
    with warnings.catch_warnings(action="ignore"):
        jobs = [annotated(batch=FEW if few else BATCH) for few in [True, False] * 4]
        with ThreadPoolExecutor(len(jobs)) as pool:
            for _ in range(3):
                adatas = [adata.copy() for adata in jobs]
                list(pool.map(lambda adata: bc.pp.combat(adata, "batch"), adatas))
                kinds = [
                    [text.partition(":")[0] for text in record(adata)["warnings"]]
                    for adata in adatas
                ]
                assert kinds == [["BatchSizeWarning"], []] * 4
    assert (list(warnings.filters), warnings.showwarning) == before


def test_a_warning_is_collected_by_all_who_are_listening():
    with collected() as outer:
        with pytest.warns(BatchSizeWarning), collected() as inner:
            bc.pp.combat(annotated(batch=FEW), "batch")
        with pytest.warns(CountsWarning):
            bc.pp.combat(annotated(COUNTS), "batch")
    assert [text.partition(":")[0] for text in inner] == ["BatchSizeWarning"]
    assert [t.partition(":")[0] for t in outer] == ["BatchSizeWarning", "CountsWarning"]
