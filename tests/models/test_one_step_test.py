"""The one-step test where features differ in what their samples determine."""

from __future__ import annotations

import numpy as np

from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.models.one_step_test import estimates, moderated


def test_a_contrast_is_tested_where_its_own_samples_determine_it():
    """The nested level that no batch shares is NaN, the other is as if it were not there."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 6)
    group, nested = np.tile([0.0, 1.0], 9), (codes == 2).astype(float)
    x = rng.normal(size=(18, 40))
    x[codes == 2, 0] = np.nan  # feature 0 has no sample of the last batch
    z = np.stack([group, group * nested], axis=1)
    sums = moments(x, Design.of(codes, covariates=z))
    found = moderated(estimates(sums, np.eye(2)))
    alone = moments(x[:12, :1], Design.of(codes[:12], covariates=group[:12, None]))
    expected = moderated(estimates(alone, np.eye(1)))
    np.testing.assert_allclose(found.each.coefficient[0, 0], expected.each.coefficient)
    np.testing.assert_allclose(found.variance[0], expected.variance)
    assert found.df[0] == expected.df[0]
    assert np.isnan(found.each.t[1, 0])
    assert np.isfinite(found.each.t[:, 1:]).all()


def test_weights_in_other_units_give_the_same_test():
    """Degrees of freedom count samples, however little they weigh together."""
    rng = np.random.default_rng(0)
    codes, group = np.repeat([0, 1, 2], [6, 5, 3]), np.repeat([1.0, 0, 1], [5, 8, 1])
    x, weights = rng.normal(size=(14, 40)), rng.gamma(2, 1, 14)
    design = Design.of(codes, covariates=group[:, None])
    plain, little = moments(x, design), 1.2 / weights[codes == 2].sum()
    one, small = (
        moderated(
            estimates(moments(x, design, weights=weights * unit), np.eye(1), plain)
        )
        for unit in (1, little)
    )
    np.testing.assert_allclose(small.each.t, one.each.t, rtol=1e-10)
    np.testing.assert_allclose(small.variance, one.variance * little, rtol=1e-10)
