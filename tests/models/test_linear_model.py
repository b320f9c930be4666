"""The linear fit beside explicit designs: degrees of freedom, V, lost digits, memory."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.arrays import moments
from batchcorr.design.design import Design
from batchcorr.errors import AssociationWarning, CovariateWarning, DesignError
from batchcorr.models.linear_model import LinearFit


def designs():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n_batches, p = rng.integers(1, 5), rng.integers(0, 5)
        codes = rng.integers(0, n_batches, 24)
        codes[: n_batches + 2] = [*range(n_batches), n_batches, n_batches]  # one of two
        z = rng.integers(0, 2, (24, p)).astype(float)
        if p and seed % 2:  # a level that this batch alone holds
            z[:, 0] = np.arange(24) == n_batches
        yield codes, z


def test_a_batch_has_no_degrees_of_freedom_exactly_where_its_rank_says_so():
    """n_b - 1 - (rank W - rank W without b), by ranks of the explicit columns."""
    met = 0
    for codes, z in designs():
        design = Design.of(codes, covariates=z)
        _, within = design.centred
        if z.size and np.linalg.matrix_rank(within) < z.shape[1]:
            continue
        fit = LinearFit.of(
            moments(np.random.default_rng(0).normal(size=(24, 3)), design)
        )
        for b, n in enumerate(design.counts):
            rest = within[codes != b]
            rank = np.linalg.matrix_rank(rest) if rest.size else 0
            own = n - 1 - (z.shape[1] - rank)
            assert (fit.df_by_batch[b, 0] < 1e-9) == (own == 0)
            met += own == 0 and n > 1
        np.testing.assert_allclose(fit.df_by_batch.sum(), fit.df, atol=1e-9)
    assert met > 3


def test_what_is_constant_explained_or_not_observed_in_small_batches():
    codes = [0, 1, 1, 2, 2, 3, 3, 3]
    first_of_two = (np.arange(8) == 3)[:, None].astype(float)  # explains batch 2
    x = np.array([5, 1, 1, 4, 9, 1, 2, 4.0])
    gone, some, alike = x.copy(), x.copy(), x.copy()
    gone[0], some[6], alike[4] = np.nan, np.nan, alike[3]
    design = Design.of(codes, covariates=first_of_two)
    fit = LinearFit.of(moments(np.stack([x, gone, some, alike], axis=1), design))
    np.testing.assert_array_equal(fit.observed, [True, False, True, True])
    np.testing.assert_array_equal(fit.df, [3, 3, 2, 3])
    # one sample is not constant, two alike are, and two that a column tells apart are not
    np.testing.assert_array_equal(fit.constant[:, 0], [False, True, False, False])
    assert fit.constant[2, 3]
    np.testing.assert_array_equal(fit.explained[:, 0], [False, False, True, False])
    np.testing.assert_allclose(fit.df_by_batch[:, 0], [0, 1, 0, 2], atol=1e-12)
    np.testing.assert_allclose(fit.residual_squares[:, 0], [0, 0, 0, 14 / 3])


def test_v_is_the_inverse_of_the_products_of_all_columns():
    codes, z = np.arange(40) % 3, np.random.default_rng(1).normal(20, 3, (40, 4))
    fit = LinearFit.of(moments(z[:, :2], Design.of(codes, covariates=z)))
    full = np.hstack([codes[:, None] == np.arange(3), z]).astype(float)
    expected = np.linalg.inv(full.T @ full)[3:, 3:]
    np.testing.assert_allclose(fit.covariance[:, :, 0], expected, rtol=1e-9)


def exact(x, batch, z):
    """Removal of batch by rational arithmetic."""
    n, p, levels = len(x), z.shape[1], sorted(set(batch))
    rows = {b: [i for i in range(n) if batch[i] == b] for b in levels}
    columns = [[Fraction(float(v)) for v in row] for row in z]
    value = [Fraction(float(v)) for v in x]
    means = {
        b: [sum(columns[i][k] for i in at) / len(at) for k in range(p)]
        for b, at in rows.items()
    }
    w = [
        [c - m for c, m in zip(columns[i], means[batch[i]], strict=True)]
        for i in range(n)
    ]
    system = [
        [sum(w[i][j] * w[i][k] for i in range(n)) for k in range(p)]
        + [sum(w[i][j] * value[i] for i in range(n))]
        for j in range(p)
    ]
    for j in range(p):
        system[j] = [v / system[j][j] for v in system[j]]
        for k in range(p):
            if k != j:
                f = system[k][j]
                system[k] = [
                    u - f * v for u, v in zip(system[k], system[j], strict=True)
                ]
    beta = [row[-1] for row in system]
    level = {
        b: sum(value[i] for i in at) / len(at)
        - sum(m * c for m, c in zip(means[b], beta, strict=True))
        for b, at in rows.items()
    }
    centre = sum(level.values()) / len(level)
    return np.array([float(value[i] - level[batch[i]] + centre) for i in range(n)])


RNG = np.random.default_rng(0)
AGE = np.round(RNG.uniform(20, 80, 90), 1)
DAYS = np.repeat(np.arange(6), 15) * 2000 * 86400.0
HARD = {
    "powers": np.stack([AGE**k for k in range(1, 6)], axis=1),
    "dates": (1.6e9 + DAYS + np.round(RNG.uniform(0, 28800, 90)))[:, None],
    "both, and a group": np.stack([AGE, AGE**2, AGE**3, np.arange(90) % 2], axis=1),
}


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CovariateWarning")
@pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")
@pytest.mark.parametrize("name", HARD)
def test_designs_of_full_rank_are_fitted_without_loss(name):
    batch = np.repeat(np.arange(6), 15)
    x = RNG.normal(size=(90, 2)) + RNG.normal(size=(6, 2))[batch]
    y = bc.RemoveBatchEffect().fit_transform(x, batch=batch, covariates=HARD[name])
    for g in range(2):
        expected = exact(x[:, g], batch, HARD[name])
        np.testing.assert_allclose(y[:, g], expected, atol=1e-9)


def test_a_slope_extrapolated_over_years_is_named():
    batch = np.repeat(np.arange(6), 15)
    x = RNG.normal(size=(90, 3))
    table = pd.DataFrame({"date": HARD["dates"][:, 0]})
    with (
        pytest.warns(CovariateWarning, match="'date': batches differ by more than 100"),
        pytest.warns(AssociationWarning),
    ):
        bc.ComBat().fit(x, batch=batch, covariates=table)


def test_what_does_not_vary_inside_batches_is_refused_however_far_from_zero():
    batch = np.repeat(np.arange(6), 15)
    table = pd.DataFrame({"age": AGE, "date": 1e12 + batch * 1.0})
    with pytest.raises(DesignError, match="'date' is confounded with batch"):
        bc.ComBat().fit(RNG.normal(size=(90, 3)), batch=batch, covariates=table)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CovariateWarning")
def test_moments_and_coefficients_are_those_of_the_columns_as_given():
    """Orthogonal columns are how the matrix is read; what is kept is not of them."""
    batch, z = np.repeat(np.arange(6), 15), HARD["both, and a group"]
    x = RNG.normal(size=(90, 4))
    model = bc.ComBat(mean_only=True).fit(x, batch=batch, covariates=z)
    plain = moments(x, Design.of(batch, covariates=z))
    for name in ("columns", "cross", "gram"):
        found, expected = getattr(model.moments_, name), getattr(plain, name)
        np.testing.assert_allclose(
            found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
        )
    full = np.hstack([batch[:, None] == np.arange(6), z]).astype(float)
    scale = np.linalg.norm(full, axis=0)
    expected = np.linalg.lstsq(full / scale, x)[0][6:] / scale[6:, None]
    np.testing.assert_allclose(model.correction_.coefficients, expected, rtol=1e-6)


def test_a_fit_in_other_columns_is_that_of_those_columns():
    rng = np.random.default_rng(5)
    batch, read = np.repeat(np.arange(3), 8), rng.normal(size=(24, 3))
    factor, offset = np.triu(rng.uniform(1, 2, (3, 3))), rng.normal(size=(3, 3))
    x = rng.normal(size=(24, 4))
    found, expected = (
        LinearFit.of(moments(x, Design.of(batch, covariates=z)))
        for z in (read, read @ factor + offset[batch])
    )
    found = found.in_columns(factor, offset)
    for name in ("coefficients", "covariance", "means", "intercepts"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-9, err_msg=name
        )


@pytest.mark.filterwarnings("ignore::batchcorr.errors.CovariateWarning")
@pytest.mark.filterwarnings("ignore::batchcorr.errors.AssociationWarning")
def test_nuisances_of_lost_digits_are_removed_as_orthogonal_ones():
    """The same span, so that all is the same: β, and the level that stays."""
    batch, z = np.repeat(np.arange(6), 15), HARD["powers"]
    x = RNG.normal(size=(90, 4)) + 0.1 * z[:, :1]
    with_mean = np.hstack([np.ones((90, 1)), z / np.linalg.norm(z, axis=0)])
    alike = 10 * np.linalg.qr(with_mean)[0][:, 1:]
    one, other = (
        bc.ComBat().fit_transform(x, batch=batch, nuisance=w) for w in (z, alike)
    )
    np.testing.assert_allclose(one, other, rtol=1e-7)


def test_blocks_say_that_sums_lose_digits():
    batch, x = np.repeat(np.arange(6), 15), RNG.normal(size=(90, 3))
    z = np.stack([AGE, AGE + 2e-3 * RNG.normal(size=90)], axis=1)
    model = bc.RemoveBatchEffect().partial_fit(
        x, batch=batch, covariates=z, batches=range(6)
    )
    with pytest.warns(CovariateWarning, match="are nearly collinear"):
        assert np.isfinite(model.correction_.shift).all()


def test_memory_of_a_fit_does_not_grow_with_the_square_of_the_columns():
    """10 batches × 40 columns × 1,000 features: 3 MiB an array, 122 with p²."""
    x, z = RNG.normal(size=(900, 1000)), RNG.normal(size=(900, 40))
    batch = np.arange(900) % 10
    bc.RemoveBatchEffect().fit(x, batch=batch, covariates=z)
    tracemalloc.start()
    bc.RemoveBatchEffect().fit(x, batch=batch, covariates=z)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak < 30


def test_many_small_batches_are_merged_as_few_large_ones():
    """Groups of all sizes, none among them, beside moments of whole batches."""
    rng = np.random.default_rng(3)
    parents = rng.permutation(np.repeat(np.arange(40), rng.integers(0, 6, 40)))
    codes = np.repeat(np.arange(len(parents)), 3)
    x, z = rng.normal(size=(len(codes), 5)), rng.normal(size=(len(codes), 2))
    groups = moments(x, Design.of(codes, covariates=z))
    found = groups.collapse(parents.tolist(), 40)
    whole = moments(x, Design.of(parents[codes], 40, covariates=z))
    for name in ("rows", "n", "mean", "squares", "columns", "cross", "gram"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(whole, name), atol=1e-11, err_msg=name
        )
