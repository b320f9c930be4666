"""What testing corrected values does to a design, against n × n matrices written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from batchcorr.models.naive_test import (
    DesignSums,
    corrected_rate,
    effect_kept,
    one_step_rate,
)


def a_design(seed):
    rng = np.random.default_rng(seed)
    n_batches, n = int(rng.integers(2, 6)), int(rng.integers(30, 60))
    codes = rng.integers(0, n_batches, n)
    codes[: 4 * n_batches] = np.tile(np.arange(n_batches), 4)
    p = int(rng.integers(1, 4))
    columns = rng.normal(size=(n, p)) + rng.normal(size=(n_batches, p))[codes]
    columns[:, 0] = columns[:, 0] > 0
    return (
        codes,
        columns,
        rng.uniform(0.5, 2, n_batches),
        rng.uniform(0.3, 3, n_batches),
    )


def sums_of(codes, columns):
    n = np.bincount(codes).astype(float)
    parts = [columns[codes == b] for b in range(len(n))]
    means = np.stack([part.mean(axis=0) for part in parts])
    centred = [part - mean for part, mean in zip(parts, means, strict=True)]
    return DesignSums(n, means, np.stack([part.T @ part for part in centred]))


def residual_maker(columns):
    return np.eye(len(columns)) - columns @ np.linalg.pinv(columns)


def written_out(codes, columns, scale, variance, alpha):
    """The rates of the naive and of the one-step test, and the effect that is kept."""
    n, n_batches = len(codes), codes.max() + 1
    batch, others = np.eye(n_batches)[codes], columns[:, 1:]
    one = np.ones((n, 1))
    full = residual_maker(np.hstack([batch, columns]))
    naive = residual_maker(np.hstack([one, columns]))
    z = residual_maker(np.hstack([one, others])) @ columns[:, 0]
    w = residual_maker(np.hstack([batch, others])) @ columns[:, 0]
    d, sigma = np.diag(1 / scale[codes]), np.diag(variance[codes])

    def rate(error, quadratic, squares, residual):
        trace = np.trace(quadratic)
        df = trace**2 / np.trace(quadratic @ quadratic)
        ratio = np.sqrt(trace / residual / squares / (error @ sigma @ error))
        return 2 * student.sf(student.isf(alpha / 2, residual) * ratio, df)

    p = columns.shape[1]
    u = w / (w @ w) + full @ d @ z / (z @ z)
    quadratic = naive @ d @ full @ sigma @ full @ d @ naive
    corrected = rate(u, quadratic, z @ z, n - 1 - p)
    one_step = rate(w / (w @ w), full @ sigma @ full, w @ w, n - n_batches - p)
    return corrected, one_step, (w @ w) / (z @ z), (z @ d @ w) / (z @ z)


@pytest.mark.parametrize("seed", range(12))
def test_sums_by_batch_say_what_matrices_say(seed):
    codes, columns, scale, variance = a_design(seed)
    sums, alpha = sums_of(codes, columns), (0.05, 0.01)[seed % 2]
    found = (
        corrected_rate(sums, 0, scale, variance, alpha),
        one_step_rate(sums, 0, variance, alpha),
        effect_kept(sums, 0),
        effect_kept(sums, 0, scale),
    )
    expected = written_out(codes, columns, scale, variance, alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_balanced_design_keeps_its_rate_or_is_safer():
    codes, treated = np.repeat([0, 1, 2], 20), np.tile([0.0, 1.0], 30)
    sums = sums_of(codes, treated[:, None])
    ones = np.ones(3)
    assert corrected_rate(sums, 0, ones, ones, 0.05) == pytest.approx(0.05, abs=0.01)
    assert effect_kept(sums, 0) == pytest.approx(1)
