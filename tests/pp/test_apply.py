"""Fit here, apply there: features by name, batches by label, columns remembered."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import (
    FeatureWarning,
    MissingKeyError,
)
from tests.pp.annotated import (
    BATCH,
    GENES,
    G,
    N,
    address,
    annotated,
    corrected,
    each_method,
    record,
    samples,
    values,
)


@each_method
def test_fit_leaves_the_anndata_as_it_is_and_apply_corrects_it(method):
    adata = annotated()
    correction = bc.fit(adata, "batch", method=method)
    np.testing.assert_array_equal(adata.X, values())
    assert "batchcorr" not in adata.uns
    before = address(adata.X)
    assert bc.pp.apply(adata, correction) is None
    np.testing.assert_array_equal(adata.X, corrected(method))
    assert address(adata.X) == before
    assert record(adata)["method"] == method


def test_fit_reads_a_layer():
    adata = annotated(np.zeros((N, G)))
    adata.layers["log"] = values()
    correction = bc.fit(adata, "batch", layer="log")
    bc.pp.apply(adata, correction, layer="log", key_added="new")
    np.testing.assert_array_equal(adata.layers["new"], corrected())
    np.testing.assert_array_equal(adata.layers["log"], values())


@pytest.mark.parametrize("copy", [False, True])
def test_apply_copies_when_asked(copy):
    adata = annotated()
    found = bc.pp.apply(adata, bc.fit(adata, "batch"), copy=copy)
    assert (found is None) is not copy
    np.testing.assert_array_equal(adata.X, values() if copy else corrected())
    np.testing.assert_array_equal((found or adata).X, corrected())


@pytest.mark.parametrize("convert", [np.array, sp.csr_matrix, np.asfortranarray])
def test_features_are_matched_by_name(convert):
    correction = bc.fit(annotated(), "batch")
    order = np.random.default_rng(5).permutation(G)
    adata = annotated(convert(values()))[:, order].copy()
    bc.pp.apply(adata, correction, dense=True)
    np.testing.assert_allclose(adata.X, corrected()[:, order], rtol=1e-12)
    assert list(adata.var_names) == [GENES[j] for j in order]


@pytest.mark.parametrize("convert", [np.array, sp.csr_matrix])
def test_unknown_features_stay_and_are_reported(convert):
    correction = bc.fit(annotated()[:, [4, 1, 6]].copy(), "batch")
    adata = annotated(convert(values()))
    with pytest.warns(
        FeatureWarning, match="5 of 8 features.*left as they are"
    ) as caught:
        bc.pp.apply(adata, correction, dense=True)
    assert caught[0].filename == __file__
    known, unknown = [4, 1, 6], [0, 2, 3, 5, 7]
    expected = bc.ComBat().fit_transform(values()[:, known], batch=BATCH)
    np.testing.assert_allclose(adata.X[:, known], expected, rtol=1e-12)
    np.testing.assert_array_equal(adata.X[:, unknown], values()[:, unknown])
    assert any("FeatureWarning" in text for text in record(adata)["warnings"])


def test_missing_features_are_an_error():
    correction = bc.fit(annotated(), "batch")
    adata = annotated()[:, [0, 1, 2, 4, 5]].copy()
    with pytest.raises(MissingKeyError, match=r"3 of 8 features.*g3, g6, g7"):
        bc.pp.apply(adata, correction)
    np.testing.assert_array_equal(adata.X, values()[:, [0, 1, 2, 4, 5]])


def test_other_samples_are_corrected_row_by_row():
    correction = bc.fit(annotated(), "batch", covariates=["sex", "age"])
    rows = [30, 3, 17]
    adata = annotated()[rows].copy()
    bc.pp.apply(adata, correction)
    expected = corrected(covariates=samples()[["sex", "age"]])[rows]
    np.testing.assert_allclose(adata.X, expected, rtol=1e-12)


@pytest.mark.parametrize("learned", [int, str, float, "category"], ids=str)
@pytest.mark.parametrize("met", [int, str, float, "category"], ids=str)
def test_batches_1_and_1_as_text_are_the_same(learned, met):
    codes = pd.Series(np.repeat([1, 2, 10], N // 3))
    correction = bc.fit(annotated(batch=codes.astype(learned).array), "batch")
    text = codes.astype(str).astype(met) if met == "category" else codes.astype(met)
    adata = annotated(batch=text.array)
    bc.pp.apply(adata, correction)
    np.testing.assert_allclose(adata.X, corrected(), rtol=1e-12)


def test_apply_takes_columns_of_other_names():
    correction = bc.fit(annotated(), "batch", covariates="sex")
    adata = annotated()
    adata.obs = adata.obs.rename(columns={"batch": "plate", "sex": "gender"})
    with pytest.raises(MissingKeyError, match="'batch'"):
        bc.pp.apply(adata, correction)
    table = adata.obs[["gender"]].rename(columns={"gender": "sex"})
    bc.pp.apply(adata, correction, batch_key="plate", covariates=table)
    np.testing.assert_array_equal(adata.X, corrected(covariates=samples()[["sex"]]))
    assert record(adata)["batch"] == "plate"


@pytest.mark.parametrize("covariates", [None, "sex", ["sex", "age"], "~ sex + age"])
def test_a_saved_correction_knows_its_columns(covariates, tmp_path):
    adata = annotated()
    correction = bc.fit(adata, "batch", covariates=covariates)
    correction.save(tmp_path / "correction.npz")
    loaded = bc.load(tmp_path / "correction.npz")
    other = annotated()[:, ::-1].copy()
    bc.pp.apply(adata, correction)
    bc.pp.apply(other, loaded)
    np.testing.assert_array_equal(other.X[:, ::-1], adata.X)
    direct = annotated()
    bc.pp.combat(direct, "batch", covariates=covariates)
    np.testing.assert_array_equal(adata.X, direct.X)


def test_a_saved_linear_correction_knows_factors_and_nuisances(tmp_path):
    adata = annotated()
    correction = bc.fit(
        adata,
        ["batch", "chip"],
        method="remove_batch_effect",
        covariates="sex",
        nuisance="age",
    )
    correction.save(tmp_path / "correction.npz")
    bc.pp.apply(adata, bc.load(tmp_path / "correction.npz"))
    direct = annotated()
    bc.pp.remove_batch_effect(
        direct, ["batch", "chip"], covariates="sex", nuisance="age"
    )
    np.testing.assert_array_equal(adata.X, direct.X)


def test_apply_asks_for_covariates_only_where_values_are_scaled():
    without = annotated()
    del without.obs["sex"]
    for options in ({"mean_only": True}, {"method": "remove_batch_effect"}):
        correction = bc.fit(annotated(), "batch", covariates="sex", **options)
        adata = without.copy()
        bc.pp.apply(adata, correction)
    scaled = bc.fit(annotated(), "batch", covariates="sex")
    with pytest.raises(MissingKeyError, match="covariate 'sex'"):
        bc.pp.apply(without, scaled)


def test_a_correction_learned_from_arrays_can_be_applied():
    estimator = bc.ComBat().fit(values(), batch=BATCH)
    adata = annotated()
    bc.pp.apply(adata, estimator, batch_key="batch")
    np.testing.assert_array_equal(adata.X, corrected())


def test_a_correction_learned_from_columns_of_a_table_can_be_applied():
    table = pd.DataFrame(values(), columns=GENES).assign(batch=BATCH)
    estimator = bc.ComBat(batch_column="batch").fit(table)
    adata = annotated()
    bc.pp.apply(adata, estimator, batch_key="batch")
    np.testing.assert_array_equal(adata.X, corrected())


def test_new_batches_join_a_correction():
    correction = bc.fit(annotated(), "batch")
    new = annotated(values() + 3, batch="new")
    grown = correction.add_batches(new.X, batch=new.obs["batch"])
    bc.pp.apply(new, grown)
    assert grown.batches_ == ("a", "b", "c", "new")
    assert abs(new.X.mean() - corrected().mean()) < 0.1
