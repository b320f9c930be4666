"""Values that were corrected before, known by their moments; and batch-free ones that were not."""

from __future__ import annotations

import numpy as np
import pytest

import batchcorr as bc
from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.estimators.fit_warnings import find_corrected


def study(rng, effect):
    """Batches of unlike size and variance, a group, and strong common factors."""
    n_batches = int(rng.integers(2, 9))
    n = int(rng.integers(max(12, 4 * n_batches), 80))
    batch = np.r_[np.tile(np.arange(n_batches), 3), rng.integers(0, n_batches, n)][:n]
    x = rng.normal(size=(n, 200)) + rng.normal(size=(n, 4)) @ rng.normal(size=(4, 200))
    x *= np.exp(rng.normal(0, 0.4, n_batches))[batch, None]
    group = (rng.random((n, 1)) < rng.uniform(0.2, 0.8, n_batches)[batch, None]) * 1.0
    return x + effect * rng.normal(size=(n_batches, 200))[batch], batch, group


def seen(x, batch, group):
    return find_corrected(moments(x, Design.of(batch, covariates=group))) is not None


def test_no_batch_effect_is_not_taken_for_a_correction():
    rng = np.random.default_rng(0)
    assert not any(seen(*study(rng, effect=0.0)) for _ in range(60))


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")
@pytest.mark.parametrize("kind", [bc.ComBat, bc.Standardize, bc.RemoveBatchEffect])
@pytest.mark.parametrize("kept", [True, False])
def test_corrections_are_seen(kind, kept):
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(10):
        x, batch, group = study(rng, effect=2.0)
        y = kind().fit_transform(x, batch=batch, covariates=group if kept else None)
        missed += not seen(y, batch, group)
    assert missed <= (kind is bc.ComBat and not kept)  # the group tilts its batch means


def test_few_features_tell_only_when_means_are_equal():
    rng = np.random.default_rng(2)
    x, batch, group = study(rng, effect=2.0)
    y = bc.RemoveBatchEffect().fit_transform(x[:, :3], batch=batch, covariates=group)
    assert seen(y, batch, group)
    assert not seen(bc.ComBat().fit_transform(x, batch=batch)[:, :3], batch, group)
