"""Dispersions of a batch against edgeR's, step by step."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from batchcorr.arrays.feature_counts import FeatureCounts
from batchcorr.models.counts import dispersion


def adjusted_profile(counts, *given):
    constant = gammaln(counts + 1).sum(axis=1)[:, None]
    return dispersion.profile_likelihoods(counts, *given) - constant


def test_profile_likelihood_and_its_maximum(golden):
    case = golden("edger_dispersion_steps")
    counts = np.ascontiguousarray(case["counts"].T, dtype=float)
    z = np.ascontiguousarray(case["design"][:, 1:], dtype=float)
    common = float(case["disp_common"])
    profile = adjusted_profile(counts, z, case["offset"], common * 2 ** case["grid"])
    np.testing.assert_allclose(profile.T, case["apl_grid"], atol=1e-7)
    told = ~case["low_count_gene"].astype(bool)
    np.testing.assert_allclose(
        dispersion.maximize_spline(profile)[told],
        case["max_interpolant"][told],
        atol=1e-6,
    )
    found_common, found = dispersion.batch_dispersions(
        FeatureCounts.of(case["counts"]), z, case["offset"]
    )
    np.testing.assert_allclose(found_common, common, rtol=1e-7)
    np.testing.assert_allclose(found, case["disp_tagwise"], rtol=1e-6)
    trial = adjusted_profile(counts[told], z, case["offset"], case["common_disp_trial"])
    np.testing.assert_allclose(trial.sum(axis=0), case["common_apl_sum"], rtol=1e-9)
