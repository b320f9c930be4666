"""Nuisances in ComBat-seq: fitted with batch and covariates, removed with batch."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import CovariateWarning, InputError
from batchcorr.estimators.metadata import Labels


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    batch, group = np.repeat(["a", "b", "c"], 12), np.tile([0.0, 1.0], 18)
    rin = rng.normal(7, 1, 36)
    slopes, effect = rng.normal(0, 0.3, 40), rng.normal(0, 0.4, (3, 40))
    log_mu = rng.uniform(4, 8, 40) + effect[np.repeat([0, 1, 2], 12)]
    log_mu = log_mu + np.outer(group, np.arange(40) % 4 == 0) + np.outer(rin, slopes)
    counts = rng.poisson(rng.gamma(50, 1 / 50, (36, 40)) * np.exp(log_mu - slopes * 7))
    kept = {"batch": batch, "covariates": group[:, None]}
    return counts, kept, rin[:, None], slopes


def means(model, counts, labels):
    """Expected counts with and without what is removed."""
    design = model._metadata.design(len(counts), Labels(**labels))
    return model.model_.means(design, np.log(counts.sum(axis=1)), slice(None))


def test_the_slope_is_found_and_removed(data):
    counts, kept, rin, slopes = data
    model = bc.ComBatSeq().fit(counts, **kept, nuisance=rin)
    found = model.model_.coefficients[:, -1]
    assert np.corrcoef(found, slopes)[0, 1] > 0.99
    corrected = model.transform(counts, **kept, nuisance=rin)
    again = bc.ComBatSeq().fit(corrected, **kept, nuisance=rin).model_
    assert np.abs(again.coefficients[:, -1]).max() < 0.05
    group = [each.coefficients[:, 3] for each in (model.model_, again)]
    np.testing.assert_allclose(*group, atol=0.05)


def test_it_is_the_joint_fit_less_its_part_beyond_the_mean(data):
    counts, kept, rin, _ = data
    removed = {**kept, "nuisance": rin}
    together = {**kept, "covariates": np.hstack([kept["covariates"], rin - rin.mean()])}
    model = bc.ComBatSeq().fit(counts, **removed)
    joint = bc.ComBatSeq().fit(counts, **together)
    old, new = means(model, counts, removed)
    old_joint, new_joint = means(joint, counts, together)
    np.testing.assert_allclose(old, old_joint, rtol=1e-7)
    slope = joint.model_.coefficients[:, -1]
    expected = new_joint * np.exp(-np.outer(slope, rin - rin.mean()))
    np.testing.assert_allclose(new, expected, rtol=1e-7)
    np.testing.assert_array_equal(
        bc.ComBatSeq().fit_transform(counts, **kept, nuisance=rin + 5000),
        model.transform(counts, **removed),
    )


def test_what_says_nothing_changes_nothing(data):
    counts, kept, rin, _ = data
    expected = bc.ComBatSeq().fit_transform(counts, **kept)
    of_batch = (kept["batch"] == "b").astype(float)[:, None]
    with pytest.warns(CovariateWarning, match="are determined by"):
        found = bc.ComBatSeq().fit_transform(counts, **kept, nuisance=of_batch)
    np.testing.assert_array_equal(found, expected)
    expected = bc.ComBatSeq().fit_transform(counts, **kept, nuisance=rin)
    both = np.hstack([of_batch, rin])
    with pytest.warns(CovariateWarning, match="are determined by"):
        found = bc.ComBatSeq().fit_transform(counts, **kept, nuisance=both)
    np.testing.assert_array_equal(found, expected)


def test_the_reference_loses_nuisances_alone(data):
    counts, kept, rin, _ = data
    model = bc.ComBatSeq(reference="a").fit(counts, **kept, nuisance=rin)
    found = model.transform(counts, **kept, nuisance=np.full_like(rin, rin.mean()))
    own = kept["batch"] == "a"
    np.testing.assert_array_equal(found[own], counts[own])
    moved = model.transform(counts, **kept, nuisance=rin)
    old, new = (
        each[:, own].T for each in means(model, counts, {**kept, "nuisance": rin})
    )
    np.testing.assert_allclose(model.model_.reference_mean, new.max(axis=0))
    change = np.log((moved[own] + 0.5) / (counts[own] + 0.5))
    close = counts[own] > 200
    np.testing.assert_allclose(change[close], np.log(new / old)[close], atol=0.15)


def test_faces_and_files_take_them(data, tmp_path):
    counts, kept, rin, _ = data
    obs = pd.DataFrame({"batch": kept["batch"], "rin": rin[:, 0]})
    adata = ad.AnnData(counts, obs=obs.set_index(obs.index.map("s{}".format)))
    bc.pp.combat_seq(adata, "batch", nuisance="rin", key_added="corrected")
    assert json.loads(adata.uns["batchcorr"]["corrected"])["nuisance"] == ["rin"]
    correction = bc.fit(adata, "batch", method="combat_seq", nuisance="rin")
    correction.save(tmp_path / "c.npz")
    loaded = bc.load(tmp_path / "c.npz")
    part = adata[5:25].copy()
    bc.pp.apply(part, loaded)
    np.testing.assert_array_equal(part.X, adata.layers["corrected"][5:25])
    with pytest.raises(InputError, match="nuisance effects and needs their values"):
        loaded.transform(counts, batch=kept["batch"])
