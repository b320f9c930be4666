"""Records say what was done to a matrix, and that it was done before."""

from __future__ import annotations

import json
import re

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr._anndata.records import key_of
from batchcorr.errors import (
    BatchSizeWarning,
    DensifyWarning,
    InputError,
    RepeatWarning,
)
from tests.pp.annotated import (
    BATCH,
    FEW,
    G,
    N,
    annotated,
    each_method,
    record,
    sparse,
    values,
)


def test_the_record_says_what_was_done():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates=["sex", "age"], reference="b")
    found = record(adata)
    assert found["method"] == "combat"
    assert found["parameters"] == {
        "parametric": True,
        "mean_only": False,
        "shrink": True,
        "cross": False,
        "reference": "b",
        "formula": None,
    }
    assert found["source"] == "X"
    assert found["batch"] == "batch"
    assert found["batches"] == ["a", "b", "c"]
    assert found["kept"] == ["sex", "age"]
    assert (found["n_obs"], found["n_vars"]) == (N, G)
    assert found["features_unchanged"] == 0
    assert found["warnings"] == []
    assert found["versions"]["numpy"] == np.__version__
    assert {"batchcorr", "scipy", "numba"} <= found["versions"].keys()


@each_method
def test_the_record_warns_of_testing(method):
    adata = annotated()
    bc.pp.correct(adata, "batch", method)
    assert record(adata)["testable"] is False
    assert "not for differential testing" in record(adata)["note"]


def test_the_record_says_that_one_batch_left_nothing_to_remove():
    adata = annotated()
    adata.obs["one"] = "a"
    bc.pp.standardize(adata, "one")
    assert record(adata)["note"].startswith("There was one batch only")


def test_the_record_keeps_a_formula():
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates="~ sex * poly(age, 2)")
    assert record(adata)["parameters"]["formula"] == "~ sex * poly(age, 2)"
    assert record(adata)["kept"][:2] == ["sex", "poly(age, 2)"]


def test_the_record_names_features_left_as_they_were():
    x = values()
    x[BATCH == "b", 2] = 4.0
    adata = annotated(x)
    bc.pp.combat(adata, "batch")
    assert record(adata)["features_unchanged"] == 1
    assert record(adata)["features_unchanged_names"] == ["g2"]


def test_the_record_names_what_was_removed():
    adata = annotated()
    bc.pp.remove_batch_effect(adata, ["batch", "chip"], nuisance=["age"])
    found = record(adata)
    assert found["batch"] == ["batch", "chip"]
    assert '"age"' in json.dumps(found), "the nuisance is not recorded"


@pytest.mark.usefixtures("tiny_is_large")
def test_the_record_keeps_the_warnings():
    adata = annotated(sparse(), batch=FEW)
    with pytest.warns(BatchSizeWarning), pytest.warns(DensifyWarning):
        bc.pp.combat(adata, "batch")
    kinds = [text.partition(":")[0] for text in record(adata)["warnings"]]
    assert {"BatchSizeWarning", "DensifyWarning"} <= {*kinds}
    with pytest.warns(BatchSizeWarning), pytest.warns(RepeatWarning):
        bc.pp.combat(adata, "batch")
    kinds = [text.partition(":")[0] for text in record(adata)["warnings"]]
    assert {"BatchSizeWarning", "RepeatWarning"} <= {*kinds}
    assert "DensifyWarning" not in kinds


def test_records_of_several_layers_stand_beside_each_other():
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="one")
    bc.pp.standardize(adata, "batch", key_added="two")
    assert record(adata, "one")["method"] == "combat"
    assert record(adata, "two")["method"] == "standardize"


def test_a_copy_has_its_own_records():
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="one")
    bc.pp.combat(adata, "batch", key_added="two", copy=True)
    assert list(adata.uns["batchcorr"]) == ["one"]


@pytest.mark.parametrize("file", ["data.h5ad", "data.zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning:(anndata|zarr).*")
@pytest.mark.filterwarnings("ignore::FutureWarning:(anndata|zarr).*")
def test_records_survive_a_file(file, tmp_path):
    adata = annotated()
    bc.pp.combat(adata, "batch", covariates="~ sex + age", reference="a")
    adata.layers["more"] = values()
    bc.pp.standardize(adata, "chip", layer="more", key_added="chips")
    if file.endswith("zarr"):
        adata.write_zarr(tmp_path / file)
        again = ad.read_zarr(tmp_path / file)
    else:
        adata.write_h5ad(tmp_path / file)
        again = ad.read_h5ad(tmp_path / file)
    assert record(again) == record(adata)
    assert record(again, "chips") == record(adata, "chips")
    np.testing.assert_array_equal(again.X, adata.X)
    with pytest.warns(RepeatWarning, match="X was corrected before, by combat"):
        bc.pp.combat(again, "batch")


def test_correcting_twice_warns():
    adata = annotated()
    bc.pp.combat(adata, "batch")
    with pytest.warns(RepeatWarning, match="X was corrected before, by combat") as one:
        bc.pp.standardize(adata, "batch")
    with pytest.warns(RepeatWarning, match="by standardize") as two:
        bc.pp.combat(adata, "batch", key_added="new")
    assert [w.filename for w in (*one, *two)] == [__file__] * 2
    with pytest.warns(RepeatWarning, match="layer 'new'"):
        bc.pp.combat(adata, "batch", layer="new")


def test_correcting_a_layer_after_another_does_not_warn():
    adata = annotated()
    adata.layers["log"] = values()
    bc.pp.combat(adata, "batch")
    bc.pp.combat(adata, "batch", layer="log")
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="combat")
    bc.pp.standardize(adata, "batch", key_added="standardized")


def test_a_layer_called_x_is_not_x():
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="X")
    bc.pp.standardize(adata, "batch", key_added="standardized")


def test_applying_to_what_was_corrected_warns():
    adata = annotated()
    correction = bc.fit(adata, "batch")
    bc.pp.apply(adata, correction)
    with pytest.warns(RepeatWarning, match="X was corrected before") as caught:
        bc.pp.apply(adata, correction)
    assert caught[0].filename == __file__


# -- a matrix that was made anew ------------------------------------------------------


def raw_counts():
    rng = np.random.default_rng(7)
    adata = annotated(rng.negative_binomial(5, 0.05, (N, G)).astype(float))
    adata.layers["counts"] = adata.X.copy()
    return adata


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_logs_taken_anew_are_no_repeat(kind):
    adata = raw_counts()
    adata.layers["counts"] = kind(adata.layers["counts"])
    for options in ({}, {"mean_only": True}):
        adata.X = adata.layers["counts"].copy()
        bc.pp.log_normalize(adata)
        bc.pp.combat(adata, "batch", dense=True, **options)
    steps = record(adata)["earlier"]
    assert [step["method"] for step in steps] == ["log_normalize"]


def test_the_uncorrected_values_of_raw_are_tested_once_the_record_is_deleted_as_said():
    adata = annotated(values())
    adata.raw = adata
    bc.pp.combat(adata, "batch")
    back = adata[1:].raw.to_adata()  # X of fewer samples, and the record of all
    with pytest.raises(InputError) as refused:
        bc.tl.differential(back, "batch", "sex")
    said = re.search(
        r"If X has been replaced by new values since then, .*: del adata\.uns(.*)\.$",
        str(refused.value),
    )
    assert said[1] == "['batchcorr']['X']"
    del back.uns["batchcorr"]["X"]
    assert len(bc.tl.differential(back, "batch", "sex")) == G


@pytest.mark.parametrize("kind", [np.asarray, np.float32, sp.csr_matrix, sp.csc_matrix])
def test_uncorrected_values_put_back_are_no_repeat(kind):
    adata = annotated(kind(values()))
    adata.layers["log"] = adata.X.copy()
    bc.pp.combat(adata, "batch", dense=True)
    adata.X = adata.layers["log"].copy()
    bc.pp.standardize(adata, "batch", dense=True)
    assert record(adata)["earlier"] == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: x, id="nothing"),
        pytest.param(lambda x: x - x.mean(axis=0), id="scaled"),
        pytest.param(lambda x: x + np.eye(*x.shape), id="some values"),
        pytest.param(np.asfortranarray, id="another order"),
    ],
)
def test_corrected_values_changed_by_hand_are_still_corrected(change):
    adata = annotated()
    bc.pp.combat(adata, "batch")
    adata.X = change(adata.X)
    with pytest.warns(RepeatWarning, match=r"del adata\.uns\['batchcorr'\]\['X'\]"):
        bc.pp.standardize(adata, "batch")
    del adata.uns["batchcorr"]["X"]
    bc.pp.standardize(adata, "batch")


@pytest.mark.parametrize("kind", [np.copy, np.float32, sp.csr_matrix, sp.csc_array])
def test_copies_of_corrected_values_are_not_tested(kind):
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="corrected")
    adata.layers["copy"] = kind(adata.layers["corrected"])
    with pytest.raises(InputError, match="was corrected by combat"):
        bc.tl.differential(adata, "batch", "sex", layer="copy")


def test_a_part_of_corrected_values_is_still_corrected():
    adata = annotated()
    bc.pp.combat(adata, "batch")
    part = adata[:, 2:].copy()
    with pytest.warns(RepeatWarning):
        bc.pp.combat(part, "batch")


def test_corrected_counts_stay_corrected_through_logarithms():
    adata = raw_counts()
    bc.pp.combat_seq(adata, "batch")
    bc.pp.log_normalize(adata)
    with pytest.warns(RepeatWarning, match="by combat_seq"):
        bc.pp.combat(adata, "batch")
    steps = [step["method"] for step in record(adata)["earlier"]]
    assert steps == ["combat_seq", "log_normalize"]


def test_a_layer_remembers_what_its_source_went_through():
    adata = annotated()
    bc.pp.combat(adata, "batch")
    with pytest.warns(RepeatWarning):
        bc.pp.standardize(adata, "batch", key_added="again")
    assert [step["method"] for step in record(adata, "again")["earlier"]] == ["combat"]


# -- what readers of records need -----------------------------------------------------


def test_the_log_base_is_recorded():
    adata = raw_counts()
    bc.pp.log_normalize(adata, base=2, key_added="logs")
    bc.pp.combat(adata, "batch", layer="logs", key_added="corrected")
    assert record(adata, "logs")["log_base"] == 2
    assert record(adata, "corrected")["log_base"] == 2
    bc.pp.combat_seq(adata, "batch", layer="counts", key_added="seq")
    assert record(adata, "seq")["log_base"] is None
    adata.uns["log1p"] = {"base": None}  # as scanpy leaves it: natural
    bc.pp.log_normalize(adata, key_added="natural")
    assert record(adata, "natural")["log_base"] == pytest.approx(np.e)


def test_what_follows_a_correction_is_not_for_testing_either():
    adata = annotated()
    bc.pp.quantile_normalize(adata, key_added="even")
    assert record(adata, "even")["testable"] is True
    bc.pp.combat(adata, "batch")
    bc.pp.quantile_normalize(adata)
    assert record(adata)["testable"] is False


def test_components_have_a_record():
    adata = annotated()
    bc.tl.pca(adata, "batch", covariates=["sex"], n_comps=3, mean_only=True)
    found = record(adata, "obsm X_pca")
    assert found["method"] == "combat"
    assert (found["batch"], found["covariates"]) == ("batch", ["sex"])
    assert found["parameters"]["mean_only"] is True
    assert found["n_comps"] == 3
    assert "X" not in adata.uns["batchcorr"]
    bc.pp.combat(adata, "batch")
    with pytest.warns(RepeatWarning):
        bc.tl.pca(adata, "batch", n_comps=3)


def test_fit_and_apply_record_the_warnings_of_fit(tmp_path):
    with pytest.warns(BatchSizeWarning) as caught:
        correction = bc.fit(annotated(batch=FEW), "batch")
    of_fit = [w for w in caught if w.category is BatchSizeWarning]
    expected = [f"BatchSizeWarning: {w.message}" for w in of_fit]
    assert len(expected) == 1
    correction.save(tmp_path / "correction.npz")
    for known in (correction, bc.load(tmp_path / "correction.npz")):
        adata = annotated(batch=FEW)
        bc.pp.apply(adata, known)
        assert record(adata)["warnings"] == expected


# -- keys -----------------------------------------------------------------------------


def test_keys_are_not_shared():
    layers = ["X", "layer X", "obsm X_pca", "layer obsm X_pca", "X.log_normalize"]
    keys = [key_of(), key_of(obsm="X_pca"), *map(key_of, layers)]
    assert len(set(keys)) == len(keys)
    assert key_of("X.log_normalize") == "X.log_normalize"


def test_a_layer_with_a_dot_is_not_the_normalization_of_another():
    adata = raw_counts()
    bc.pp.log_normalize(adata)
    bc.pp.combat(adata, "batch", key_added="X.log_normalize")
    bc.pp.combat(adata, "batch")
    with pytest.warns(RepeatWarning):
        bc.pp.combat(adata, "batch", layer="X.log_normalize")
    assert record(adata, "X.log_normalize")["method"] == "combat"


def test_records_of_0_1_0_are_read_and_replaced():
    old = {"for_testing": False, "source": "X", "warnings": [], "parameters": {}}
    adata = annotated()
    adata.uns["batchcorr"] = {
        "X": json.dumps(old | {"method": "combat"}),
        "X.log_normalize": json.dumps(
            old | {"method": "log_normalize", "for_testing": True}
        ),
    }
    with pytest.warns(RepeatWarning, match="by combat"):
        bc.pp.standardize(adata, "batch")
    assert list(adata.uns["batchcorr"]) == ["X"]
    steps = record(adata)["earlier"]
    assert [step["method"] for step in steps] == ["log_normalize", "combat"]
    assert [step["testable"] for step in steps] == [True, False]


def test_results_have_names_that_are_free():
    adata = bc.datasets.bladder()[:, :30].copy()
    before = adata.X.copy()
    for name in ("", 5):
        with pytest.raises(InputError, match="is no name for a result"):
            bc.pp.standardize(adata, "batch", key_added=name)
    np.testing.assert_array_equal(adata.X, before)
    for call in (
        lambda: bc.tl.pca(adata, "batch", n_comps=2, key_added="batchcorr"),
        lambda: bc.tl.differential(adata, None, "cancer", key_added="batchcorr"),
    ):
        with pytest.raises(InputError, match="holds the records"):
            call()


def test_normalized_by_0_1_0_is_not_corrected():
    adata = annotated()
    old = {"method": "log_normalize", "for_testing": True}
    adata.uns["batchcorr"] = {"X.log_normalize": json.dumps(old)}
    bc.pp.combat(adata, "batch")
    assert [step["method"] for step in record(adata)["earlier"]] == ["log_normalize"]


def test_what_was_corrected_is_neither_fitted_nor_searched_in_silence():
    adata = annotated()
    bc.pp.combat(adata, "batch", key_added="corrected")
    bc.fit(adata, "batch")
    with pytest.warns(
        RepeatWarning, match="'corrected' was corrected before, by combat"
    ):
        bc.fit(adata, "batch", layer="corrected")
    with pytest.warns(RepeatWarning, match=r"corrected before, by combat.*null="):
        bc.tl.surrogate_variables(
            adata,
            covariates="sex",
            layer="corrected",
            method="ruvr",
            n_variables=1,
        )
