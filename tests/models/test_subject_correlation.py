"""The correlation within subjects, and fits with it, against limma and statmod."""

from __future__ import annotations

import numpy as np
import pytest

from batchcorr.models import gamma_line
from batchcorr.models.random_intercept import SubjectSums
from batchcorr.models.subject_correlation import (
    consensus,
    subject_correlation,
    whitened,
)


def sums_of(r, y, weights=None):
    subject = np.unique(r["block"], return_inverse=True)[1]
    root = np.ones(len(y)) if weights is None else np.sqrt(weights)
    y = (y - y.mean(axis=0)) * root[:, None]
    return SubjectSums.of(y, r["design"] * root[:, None], subject)


@pytest.mark.parametrize("weighted", [False, True])
def test_equal_to_limma(golden, weighted):
    r = golden("limma_24_duplicate_correlation")
    sums = sums_of(r, r["input"], r["weights"] if weighted else None)
    found = subject_correlation(sums, 3, int(sums.n.max()))
    stem = "weighted_" if weighted else ""
    np.testing.assert_allclose(
        np.arctanh(found), r[f"{stem}atanh_correlations"], rtol=1e-9, atol=1e-9
    )
    assert consensus([found]) == pytest.approx(float(r[f"{stem}consensus"]), rel=1e-10)


def test_found_to_the_end_it_is_the_root(golden, monkeypatch):
    r = golden("limma_24_duplicate_correlation")
    monkeypatch.setattr(gamma_line, "TOLERANCE", 1e-25)
    monkeypatch.setattr(gamma_line, "ROUNDS", 500)
    sums = sums_of(r, r["input"])
    found = subject_correlation(sums, 3, int(sums.n.max()))
    assert consensus([found]) == pytest.approx(
        float(r["converged_consensus"]), rel=1e-9
    )


@pytest.mark.parametrize("name", ["25_block_fit", "27_block_weights_fit"])
def test_generalized_least_squares_is_limmas(golden, name):
    r = golden(f"limma_{name}")
    y = golden("limma_24_duplicate_correlation")["input"]
    sums = sums_of(r, y, r.get("weights"))
    gram, cross, squares = whitened(sums, float(r["correlation"]))
    beta = np.linalg.solve(gram, cross)
    sigma = np.sqrt((squares - (beta * cross).sum(axis=0)) / r["df_residual"])
    np.testing.assert_allclose(beta[1:], r["coefficients"][1:], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(sigma, r["sigma"], rtol=1e-9)
    errors = np.sqrt(np.diag(np.linalg.inv(gram)))
    np.testing.assert_allclose(errors, r["stdev_unscaled"][:, 0], rtol=1e-10)
