"""CovBat, against the formulas in R, and what every correction promises."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError
from tests.conftest import tensor

pytestmark = pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")


@pytest.fixture
def case(golden):
    def read(name):
        r = golden(f"combat_relatives_{name}")
        if "input" not in r:
            r["input"] = golden(str(r["input_from"]).removesuffix(".npz"))["input"]
        return r

    return read


@pytest.mark.parametrize(
    "name",
    [
        "01_covbat_bladder",
        "02_covbat_more_samples_than_features",
        "03_covbat_npc_unscaled_score_eb",
    ],
)
def test_it_gives_the_values_of_the_formula_in_r(case, name):
    r = case(name)
    model = bc.CovBat(
        n_components=int(r["n_pc"]) if r["n_pc_given"] else None,
        explained=float(r["percent_var"]),
        scale_features=bool(r["std_var"]),
    )
    labels = {"batch": r["batch"], "covariates": r.get("covariates")}
    found = model.fit_transform(r["input"], **labels)
    if not r["score_eb"]:  # which depends on the signs of components
        np.testing.assert_allclose(found, r["expected"], rtol=1e-9, atol=1e-9)
    low_rank = model.low_rank_
    assert low_rank.rotation.shape[1] == r["n_pc"]
    rotation = low_rank.rotation
    signs = np.sign((rotation * r["rotation"]).sum(axis=0))
    np.testing.assert_allclose(rotation * signs, r["rotation"], atol=1e-8)
    np.testing.assert_allclose(model.details_["gamma_star"], r["gamma_star"], atol=1e-8)
    np.testing.assert_allclose(model.details_["delta_star"], r["delta_star"], atol=1e-8)
    np.testing.assert_allclose(
        model.inverse_transform(found, **labels), r["input"], atol=1e-9
    )


def test_scores_are_unshrunk_combat_s(case):
    r = case("01_covbat_bladder")
    k = int(r["n_pc"])
    model = bc.ComBat(shrink=False)
    found = model.fit_transform(r["scores"][:, :k], batch=r["batch"])
    np.testing.assert_allclose(found, r["scores_adjusted"][:, :k], atol=1e-12)
    np.testing.assert_allclose(model.aim_.scale**2, r["score_var_pooled"], rtol=1e-10)


@pytest.fixture
def known(case):
    r = case("01_covbat_bladder")
    return r["input"], r["batch"], pd.DataFrame(r["covariates"], columns=["a", "b"])


def test_it_is_frozen_and_applied_row_by_row(known, tmp_path):
    x, batch, covariates = known
    model = bc.CovBat().fit(x, batch=batch, covariates=covariates)
    whole = model.transform(x, batch=batch, covariates=covariates)
    model.save(tmp_path / "covbat.npz")
    some = np.arange(0, 57, 5)
    for each in (model, bc.load(tmp_path / "covbat.npz")):
        part = each.transform(
            x[some], batch=batch[some], covariates=covariates.iloc[some]
        )
        np.testing.assert_allclose(part, whole[some], atol=1e-12)
    with pytest.raises(InputError, match="covariates are needed"):
        model.transform(x, batch=batch)


@pytest.mark.filterwarnings("ignore:The covariates fit every sample")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scores_of_a_batch_that_covariates_explain_are_moved_and_not_scaled(dtype):
    rng = np.random.default_rng(0)
    batch = np.repeat([0, 1, 2], [12, 12, 3])
    group = pd.DataFrame({"group": [*"x" * 12, *"y" * 12, *"xyz"]})
    x = (100 + rng.normal(size=(27, 20)) + rng.normal(size=(3, 20))[batch]).astype(
        dtype
    )
    model = bc.CovBat().fit(x, batch=batch, covariates=group)
    np.testing.assert_array_equal(model.low_rank_.scale[2], 1.0)
    nearby = bc.CovBat().fit_transform(x + x * 1e-7, batch=batch, covariates=group)
    found = model.transform(x, batch=batch, covariates=group)
    np.testing.assert_allclose(found, nearby, atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [sp.csr_matrix, lambda x: da.from_array(x, chunks=(20, 30)), tensor, np.float32],
    ids=["csr", "dask", "torch", "float32"],
)
def test_every_kind_of_matrix_gives_the_same(known, make):
    x, batch, _ = known
    expected = bc.CovBat().fit_transform(x, batch=batch)
    given = make(x)
    found = bc.CovBat().fit_transform(given, batch=batch)
    assert sp.issparse(given) or type(found) is type(given)
    tolerance = 1e-4 if given.dtype == np.float32 else 1e-10
    np.testing.assert_allclose(np.asarray(found), expected, atol=tolerance)


def test_copy_false_writes_into_the_input_once_it_is_fitted(known):
    x, batch, _ = known
    expected = bc.CovBat().fit_transform(x, batch=batch)
    given = x.copy()
    model = bc.CovBat(copy=False).fit(given, batch=batch)
    np.testing.assert_array_equal(given, x)
    assert model.transform(given, batch=batch) is given
    np.testing.assert_array_equal(given, expected)


def test_constant_features_stay(known):
    x, batch, _ = known
    more = np.insert(x, 3, 2.0, axis=1)
    with pytest.warns(UserWarning, match="constant"):
        found = bc.CovBat().fit_transform(more, batch=batch)
    np.testing.assert_array_equal(found[:, 3], 2.0)
    expected = bc.CovBat().fit_transform(x, batch=batch)
    np.testing.assert_allclose(np.delete(found, 3, axis=1), expected, atol=1e-10)


def test_refusals(known):
    x, batch, _ = known
    missing = x.copy()
    missing[0, 0] = np.nan
    with pytest.raises(InputError, match="components need complete samples"):
        bc.CovBat().fit(missing, batch=batch)
    for options, message in (
        ({"n_components": 99}, "more than the"),
        ({"n_components": 0}, "at least 1"),
        ({"explained": 1.0}, "between 0 and 1"),
    ):
        with pytest.raises(InputError, match=message):
            bc.CovBat(**options).fit(x, batch=batch)
    model = bc.CovBat().fit(x, batch=batch)
    for verb in (model.partial_fit, model.add_batches):
        with pytest.raises(InputError, match="covariances of features"):
            verb(x, batch=batch)


def test_unshrunk_combat_takes_each_batch_s_own_mean_and_variance(known):
    x, batch, _ = known
    model = bc.ComBat(shrink=False)
    y = model.fit_transform(x, batch=batch)
    means = np.stack([x[batch == b].mean(axis=0) for b in np.unique(batch)])
    left = x - means[np.unique(batch, return_inverse=True)[1]]
    for b in np.unique(batch):
        np.testing.assert_allclose(y[batch == b].mean(axis=0), x.mean(axis=0))
        own = y[batch == b].var(axis=0, ddof=1)
        np.testing.assert_allclose(
            own, (left**2).mean(axis=0)
        )  # over n, as neuroCombat
    one = bc.ComBat(shrink=False).fit_transform(x[:, :1], batch=batch)
    np.testing.assert_allclose(one, y[:, :1], atol=1e-12)
    with pytest.raises(InputError, match="no prior without shrinkage"):
        bc.ComBat(shrink=False, parametric=False).fit(x, batch=batch)
