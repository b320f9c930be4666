"""The algebra, for any numbers: moments, their mergers, the linear model, shrinkage."""

from __future__ import annotations

from dataclasses import fields
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcorr.arrays import apply, moments
from batchcorr.arrays.cells import Cells
from batchcorr.design.design import Design
from batchcorr.models import empirical_bayes
from batchcorr.models.empirical_bayes import Prior, prior_of, shrink, shrink_location
from batchcorr.models.linear_model import LinearFit
from batchcorr.models.location_scale import LocationScale
from batchcorr.models.moments import Moments
from batchcorr.models.nonparametric import average_likely

quick = settings(deadline=None, derandomize=True, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
KINDS = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def close(found, expected, tolerance=1e-12):
    """Compare to the tolerance, relative to the largest value."""
    size = np.max(np.abs(expected), initial=0)
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * (size + 1e-300)
    )


# -- moments -------------------------------------------------------------------------


nothing, some = st.just(0.0), st.sampled_from([0.0, 0.1, 0.5])


@st.composite
def samples(draw, missing=nothing):
    """Values, batches and columns of some samples: x, codes, B, z."""
    rng = np.random.default_rng(draw(seeds))
    n, n_batches = draw(st.integers(2, 60)), draw(st.integers(1, 4))
    n_features, p = draw(st.integers(2, 4)), draw(st.integers(0, 3))
    x = rng.normal(draw(st.sampled_from([0.0, -7.0, 30.0])), 2.0, (n, n_features))
    z = rng.normal(draw(st.sampled_from([0.0, 50.0])), 3.0, (n, p))
    if p > 1:
        z[:, 0] = rng.integers(0, 2, n)
    x[rng.random(x.shape) < draw(missing)] = np.nan
    return x, rng.integers(0, n_batches, n), n_batches, z


def of_rows(data, rows, make=np.asarray):
    x, codes, n_batches, z = data
    return moments(make(x[rows]), Design.of(codes[rows], n_batches, z[rows]))


def in_blocks(data, cuts, make=np.asarray):
    n = len(data[0])
    edges = sorted({0, n, *(cut % n for cut in cuts)})
    return [of_rows(data, slice(*edge), make) for edge in pairwise(edges)]


def assert_same_moments(found, expected):
    """Compare all fields; without rows a batch has no mean, whatever stands there."""
    for field in fields(Moments):
        a, b = np.broadcast_arrays(
            getattr(found, field.name), getattr(expected, field.name)
        )
        if field.name in {"mean", "columns"}:
            n = np.broadcast_to(expected.n, expected.mean.shape)
            seen = n > 0 if field.name == "mean" else (n > 0)[:, None, : a.shape[-1]]
            a, b = np.where(seen, a, 0), np.where(seen, b, 0)
        close(a, b)


cuts = st.lists(st.integers(0, 1000), min_size=2, max_size=6)


@kinds
@quick
@given(data=samples(), cuts=cuts)
def test_merged_blocks_are_the_whole(make, data, cuts):
    assert_same_moments(
        reduce(Moments.merge, in_blocks(data, cuts, make)), of_rows(data, slice(None))
    )


@quick
@given(data=samples(some), cuts=cuts)
def test_merging_is_associative_and_commutative(data, cuts):
    parts = in_blocks(data, cuts)
    forth = reduce(Moments.merge, parts)
    assert_same_moments(reduce(Moments.merge, parts[::-1]), forth)
    assert_same_moments(reduce(lambda a, b: b.merge(a), parts), forth)
    batches = list(range(data[2])) * len(parts)
    at_once = reduce(Moments.concat, parts).collapse(batches, data[2])
    assert_same_moments(at_once, forth)
    assert_same_moments(forth, of_rows(data, slice(None)))


@kinds
@quick
@given(data=samples())
def test_batches_without_rows_add_nothing(make, data):
    """Each batch's rows as a block of their own, in which all other batches are empty."""
    x, codes, n_batches, z = data
    parts = [
        of_rows(data, codes == b, make) for b in range(n_batches) if (codes == b).any()
    ]
    whole = reduce(Moments.merge, parts)
    assert_same_moments(whole, of_rows(data, slice(None)))
    empty = moments(make(x), Design.of(codes + 1, n_batches + 1, z))
    for name in ("rows", "n", "squares", "cross", "gram"):
        assert (getattr(empty, name)[0] == 0).all()


@kinds
@quick
@given(data=samples())
def test_moments_are_sums_of_centred_products(make, data):
    x, codes, n_batches, z = data
    found = of_rows(data, slice(None), make)
    for b in range(n_batches):
        own, columns = x[codes == b], z[codes == b]
        assert found.n[b] == found.rows[b] == len(own)
        if len(own):
            dx, dz = own - own.mean(axis=0), columns - columns.mean(axis=0)
            close(found.mean[b], own.mean(axis=0))
            close(found.squares[b], (dx**2).sum(axis=0))
            close(found.columns[b, :, 0], columns.mean(axis=0))
            close(found.cross[b], dz.T @ dx)
            close(found.gram[b, :, :, 0], dz.T @ dz)


@quick
@given(data=samples(st.just(0.2)))
def test_moments_by_feature_are_those_of_its_observed_rows(data):
    x, codes, n_batches, z = data
    found = of_rows(data, slice(None))
    for b in range(n_batches):
        for g in range(x.shape[1]):
            rows = (codes == b) & ~np.isnan(x[:, g])
            n = np.broadcast_to(found.n, found.mean.shape)
            assert n[b, g] == rows.sum()
            if rows.any():
                only = (x[rows][:, [g, g]], codes[rows], n_batches, z[rows])
                alone = of_rows(only, slice(None))
                close(found.mean[b, g], alone.mean[b, 0])
                close(found.squares[b, g], alone.squares[b, 0])
                close(found.cross[b, :, g], alone.cross[b, :, 0])
                gram = np.broadcast_to(found.gram, (*found.gram.shape[:3], x.shape[1]))
                close(gram[b, :, :, g], alone.gram[b, :, :, 0])


@kinds
@quick
@given(seed=seeds, n=st.sampled_from([2, 40, 256, 257, 1000]))
def test_nothing_cancels_where_the_mean_is_huge(make, seed, n):
    """Mean 1e8, sd 1: as exact as two passes over a batch in extended precision."""
    x = np.random.default_rng(seed).normal(1e8, 1, (n, 3))
    found = moments(make(x), Design.of(np.zeros(n)))
    exact = x.astype(np.longdouble)
    exact = ((exact - exact.mean(axis=0)) ** 2).sum(axis=0).astype(float)
    np.testing.assert_allclose(x.var(axis=0) * n, exact, rtol=1e-12)
    # What is merged from parts knows their means to eps × 1e8: so do stripes of CSR.
    tolerance = 2e-8 if make is sp.csr_matrix else 1e-12
    np.testing.assert_allclose(found.squares[0], exact, rtol=tolerance)


@quick
@given(seed=seeds, n=st.sampled_from([2, 40, 257, 1000]))
def test_nothing_cancels_by_feature_where_the_mean_is_huge(seed, n):
    x = np.random.default_rng(seed).normal(1e8, 1, (n, 3))
    x[0, 0] = np.nan
    found = moments(x, Design.of(np.zeros(n)))
    np.testing.assert_allclose(found.squares[0, 1:], x.var(axis=0)[1:] * n, rtol=1e-12)


# -- constancy -----------------------------------------------------------------------

VALUES = [0.0, 0.1, 1 / 3, -7.3e-5, 5.25, 3e5 + 0.1, 1e8, 1e8 + 0.1, -1e12 - 0.7]


@st.composite
def constants(draw):
    """One value many times over in one of two batches; perhaps one row is different."""
    rng = np.random.default_rng(draw(seeds))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    value = dtype(draw(st.sampled_from(VALUES)))
    n = draw(st.sampled_from([2, 3, 17, 256, 257, 600]))
    codes = rng.integers(0, 2, n + 5)
    codes[rng.choice(n + 5, 2, replace=False)] = 0
    x = rng.normal(3, 1, (n + 5, 3)).astype(dtype)
    x[codes == 0, 1] = value
    change = draw(st.sampled_from(["none", "up", "down", "one", "huge"]))
    row = rng.choice(np.flatnonzero(codes == 0))
    tiny = {"up": np.inf, "down": -np.inf}
    if change in tiny and value != 0:  # by one unit in the last place
        x[row, 1] = np.nextafter(value, dtype(tiny[change]))
    elif change == "one":
        x[row, 1] += 1 if abs(value) < 1e6 else abs(value)
    elif change == "huge":
        x[row, 1] = 1e10
    if draw(st.booleans()):  # then late blocks have no rows of the constant batch
        order = np.argsort(codes, kind="stable")
        x, codes = x[order], codes[order]
    levels = rng.integers(0, 3, n + 5)
    z = np.c_[levels == 1, levels == 2, rng.normal(size=n + 5)][
        :, : draw(st.integers(0, 3))
    ]
    return x, codes, 2, z.astype(float)


def is_constant(data):
    own = data[0][data[1] == 0, 1]
    return own.min() == own.max()


@kinds
@quick
@given(data=constants(), cuts=cuts)
def test_squares_are_0_exactly_where_a_batch_is_constant(make, data, cuts):
    whole = of_rows(data, slice(None), make)
    parts = in_blocks(data, cuts, make)
    merged = reduce(Moments.merge, parts)
    at_once = reduce(Moments.concat, parts).collapse([0, 1] * len(parts), 2)
    for found in (whole, merged, at_once):
        assert (found.squares[0, 1] == 0) == is_constant(data)
        assert found.squares[0, 0] > 0
        assert found.squares[0, 2] > 0
        if is_constant(data):
            assert found.mean[0, 1] == data[0][data[1] == 0, 1][0]


@pytest.mark.parametrize("value", VALUES)
def test_parts_of_a_constant_batch_are_constant_when_merged_at_once(value):
    """Also when some part, here the first and the last, has no rows of it."""
    sizes, parts = [0, 3, 5, 7, 0], []
    for size in sizes:
        x = np.r_[np.full(size, value), [0.7, 2.9]][:, None]
        parts.append(moments(x, Design.of(np.r_[np.zeros(size), [1, 1]], 2)))
    found = reduce(Moments.concat, parts).collapse([0, 1] * len(parts), 2)
    assert found.n[:, 0].tolist() == [15, 10]
    assert found.mean[0, 0] == value
    assert found.squares[0, 0] == 0 < found.squares[1, 0]


@quick
@given(data=constants(), seed=seeds)
def test_squares_are_0_where_observed_values_are_constant(data, seed):
    """With missing values elsewhere, and with weights."""
    x, codes, n_batches, z = data
    x = x.copy()
    x[np.random.default_rng(seed).random(len(x)) < 0.3, 0] = np.nan
    x[0, 0] = np.nan
    found = of_rows((x, codes, n_batches, z), slice(None))
    assert found.by_feature
    assert (found.squares[0, 1] == 0) == is_constant(data)
    weights = np.random.default_rng(seed).uniform(0.2, 3, len(x))
    found = moments(x, Design.of(codes, 2, z), weights=weights)
    assert (found.squares[0, 1] == 0) == is_constant(data)


@quick
@given(seed=seeds, value=st.sampled_from([0.1, 1 / 3, 1e8 + 0.1, 5e-324, 1e-300]))
def test_many_cells_of_one_value_are_one_constant_batch(seed, value):
    """Categories split batches into cells, which are merged again."""
    rng = np.random.default_rng(seed)
    n = 3000
    z = rng.integers(0, 2, (n, 3)).astype(float)
    codes = rng.integers(0, 2, n)
    design = Design.of(codes, 2, z)
    assert Cells.of(design).flat
    x = np.full((n, 2), value)
    x[codes == 1, 1] += rng.normal(size=(codes == 1).sum())
    for make in KINDS.values():
        squares = moments(make(x), design).squares
        np.testing.assert_array_equal(squares == 0, [[True, True], [True, False]])


# -- cells ---------------------------------------------------------------------------


@quick
@given(
    seed=seeds,
    n=st.integers(1, 4000),
    n_batches=st.integers(1, 4),
    p=st.integers(0, 5),
)
def test_cells_refine_batches_and_hold_what_is_flat(seed, n, n_batches, p):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, p))
    binary = rng.random(p) < 0.7
    z[:, binary] = rng.integers(0, 2, (n, binary.sum()))
    design = Design.of(rng.integers(0, n_batches, n), n_batches, z)
    cells = Cells.of(design)
    np.testing.assert_array_equal(cells.batch[cells.codes], design.codes)
    np.testing.assert_array_equal(cells.values[cells.codes], z[:, list(cells.flat)])
    np.testing.assert_array_equal(
        cells.counts, np.bincount(cells.codes, minlength=cells.n_cells)
    )
    assert sorted([*cells.flat, *cells.sloped]) == list(range(p))
    n_binary = int(design.binary.sum())
    assert cells.n_cells <= max(n_batches * (n_binary + 1), n // 64)
    order, starts, _ = cells.sorted_rows()
    for cell, (start, stop) in enumerate(pairwise(starts)):
        np.testing.assert_array_equal(
            order[start:stop], np.flatnonzero(cells.codes == cell)
        )


# -- the frozen correction -----------------------------------------------------------


@st.composite
def corrections(draw):
    """A correction, a design it is for, and values; nuisances only where r = 1."""
    rng = np.random.default_rng(draw(seeds))
    n, n_batches = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    n_features, p = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    q = draw(st.integers(0, 2))
    scale = np.exp(rng.normal(size=(n_batches, n_features)))
    if q:
        scale[:] = 1.0
    z = rng.normal(size=(n, p)) if draw(st.booleans()) else rng.integers(0, 2, (n, p))
    correction = LocationScale(
        scale,
        rng.normal(size=scale.shape),
        rng.normal(size=(p, n_features)),
        rng.normal(size=(q, n_features)),
    )
    codes = rng.integers(0, n_batches, n)
    design = Design.of(codes, n_batches, z.astype(float), rng.normal(size=(n, q)))
    return correction, design, rng.normal(3, 2, (n, n_features))


@quick
@given(corrections())
def test_inverting_twice_changes_nothing(given):
    correction, _, _ = given
    again = correction.inverse().inverse()
    for field in fields(LocationScale):
        close(getattr(again, field.name), getattr(correction, field.name), 1e-14)


@kinds
@quick
@given(given=corrections())
def test_applying_is_the_equation_and_the_inverse_undoes_it(make, given):
    correction, design, x = given
    r, s = correction.scale[design.codes], correction.shift[design.codes]
    z, w = design.columns[:, : design.kept], design.columns[:, design.kept :]
    y = r * x + s + (1 - r) * (z @ correction.coefficients) - w @ correction.nuisance
    found = apply(make(x), design, correction)
    close(found, y)
    close(apply(make(found), design, correction.inverse()), x, 1e-11)


# -- the linear model ----------------------------------------------------------------


@st.composite
def regressions(draw):
    """Samples of a model of full rank: x, codes, B, z."""
    rng = np.random.default_rng(draw(seeds))
    n_batches, p = draw(st.integers(1, 4)), draw(st.integers(0, 3))
    n = draw(st.integers(4 * (n_batches + p), 90))
    codes = rng.permutation(np.arange(n) % n_batches)
    z = rng.normal(draw(st.sampled_from([0.0, 20.0])), 2.0, (n, p))
    if p:
        z[:, 0] = rng.permutation(np.arange(n) % 2)
    x = rng.normal(size=(n, 4)) + z @ rng.normal(size=(p, 4))
    return x + rng.normal(5, 3, (n_batches, 4))[codes], codes, n_batches, z


def assert_least_squares(found, data, weights):
    """Compare β, α and each batch's RSS with numpy's least squares on all columns."""
    x, codes, n_batches, z = data
    fit = LinearFit.of(found)
    full = np.hstack([codes[:, None] == np.arange(n_batches), z]).astype(float)
    for g in range(x.shape[1]):
        rows = ~np.isnan(x[:, g]) & (weights[:, g] > 0)
        root = np.sqrt(weights[rows, g])
        solution, _, rank, _ = np.linalg.lstsq(
            full[rows] * root[:, None], x[rows, g] * root
        )
        if rank < full.shape[1]:
            assert not (fit.solved[g] and fit.observed[g])
            continue
        assert fit.solved[g]
        close(fit.intercepts[:, g], solution[:n_batches], 1e-10)
        close(fit.coefficients[:, g], solution[n_batches:], 1e-10)
        off = weights[rows, g] * (x[rows, g] - full[rows] @ solution) ** 2
        squares = np.bincount(codes[rows], off, minlength=n_batches)
        np.testing.assert_allclose(
            fit.residual_squares[:, g],
            squares,
            rtol=1e-9,
            atol=1e-12 * found.squares[:, g].sum() + 1e-25,  # after a perfect fit
        )


@kinds
@quick
@given(data=regressions())
def test_the_linear_model_is_least_squares_on_all_columns(make, data):
    assert_least_squares(of_rows(data, slice(None), make), data, np.ones(data[0].shape))


@quick
@given(data=regressions(), seed=seeds, share=st.sampled_from([0.05, 0.3, 0.7]))
def test_the_linear_model_leaves_missing_values_out(data, seed, share):
    x, *rest = data
    x = np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)
    x[0, 0] = np.nan
    data = (x, *rest)
    assert_least_squares(of_rows(data, slice(None)), data, np.ones(x.shape))


@quick
@given(data=regressions(), seed=seeds, by_value=st.booleans())
def test_the_linear_model_weighs_values(data, seed, by_value):
    x, codes, n_batches, z = data
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 4, x.shape if by_value else len(x))
    weights[rng.random(weights.shape) < 0.05] = 0
    found = moments(x, Design.of(codes, n_batches, z), weights=weights)
    every = np.broadcast_to(weights.reshape(len(x), -1), x.shape)
    assert_least_squares(found, data, every)


# -- empirical Bayes -----------------------------------------------------------------


@st.composite
def effects_of_a_batch(draw, most=40):
    """γ̂, δ̂², SS (1, G) and n (1, 1) of a batch, and the data they are of."""
    rng = np.random.default_rng(draw(seeds))
    n, n_features = draw(st.integers(2, most)), draw(st.integers(2, 20))
    s = rng.normal(size=(n, n_features)) * np.exp(0.3 * rng.normal(size=n_features))
    s += rng.normal(0.4, 0.7, n_features)
    gamma = s.mean(axis=0, keepdims=True)
    squares = ((s - gamma) ** 2).sum(axis=0, keepdims=True)
    return gamma, squares / (n - 1), squares, np.full((1, 1), float(n)), s


def test_the_prior_is_by_moments():
    """Mean and variance of N(γ̄, τ²) and of the inverse gamma are those of features."""
    rng = np.random.default_rng(0)
    gamma, delta2 = rng.normal(2, 3, (1, 50)), rng.gamma(3.0, 0.5, (1, 50))
    prior = prior_of(gamma, delta2)
    assert prior.location == gamma.mean()
    assert prior.location_variance == gamma.var(ddof=1)
    a, b = prior.shape, prior.rate
    np.testing.assert_allclose(b / (a - 1), delta2.mean())
    np.testing.assert_allclose(b**2 / ((a - 1) ** 2 * (a - 2)), delta2.var(ddof=1))


@quick
@given(effects_of_a_batch())
def test_shrinkage_solves_both_equations_when_iterated_tightly(effects):
    gamma, delta2, squares, n, s = effects
    prior = prior_of(gamma, delta2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(empirical_bayes, "TOLERANCE", 1e-13)
        gamma_star, delta2_star, *_ = shrink(gamma, delta2, squares, n, prior)
    tau2, a, b = prior.location_variance, prior.shape, prior.rate
    close(
        gamma_star,
        (n * tau2 * gamma + delta2_star * prior.location) / (n * tau2 + delta2_star),
        1e-10,
    )
    off = ((s - gamma_star) ** 2).sum(
        axis=0, keepdims=True
    )  # from the data, not from their sums
    close(delta2_star, (b + off / 2) / (n / 2 + a - 1), 1e-10)


@quick
@given(effects_of_a_batch())
def test_shrinkage_draws_towards_the_prior(effects):
    gamma, delta2, squares, n, _ = effects
    prior = prior_of(gamma, delta2)
    gamma_star, *_ = shrink(gamma, delta2, squares, n, prior)
    for found in (gamma_star, shrink_location(gamma, prior)):
        low, high = np.sort([gamma, np.broadcast_to(prior.location, gamma.shape)], 0)
        assert (found >= low - 1e-12).all()
        assert (found <= high + 1e-12).all()


def limit(effects, **changes):
    gamma, delta2, squares, n, _ = effects
    own = prior_of(gamma, delta2)
    values = {name: changes.get(name, getattr(own, name)) for name in vars(own)}
    prior = Prior(**values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(empirical_bayes, "TOLERANCE", 1e-13)
        gamma_star, delta2_star, *_ = shrink(gamma, delta2, squares, n, prior)
    return gamma_star, delta2_star, prior


@quick
@given(effects_of_a_batch())
def test_limits_of_shrinkage(effects):
    gamma, _, squares, n, _ = effects
    # τ² → 0: all locations are the mean of the features
    gamma_star, _, prior = limit(effects, location_variance=np.full((1, 1), 1e-14))
    close(gamma_star, np.full_like(gamma, prior.location), 1e-6)
    gamma_star, _, prior = limit(effects, location_variance=np.zeros((1, 1)))
    close(gamma_star, np.full_like(gamma, prior.location), 1e-14)
    # τ² → ∞: none is moved
    gamma_star, _, _ = limit(effects, location_variance=np.full((1, 1), 1e14))
    close(gamma_star, gamma, 1e-6)
    # v → 0: all variances are the mean of the features
    for v in (1e-14, 0.0):
        _, delta2_star, prior = limit(effects, variance_variance=np.full((1, 1), v))
        close(delta2_star, np.full_like(gamma, prior.variance_mean), 1e-6)
    # v → ∞: a = 2, b = m, which is still a prior
    gamma_star, delta2_star, prior = limit(
        effects, variance_variance=np.full((1, 1), 1e14)
    )
    off = squares + n * (gamma - gamma_star) ** 2
    close(delta2_star, (prior.variance_mean + off / 2) / (n / 2 + 1), 1e-6)


def test_identical_features_are_not_moved():
    """τ² = v = 0, where sva divides 0 by 0."""
    gamma, delta2, n = np.full((1, 3), 0.7), np.full((1, 3), 1.3), np.full((1, 1), 9.0)
    found = shrink(gamma, delta2, 8 * delta2, n, prior_of(gamma, delta2))
    np.testing.assert_allclose(found[0], gamma)
    np.testing.assert_allclose(found[1], delta2)


# -- non-parametric ------------------------------------------------------------------


def averages(log_likelihood, gamma, delta2):
    """Average (γ̂, δ̂²) of the other features, weighted by their likelihoods."""
    found = []
    for g in range(len(gamma)):
        others = np.arange(len(gamma)) != g
        own = log_likelihood[g, others]
        weight = np.exp(own - own.max())
        found.append(
            [(weight * each[others]).sum() / weight.sum() for each in (gamma, delta2)]
        )
    return np.array(found, dtype=float).T


@quick
@given(effects_of_a_batch())
def test_nonparametric_shrinkage_is_the_sum_over_features_in_logs(effects):
    gamma, delta2, squares, n = (each[0] for each in effects[:4])
    s = effects[4]
    s, variance = s.astype(np.longdouble), delta2.astype(np.longdouble)
    log_likelihood = np.array(
        [
            [
                -(np.log(2 * np.pi * d) + (s[:, g] - m) ** 2 / d).sum() / 2
                for m, d in zip(gamma, variance, strict=True)
            ]
            for g in range(len(gamma))
        ]
    )
    found = average_likely(gamma, delta2, squares, n)
    close(found, averages(log_likelihood, gamma, delta2), 1e-10)


@quick
@given(effects_of_a_batch(most=12))
def test_nonparametric_shrinkage_is_the_product_of_densities(effects):
    """As sva writes it; possible only while the products do not underflow."""
    gamma, delta2, squares, n = (each[0] for each in effects[:4])
    s = effects[4]
    s = s.astype(np.longdouble)
    found = average_likely(gamma, delta2, squares, n)
    for g in range(len(gamma)):
        weight = np.array(
            [
                0.0
                if h == g
                else np.prod(
                    np.exp(-((s[:, g] - gamma[h]) ** 2) / (2 * delta2[h]))
                    / np.sqrt(2 * np.pi * delta2[h])
                )
                for h in range(len(gamma))
            ]
        )
        close(found[0][g], float((weight * gamma).sum() / weight.sum()), 1e-9)
        close(found[1][g], float((weight * delta2).sum() / weight.sum()), 1e-9)


def test_nonparametric_shrinkage_does_not_underflow():
    """sva gives NaN from about 520 samples in a batch."""
    rng = np.random.default_rng(0)
    s = rng.normal(size=(1600, 60)) * rng.uniform(0.5, 2, 60) + rng.normal(size=60)
    gamma, squares = s.mean(axis=0), 1600 * s.var(axis=0)
    delta2 = squares / 1599
    found = average_likely(gamma, delta2, squares, np.full(1, 1600.0))
    off = squares[:, None] + 1600 * (gamma[:, None] - gamma) ** 2
    log_likelihood = -800 * np.log(2 * np.pi * delta2) - off / (2 * delta2)
    assert np.isfinite(found).all()
    close(found, averages(log_likelihood, gamma, delta2), 1e-9)


@quick
@given(seed=seeds, size=st.sampled_from([2, 3, 400]))
def test_blocks_of_features_do_not_matter_to_nonparametric_shrinkage(seed, size):
    """400 features are more than fit one block: each is as if asked for alone."""
    rng = np.random.default_rng(seed)
    gamma, delta2 = rng.normal(size=size), rng.gamma(4.0, 0.25, size)
    n = rng.integers(2, 20, size).astype(float)  # as with missing values
    found = average_likely(gamma, delta2, delta2 * (n - 1), n)
    off = (delta2 * (n - 1))[:, None] + n[:, None] * (gamma[:, None] - gamma) ** 2
    log_likelihood = -n[:, None] / 2 * np.log(2 * np.pi * delta2) - off / (2 * delta2)
    close(found, averages(log_likelihood, gamma, delta2), 1e-10)
