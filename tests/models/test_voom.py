"""Weights of counts against limma's voom."""

from __future__ import annotations

import numpy as np

from batchcorr.models.voom import log_cpm, log_library_sizes, precision_trend


def test_equal_to_limma(golden):
    r = golden("limma_22_voom_fit")
    counts, sizes, design = r["counts"], log_library_sizes(r["lib_size"]), r["design"]
    logs = log_cpm(counts, sizes)
    solution = np.linalg.lstsq(design, logs, rcond=None)[0]
    fitted = design @ solution
    sd = np.sqrt(((logs - fitted) ** 2).sum(axis=0) / (24 - 4))
    seen = counts.sum(axis=0) > 0
    trend = precision_trend(logs.mean(axis=0)[seen], sd[seen], sizes)
    np.testing.assert_allclose(trend.log_count, np.unique(r["lowess_x"]), rtol=1e-12)
    order = np.argsort(r["lowess_x"])
    line = np.interp(trend.log_count, r["lowess_x"][order], r["lowess_y"][order])
    np.testing.assert_allclose(trend.root_sd, line, rtol=1e-10)
    np.testing.assert_allclose(trend.weights(fitted, sizes), r["weights"], rtol=1e-9)
