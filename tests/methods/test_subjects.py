"""Random intercepts of subjects in corrections, against longitudinal ComBat's formulas."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, InputError
from batchcorr.estimators.metadata import Labels
from tests.cli.commands import done


@pytest.fixture(params=["04_longitudinal", "05_longitudinal_two_batches"])
def case(request, golden):
    r = golden(f"combat_relatives_{request.param}")
    kept = np.setdiff1d(np.arange(1, r["design"].shape[1]), r["batch_columns0"])
    labels = {
        "batch": r["batch"],
        "covariates": r["design"][:, kept],
        "subject": r["subject"],
    }
    return r, labels


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_every_step_is_that_of_the_formula_in_r(case, tmp_path):
    r, labels = case
    model = bc.ComBat().fit(r["input"], **labels)
    sigma, predicted = r["msr_sigma"], r["predicted"]
    np.testing.assert_allclose(model.aim_.scale, sigma, rtol=1e-9)
    codes = np.unique(r["batch"], return_inverse=True)[1]
    effects = r["batch_effects"]
    star = model.details_
    np.testing.assert_allclose(star["gamma_hat"], effects / sigma, atol=1e-8)
    ratio = (r["sigma"] / sigma) ** 2
    np.testing.assert_allclose(star["delta_hat"], r["delta_hat"] * ratio, rtol=1e-8)
    # R goes round 30 times with both updates from the round before; here sva's rule stops.
    found = model.transform(r["input"], **labels)
    np.testing.assert_allclose(found, r["msr_expected"], atol=2e-3)
    z = (r["input"] - predicted + effects[codes]) / sigma
    z = (z - star["gamma_star"][codes]) / np.sqrt(star["delta_star"][codes])
    np.testing.assert_allclose(found, z * sigma + predicted - effects[codes], atol=1e-7)
    model.save(tmp_path / "subjects.npz")
    again = bc.load(tmp_path / "subjects.npz").transform(r["input"], **labels)
    np.testing.assert_array_equal(again, found)


def repeated(seed=0):
    """30 persons measured in two batches, 30 more in one."""
    rng = np.random.default_rng(seed)
    person = np.concatenate([np.arange(30), np.arange(30), np.arange(30, 60)])
    batch = np.repeat(["a", "b", "a"], 30)
    batch[75:] = "b"
    own = rng.normal(0, 2, (60, 40))
    own[30:45] += 3  # of those in batch a alone
    x = own[person] + rng.normal(0, 0.5, (90, 40))
    x += (batch == "b")[:, None] * rng.normal(1, 1, 40)
    return 8 + x, batch, pd.Series([f"p{k}" for k in person], name="person")


@pytest.mark.parametrize("method", [bc.ComBat, bc.RemoveBatchEffect, bc.Standardize])
def test_batch_effects_are_known_better_by_persons_seen_twice(method):
    x, batch, person = repeated()
    for subject, far in ((None, True), (person, False)):
        y = method().fit_transform(x, batch=batch, subject=subject)
        between = np.abs(y[:30] - y[30:60]).mean()  # the same persons
        assert (between > 0.8) == far


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
def test_standardize_is_the_formula_about_predicted_intercepts(case):
    r, labels = case
    x, codes = r["input"], np.unique(r["batch"], return_inverse=True)[1]
    effects, predicted = r["batch_effects"], r["predicted"]
    left, n = x - predicted, np.bincount(codes)
    squares = np.stack([(left[codes == b] ** 2).sum(axis=0) for b in range(len(n))])
    spare = len(x) - len(n) - labels["covariates"].shape[1]
    scale = np.sqrt(squares.sum(axis=0) / spare / (squares / (n - 1)[:, None]))
    found = bc.Standardize().fit_transform(x, **labels)
    expected = left * scale[codes] + predicted - effects[codes]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_new_samples_of_known_persons():
    x, batch, person = repeated()
    model = bc.ComBat().fit(x, batch=batch, subject=person)
    whole = model.transform(x, batch=batch, subject=person)
    part = model.transform(x[20:50], batch=batch[20:50], subject=person[20:50])
    np.testing.assert_allclose(part, whole[20:50], atol=1e-12)
    with pytest.raises(InputError, match="give covariates= with person"):
        model.transform(x, batch=batch)


def test_refusals():
    x, batch, person = repeated()
    with pytest.raises(DesignError, match="Every subject has only one sample"):
        bc.ComBat().fit(x, batch=batch, subject=np.arange(90))
    with pytest.raises(InputError, match=r"covbat has no subject.*standardize"):
        bc.CovBat().fit_labels(x, Labels(batch, subject=person))
    with pytest.raises(InputError, match="subjects cannot be kept"):
        bc.Standardize(target="unit").fit(x, batch=batch, subject=person)
    with pytest.raises(InputError, match="cannot be combined"):
        bc.RemoveBatchEffect().fit(x, batch=batch, subject=person, weights=np.ones(90))
    x[0, 0] = np.nan
    with pytest.raises(InputError, match="subject= does not allow"):
        bc.ComBat().fit(x, batch=batch, subject=person)


def test_faces_name_the_column(tmp_path):
    x, batch, person = repeated()
    obs = pd.DataFrame({"batch": batch, "person": person.to_numpy()})
    obs.index = [f"s{k}" for k in range(90)]
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{k}" for k in range(40)]))
    expected = bc.ComBat().fit_transform(x, batch=batch, subject=person)
    found = bc.pp.combat(adata, "batch", subject="person", copy=True)
    np.testing.assert_allclose(found.X, expected, atol=1e-12)
    assert json.loads(found.uns["batchcorr"]["X"])["subject"] == "person"
    correction = bc.fit(adata, "batch", subject="person")
    correction.save(tmp_path / "c.npz")
    again = bc.pp.apply(adata, bc.load(tmp_path / "c.npz"), copy=True)
    np.testing.assert_allclose(again.X, expected, atol=1e-12)
    adata.write_h5ad(tmp_path / "in.h5ad")
    options = ["--batch", "batch", "--subject", "person"]
    done("correct", tmp_path / "in.h5ad", tmp_path / "out.h5ad", *options)
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(written.X, expected, atol=1e-12)
