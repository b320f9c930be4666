"""One weight a batch from sums alone, against limma's arrayWeights and the truth."""

from __future__ import annotations

import numpy as np
import pytest

from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.models.batch_weights import batch_weights


def test_equal_to_limma(golden):
    r = golden("limma_20_array_weights")
    levels, codes = np.unique(r["var_group"], return_inverse=True)
    design = Design.of(codes, len(levels), r["design"][:, 3:])
    weights = batch_weights(moments(r["input"], design))
    np.testing.assert_allclose(weights[codes], r["group_reml"], rtol=1e-12)


def test_the_variances_of_batches_are_found_again():
    rng = np.random.default_rng(0)
    codes, sd = np.repeat([0, 1, 2], [8, 12, 20]), np.array([0.5, 1.0, 2.0])
    z = rng.normal(size=(40, 2))
    x = rng.normal(size=(40, 4000)) * sd[codes][:, None] * rng.gamma(4, 0.25, 4000)
    weights = batch_weights(moments(x, Design.of(codes, 3, z)))
    np.testing.assert_allclose(weights / weights[1], 1 / sd**2, rtol=0.05)
    assert np.log(weights)[codes].sum() == pytest.approx(0, abs=1e-9)


def test_without_residuals_or_with_one_batch_weights_are_one():
    x = np.random.default_rng(0).normal(size=(4, 9))
    for codes in ([0, 0, 1, 1], [0, 0, 0, 0]):
        z = np.arange(4.0)[:, None] ** 2
        weights = batch_weights(moments(x, Design.of(codes, covariates=z)))
        np.testing.assert_array_equal(weights, 1)


def test_units_do_not_matter_and_features_without_residuals_say_nothing():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [6, 9, 12])
    design = Design.of(codes, 3, (z := rng.normal(size=(27, 1))))
    x = rng.normal(size=(27, 50)) * np.array([0.5, 1.0, 2.0])[codes][:, None] + 9
    weights = batch_weights(moments(x, design))
    for same in (x * 2.0**-40, x * 2.0**40, np.hstack([x, 3 * z - codes[:, None]])):
        np.testing.assert_allclose(
            batch_weights(moments(same, design)), weights, rtol=1e-12
        )
    np.testing.assert_array_equal(batch_weights(moments(z * [1, 2], design)), 1)


def test_batches_whose_samples_are_left_out_change_nothing():
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2, 3], [6, 9, 12, 8])
    x = rng.normal(size=(35, 50)) * np.array([0.5, 9.0, 1.0, 2.0])[codes][:, None]
    z, used = rng.normal(size=(35, 1)), codes != 1
    plain = moments(x, Design.of(codes, 4, z), weights=used * 1.0)
    alone = moments(x[used], Design.of(codes[used] - (codes[used] > 1), 3, z[used]))
    found = batch_weights(plain, plain)
    np.testing.assert_allclose(found[[0, 2, 3]], batch_weights(alone), rtol=1e-12)
    assert found[1] == 1
