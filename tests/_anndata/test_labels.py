"""Covariates, batch factors and nuisances: columns of obs, formulas, tables, arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import batchcorr as bc
from batchcorr.errors import (
    BatchCorrError,
    InputError,
)
from tests.pp.annotated import (
    BATCH,
    N,
    annotated,
    corrected,
    each_method,
    samples,
    values,
)


@each_method
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda _: "sex", id="column"),
        pytest.param(lambda _: ["sex"], id="list"),
        pytest.param(lambda _: ("sex",), id="tuple"),
        pytest.param(lambda _: pd.Index(["sex"]), id="index"),
        pytest.param(lambda _: "~ sex", id="formula"),
        pytest.param(lambda _: "~ C(sex) - 1", id="formula with a call"),
        pytest.param(lambda obs: obs[["sex"]], id="DataFrame"),
        pytest.param(lambda obs: obs["sex"], id="Series"),
        pytest.param(lambda obs: obs[["sex"]].iloc[::-1], id="DataFrame, reversed"),
        pytest.param(lambda obs: obs["sex"].iloc[::-1], id="Series, reversed"),
        pytest.param(
            lambda obs: pd.concat([obs, obs.rename(lambda s: f"x{s}")])[["sex"]],
            id="DataFrame of more samples",
        ),
        pytest.param(
            lambda obs: obs[["sex"]].reset_index(drop=True), id="DataFrame, by position"
        ),
        pytest.param(lambda obs: (obs[["sex"]] == "m").to_numpy(), id="boolean array"),
        pytest.param(lambda obs: (obs[["sex"]] == "m").to_numpy(float), id="array"),
    ],
)
def test_covariates_may_be_given_in_many_ways(method, given):
    adata = annotated()
    bc.pp.correct(adata, "batch", method, covariates=given(samples()))
    expected = corrected(method, covariates=samples()[["sex"]])
    np.testing.assert_allclose(adata.X, expected, rtol=1e-10)
    without = corrected(method)
    assert np.abs(expected - without).max() > 1e-3


def test_a_formula_uses_columns_of_obs():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates="~ sex + age + sex:age")
    obs = samples()
    male = (obs["sex"] == "m") * 1.0
    columns = np.column_stack([male, obs["age"], male * obs["age"]])
    np.testing.assert_allclose(adata.X, corrected(covariates=columns), rtol=1e-8)


def test_a_table_under_other_names_is_refused():
    table = samples()[["sex"]].rename(lambda name: f"{name}-1")
    with pytest.raises(InputError, match="index"):
        bc.pp.combat(annotated(), "batch", covariates=table)


def test_numbered_rows_in_another_order_are_not_taken_by_position():
    table = samples()[["age"]].reset_index(drop=True)
    adata = annotated()
    adata.obs_names = [str(i) for i in range(N)]
    with pytest.raises(InputError, match="index"):
        bc.pp.combat(adata, "batch", covariates=table.iloc[::-1])


def test_an_empty_list_is_no_covariate():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates=[])
    np.testing.assert_array_equal(adata.X, corrected())


def test_several_batch_factors_and_nuisances():
    adata, obs = annotated(), samples()
    bc.pp.remove_batch_effect(
        adata, ["batch", "chip"], covariates="sex", nuisance=["age"]
    )
    estimator = bc.RemoveBatchEffect()
    expected = estimator.fit_transform(
        values(),
        batch=obs[["batch", "chip"]],
        covariates=obs[["sex"]],
        nuisance=obs[["age"]],
    )
    np.testing.assert_array_equal(adata.X, expected)
    # What was removed is gone: the same model finds nothing more.
    again = bc.RemoveBatchEffect().fit(
        adata.X,
        batch=obs[["batch", "chip"]],
        covariates=obs[["sex"]],
        nuisance=obs[["age"]],
    )
    np.testing.assert_allclose(again.details_["effect"], 0, atol=1e-12)
    np.testing.assert_allclose(again.correction_.nuisance, 0, atol=1e-12)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda _: "age", id="column"),
        pytest.param(lambda obs: obs[["age"]].iloc[::-1], id="DataFrame, reversed"),
        pytest.param(lambda obs: obs["age"], id="Series"),
        pytest.param(lambda obs: obs[["age"]].to_numpy(), id="array"),
    ],
)
@pytest.mark.parametrize("batch_key", ["batch", None])
def test_nuisances_may_be_given_in_many_ways(given, batch_key):
    adata = annotated()
    bc.pp.remove_batch_effect(adata, batch_key, nuisance=given(samples()))
    expected = bc.RemoveBatchEffect().fit_transform(
        values(), batch=BATCH if batch_key else None, nuisance=samples()[["age"]]
    )
    np.testing.assert_allclose(adata.X, expected, rtol=1e-12)


def test_weights_reach_the_method():
    weights = np.linspace(0.2, 3, N)
    adata = annotated()
    bc.pp.remove_batch_effect(adata, "batch", weights=weights)
    estimator = bc.RemoveBatchEffect()
    expected = estimator.fit_transform(values(), batch=BATCH, weights=weights)
    np.testing.assert_array_equal(adata.X, expected)
    assert np.abs(expected - corrected("remove_batch_effect")).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"subject": "batch"}, "'batch' is a batch and cannot be the subject"),
        (
            {"subject": "kind", "covariates": ["kind"]},
            "'kind' is a covariate and cannot be the subject",
        ),
        ({"cross": "kind"}, "cross must be True or False, not 'kind'"),
    ],
)
def test_columns_given_for_what_they_are_not_are_refused(options, match):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"batch": np.resize(["u", "v"], 24), "kind": ["B", "T", "T"] * 8}
    )
    adata = AnnData(rng.normal(5, 1, (24, 12)), obs.set_axis(obs.index.astype(str)))
    before = adata.X.copy()
    with pytest.raises(BatchCorrError, match=match):
        bc.pp.combat(adata, "batch", **options)
    np.testing.assert_array_equal(adata.X, before)
