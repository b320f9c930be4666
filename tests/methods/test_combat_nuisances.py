"""Nuisances in ComBat: fitted with batch and covariates, and removed with batch."""

from __future__ import annotations

import numpy as np
import pytest

import batchcorr as bc
from batchcorr.errors import InputError


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    batch, group = np.repeat([0, 1, 2], 16), np.tile([0.0, 1.0], 24)
    age = rng.normal(50, 9, 48) + 5 * batch
    scale = np.array([0.5, 1.0, 2.0])[batch][:, None]
    x = 8 + rng.normal(size=(48, 60)) * scale + 0.1 * age[:, None] + group[:, None]
    return x + rng.normal(0, 1, (3, 60))[batch], batch, group[:, None], age[:, None]


def test_it_is_combat_of_what_a_joint_fit_leaves_of_them(data):
    x, batch, group, age = data
    model = bc.ComBat()
    found = model.fit_transform(x, batch=batch, covariates=group, nuisance=age)
    design = np.hstack([np.eye(3)[batch], group, age])
    eta = np.linalg.lstsq(design, x, rcond=None)[0][-1:]
    without = x - (age - age.mean()) @ eta
    expected = bc.ComBat().fit(without, batch=batch, covariates=group)
    np.testing.assert_allclose(
        found, expected.transform(without, batch=batch, covariates=group), atol=1e-9
    )
    np.testing.assert_allclose(model.aim_.location, expected.aim_.location, atol=1e-9)
    part = model.transform(
        x[9:30], batch=batch[9:30], covariates=group[9:30], nuisance=age[9:30]
    )
    np.testing.assert_allclose(part, found[9:30], atol=1e-12)


def test_moments_say_what_becomes_of_them(data, tmp_path):
    x, batch, _, age = data
    model = bc.ComBat().fit(x, batch=batch, nuisance=age)
    model.save(tmp_path / "c.npz")
    found = bc.load(tmp_path / "c.npz").transform(x, batch=batch, nuisance=age)
    np.testing.assert_array_equal(found, model.transform(x, batch=batch, nuisance=age))
    after = model.correction_.moments(model.moments_, 0)
    means = np.stack([found[batch == b].mean(axis=0) for b in range(3)])
    np.testing.assert_allclose(after.mean, means, atol=1e-9)


def test_refusals(data):
    x, batch, _, age = data
    model = bc.ComBat().fit(x, batch=batch, nuisance=age)
    with pytest.raises(InputError, match="nuisance effects and needs their values"):
        model.transform(x, batch=batch)
    with pytest.raises(InputError, match="cannot be inverted"):
        model.inverse_transform(x, batch=batch)
    with pytest.raises(InputError, match="standardize has no nuisance"):
        bc.Standardize().fit(x, batch=batch, nuisance=age)
