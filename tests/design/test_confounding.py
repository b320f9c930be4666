"""What no data can tell apart is refused by name, and nothing else is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.arrays import moments
from batchcorr.design.column_products import ColumnProducts
from batchcorr.design.confounding import associations
from batchcorr.design.design import Design
from batchcorr.errors import (
    AssociationWarning,
    CovariateWarning,
    DesignError,
    InputError,
)

METHODS = [bc.ComBat, bc.Standardize, bc.RemoveBatchEffect]
every_method = pytest.mark.parametrize("method", METHODS)

N = 48
BATCH = np.repeat(["a", "b", "c"], [20, 16, 12])
SEX = np.resize(["f", "m"], N)


@pytest.fixture(scope="module")
def x():
    codes = np.unique(BATCH, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    values = rng.normal(6, 1, (N, 15)) * np.array([1.0, 1.4, 0.8])[codes][:, None]
    return values + rng.normal(0, 1, (3, 15))[codes]


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def table(**columns):
    return pd.DataFrame(columns)


def refusal(method, x, covariates, batch=BATCH, **more):
    """Return the message with which a design is refused."""
    with pytest.raises(DesignError) as caught:
        method().fit(x, batch=batch, covariates=covariates, **more)
    return str(caught.value)


# -- confounded: refused, with the names of the guilty and of them only ---------------


@every_method
def test_a_category_that_is_the_batch(method, x):
    site = np.char.add("site ", BATCH)
    message = refusal(method, x, table(sex=SEX, site=site))
    assert message.startswith("'site' is confounded with batch: ")
    assert "'sex'" not in message


@every_method
def test_a_category_that_is_coarser_than_batch(method, x):
    group = np.where(BATCH == "a", "patient", "control")
    message = refusal(method, x, table(group=group, sex=SEX))
    assert message.startswith("'group' is confounded with batch: 'group[patient]' ")


@every_method
def test_a_category_nested_in_batch(method, x):
    plate = np.char.add(BATCH, np.resize(["1", "2"], N))
    message = refusal(method, x, table(age=np.arange(N) % 7 + 0.5, plate=plate))
    assert message.startswith("'plate' is confounded with batch")
    assert "'age'" not in message


@every_method
def test_a_category_with_one_level_that_is_a_batch(method, x):
    """Two of its levels can be told apart; the third cannot from batch c."""
    stage = np.where(BATCH == "c", "late", np.resize(["early", "middle"], N))
    message = refusal(method, x, table(stage=stage))
    assert message.startswith("'stage' is confounded with batch: 'stage[late]' ")


@every_method
def test_numbers_that_are_constant_in_every_batch(method, x):
    level = pd.Series(BATCH).map({"a": 4.5, "b": 21.25, "c": 37.0}).to_numpy()
    message = refusal(method, x, table(sex=SEX, storage_temperature=level))
    assert message.startswith("'storage_temperature' is confounded with batch")


@every_method
def test_two_covariates_that_only_together_are_the_batch(method, x):
    """Each varies inside batches; u - v is 1 in batch c and 0 elsewhere."""
    v = np.resize([0, 1, 1], N)
    v[BATCH == "c"] = 0
    u = np.where(BATCH == "c", 1, v)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssociationWarning)
        for alone in (u, v):
            method().fit(x, batch=BATCH, covariates=table(sex=SEX, alone=alone))
    message = refusal(method, x, table(sex=SEX, u=u, v=v))
    assert "'v' is confounded with batch together with 'u'" in message
    assert "'sex'" not in message


@every_method
def test_two_numbers_that_only_together_are_the_batch(method, x, rng):
    age = rng.normal(50, 10, N)
    year = 2000 - age + np.unique(BATCH, return_inverse=True)[1]  # born, at the visit
    message = refusal(method, x, table(age=age, sex=SEX, born=year))
    assert "'born' is confounded with batch together with 'age'" in message


@every_method
@pytest.mark.parametrize("p", [6, 5], ids=["too many", "as many"])
def test_as_many_columns_as_samples(method, x, p):
    """With 2 batches 5 columns fit 7 samples perfectly, and leave no variance."""
    batch, few = ["a"] * 4 + ["b"] * 3, [0, 1, 2, 20, 21, 36, 37]
    columns = np.random.default_rng(0).normal(size=(7, p))
    if method is bc.RemoveBatchEffect and p == 5:  # which needs no variance
        y = method().fit_transform(x[few], batch=batch, covariates=columns)
        assert np.isfinite(y).all()
    else:
        assert refusal(method, x[few], columns, batch=batch)


@every_method
def test_an_interaction_that_batch_determines(method, x):
    """Batch and sex are crossed, but each batch has one treatment for each sex."""
    treatment = np.where((BATCH == "a") == (SEX == "f"), "yes", "no")
    model = method(formula="~ sex * treatment")
    with pytest.raises(DesignError, match="confounded with batch"):
        model.fit(x, batch=BATCH, covariates=table(sex=SEX, treatment=treatment))


# -- covariates that repeat each other -----------------------------------------------


@every_method
def test_collinear_numbers(method, x, rng):
    age = rng.normal(50, 10, N)
    message = refusal(method, x, table(age=age, sex=SEX, months=12 * age + 3))
    assert message.startswith("The covariates 'age' and 'months' repeat each other")


@every_method
def test_a_category_given_twice(method, x):
    message = refusal(method, x, table(sex=SEX, gender=np.char.upper(SEX)))
    assert message.startswith("The covariates 'gender' and 'sex' repeat each other")


@every_method
def test_a_sum_of_others(method, x, rng):
    left, right = rng.normal(size=(2, N))
    columns = table(left=left, right=right, both=left + right)
    message = refusal(method, x, columns)
    assert message.startswith("The covariates 'both', 'left' and 'right' repeat")


# -- where it is found ---------------------------------------------------------------


@every_method
def test_partial_fit_refuses_when_the_correction_is_used(method, x):
    model = method()
    columns = table(u=np.where(BATCH == "a", 1.0, 0.0))
    for k, rows in enumerate((slice(30), slice(30, N))):
        first = {"batches": ["a", "b", "c"]} if k == 0 else {}
        model.partial_fit(x[rows], batch=BATCH[rows], covariates=columns[rows], **first)
    with pytest.raises(DesignError, match="'u' is confounded with batch"):
        model.transform(x, batch=BATCH, covariates=columns)


@every_method
def test_missing_values_do_not_hide_it(method, x):
    x = np.where(np.random.default_rng(0).random(x.shape) < 0.1, np.nan, x)
    message = refusal(method, x, table(u=np.where(BATCH == "a", "yes", "no")))
    assert message.startswith("'u' is confounded with batch")


@pytest.mark.parametrize("method", METHODS[1:])  # ComBat needs more than one
def test_one_feature_alone_does_not_hide_it(method, x):
    message = refusal(method, x[:, :1], table(u=np.where(BATCH == "a", "yes", "no")))
    assert message.startswith("'u' is confounded with batch")


@every_method
def test_a_feature_confounded_by_its_missing_values_stays_as_it_is(method, x):
    """Seen only where sex is a function of batch; the other features are corrected."""
    y = x.copy()
    y[(BATCH == "a") == (SEX == "f"), 3] = np.nan
    model = method()
    beside = {"batch": BATCH, "covariates": table(sex=SEX)}
    corrected = model.fit_transform(y, **beside)
    np.testing.assert_array_equal(corrected[:, 3], y[:, 3])
    np.testing.assert_array_equal(np.flatnonzero(~model.aim_.adjustable), [3])
    others = np.arange(15) != 3
    assert (corrected[:, others] != y[:, others]).any(axis=0).all()


def test_a_feature_unseen_in_a_batch_keeps_its_nuisance_too(x, rng):
    y = x.copy()
    y[BATCH == "c", 3] = np.nan
    age = table(age=rng.normal(50, 10, N))
    corrected = bc.RemoveBatchEffect().fit_transform(y, batch=BATCH, nuisance=age)
    np.testing.assert_array_equal(corrected[:, 3], y[:, 3])
    assert (corrected[:, 4] != y[:, 4]).any()


# -- not confounded, and hence not refused --------------------------------------------

SCALES = {  # a well-scaled covariate z in other units
    "tiny": lambda z: 1e-8 * z,
    "huge": lambda z: 1e8 * z,
    "year": lambda z: 2020 + z,
    "seconds since 1970": lambda z: 1.7e9 + 86400 * z,
    "tiny and far": lambda z: 1e-6 * (1e4 + z),
}


@every_method
@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
def test_units_and_origin_of_a_covariate_do_not_matter(method, x, rng, name, missing):
    x = x.copy()
    if missing:
        x[2, 3] = x[30, 3] = x[40, 9] = np.nan
    z, other = rng.uniform(-1, 1, N), rng.normal(size=N)
    expected = method().fit_transform(
        x, batch=BATCH, covariates=table(z=z, sex=SEX, other=other)
    )
    found = method().fit_transform(
        x, batch=BATCH, covariates=table(z=SCALES[name](z), sex=SEX, other=other)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@every_method
def test_covariates_of_very_different_units_go_together(method, x, rng):
    z = rng.normal(size=(N, 3))
    expected = method().fit_transform(x, batch=BATCH, covariates=z)
    units = np.array([1e-8, 1.0, 1e8])
    found = method().fit_transform(x, batch=BATCH, covariates=z * units)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@every_method
@pytest.mark.filterwarnings("ignore::batchcorr.errors.CovariateWarning")
def test_years_are_fine(method, x):
    """As integers, 2020 ± 1."""
    year = np.resize([2019, 2020, 2021, 2020], N)
    found, expected = (
        method().fit_transform(x, batch=BATCH, covariates=table(year=values))
        for values in (year, year - 2020)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@every_method
def test_nearly_confounded_is_warned_of_and_truly_confounded_is_refused(method, x, rng):
    site = np.where(BATCH == "a", 1.0, 0.0)
    noise = rng.normal(size=N)
    with (
        pytest.warns(AssociationWarning, match="'u' is strongly associated"),
        pytest.warns(CovariateWarning, match="'u'.*extrapolated"),
    ):
        method().fit(x, batch=BATCH, covariates=table(u=site + 1e-3 * noise))
    message = refusal(method, x, table(u=site + 1e-8 * noise))  # 1e-16 of its squares
    assert message.startswith("'u' is confounded with batch")


@every_method
def test_a_design_in_which_each_batch_lacks_some_level_is_fine(method, x):
    """No batch has all stages, but batches overlap: a ladder that can be climbed."""
    stage = np.empty(N, dtype=object)
    for batch, levels in {"a": ["1", "2"], "b": ["2", "3"], "c": ["3", "4"]}.items():
        here = np.flatnonzero(batch == BATCH)
        stage[here] = np.resize(levels, len(here))
    with pytest.warns(AssociationWarning, match="'stage'"):
        corrected = method().fit_transform(
            x, batch=BATCH, covariates=table(stage=stage)
        )
    assert np.isfinite(corrected).all()


# -- what is removed beside batch -----------------------------------------------------


def dropped(**columns):
    """Return limma's answer: columns that earlier ones determine have coefficient 0."""
    kept, start = columns.pop("keep"), columns.pop("x")
    design, removed = [np.ones(N)], np.zeros_like(start)
    names = []
    for name, column in columns.items():
        rank = np.linalg.matrix_rank(np.column_stack([*design, *kept, column]))
        if rank == len(design) + len(kept) + 1:
            design.append(column)
            names.append(name)
    full = np.column_stack([*design, *kept])
    solution = np.linalg.lstsq(full, start)[0]
    for k, column in enumerate(design[1:], start=1):
        removed += np.outer(column, solution[k])
    return start - removed


def contrasts(labels):
    levels = sorted(set(labels))
    return {
        level: np.where(labels == level, 1.0, np.where(labels == levels[-1], -1.0, 0.0))
        for level in levels[:-1]
    }


def test_a_second_factor_that_batch_determines_is_dropped_with_a_warning(x):
    site = np.where(BATCH == "a", "north", "south")
    both = table(run=BATCH, site=site)
    with pytest.warns(CovariateWarning, match="'batch factor 2.*dropped"):
        found = bc.RemoveBatchEffect().fit_transform(x, batch=both)
    expected = bc.RemoveBatchEffect().fit_transform(x, batch=BATCH)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    limma = dropped(x=x, keep=[], **contrasts(BATCH), **contrasts(site))
    np.testing.assert_allclose(found, limma, rtol=0, atol=1e-10)


def test_a_second_factor_nested_in_batch_loses_what_batch_says(x):
    plate = np.char.add(BATCH, np.resize(["1", "2", "1"], N))
    with pytest.warns(CovariateWarning, match="dropped"):
        found = bc.RemoveBatchEffect().fit_transform(x, batch=np.c_[BATCH, plate])
    limma = dropped(x=x, keep=[], **contrasts(BATCH), **contrasts(plate))
    np.testing.assert_allclose(found, limma, rtol=0, atol=1e-10)
    # whatever was dropped: no difference between plates is left within a batch
    for b in "abc":
        one, two = (found[plate == f"{b}{k}"].mean(axis=0) for k in (1, 2))
        assert np.abs(one - two).max() < np.abs(x).max()


@pytest.mark.parametrize(
    "nuisance",
    [
        table(same=BATCH),
        table(same=np.where(BATCH == "b", 3.5, 1.0)),
        table(same=np.char.upper(BATCH)),
    ],
    ids=["labels", "numbers", "other labels"],
)
def test_a_nuisance_that_is_the_batch_is_dropped_with_a_warning(x, nuisance):
    with pytest.warns(CovariateWarning, match=r"'same.*dropped"):
        found = bc.RemoveBatchEffect().fit_transform(
            x, batch=BATCH, covariates=table(sex=SEX), nuisance=nuisance
        )
    expected = bc.RemoveBatchEffect().fit_transform(
        x, batch=BATCH, covariates=table(sex=SEX)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_nuisances_that_repeat_each_other_are_dropped_with_a_warning(x, rng):
    age = rng.normal(50, 10, N)
    with pytest.warns(CovariateWarning, match="'months'.*dropped"):
        found = bc.RemoveBatchEffect().fit_transform(
            x, batch=BATCH, nuisance=table(age=age, months=12 * age)
        )
    expected = bc.RemoveBatchEffect().fit_transform(
        x, batch=BATCH, nuisance=table(age=age)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_what_is_kept_must_not_be_removed_as_well(x, rng):
    age = rng.normal(50, 10, N)
    message = refusal(
        bc.RemoveBatchEffect, x, table(age=age), nuisance=table(months=12 * age)
    )
    assert "'age'" in message
    assert "'months'" in message


def test_without_batches_a_kept_nuisance_is_refused_too(x, rng):
    age = rng.normal(50, 10, N)
    with pytest.raises(InputError, match="'age'"):
        bc.RemoveBatchEffect().fit(
            x, covariates=table(age=age), nuisance=table(months=12 * age)
        )


# -- association ----------------------------------------------------------------------


def measure(batch, z):
    """Return the association of columns with batch, and n and B."""
    codes = np.unique(batch, return_inverse=True)[1]
    z = np.asarray(z, dtype=float).reshape(len(codes), -1)
    sums = moments(np.zeros((len(codes), 2)), Design.of(codes, None, z))
    return (
        associations(ColumnProducts.of_moments(sums), ["z"] * z.shape[1])["z"],
        len(codes),
        codes.max() + 1,
    )


def adjusted(squared, n, n_batches):
    """Return the root of an adjusted R²."""
    return np.sqrt(max(0, 1 - (1 - squared) * (n - 1) / (n - n_batches)))


@pytest.mark.parametrize(
    "counts", [(30, 10, 10, 30), (25, 5, 12, 18), (7, 33, 20, 20), (5, 5, 5, 5)]
)
def test_association_of_two_groups_in_two_batches_is_phi(counts):
    a, b, c, d = counts
    phi = abs(a * d - b * c) / np.sqrt(float((a + b) * (c + d) * (a + c) * (b + d)))
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    batch, group = np.repeat(cells, counts, axis=0).T
    found, n, n_batches = measure(batch, group)
    np.testing.assert_allclose(found, adjusted(phi**2, n, n_batches), atol=1e-7)
    many = np.repeat(cells, np.array(counts) * 2000, axis=0).T
    np.testing.assert_allclose(measure(*many)[0], phi, atol=5e-3)


@pytest.mark.parametrize("seed", range(6))
def test_association_is_the_largest_canonical_correlation(seed):
    rng = np.random.default_rng(seed)
    n, n_batches, p = 60, int(rng.integers(2, 5)), int(rng.integers(1, 4))
    batch = rng.permutation(np.arange(n) % n_batches)
    z = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) + 1e3
    z += 2 * rng.normal(size=(n_batches, p))[batch]
    dummies = (batch[:, None] == np.arange(n_batches - 1)).astype(float)
    one, two = (np.linalg.qr(m - m.mean(axis=0))[0] for m in (dummies, z))
    largest = np.linalg.svd(one.T @ two, compute_uv=False)[0]
    found, *_ = measure(batch, z)
    np.testing.assert_allclose(found, adjusted(largest**2, n, n_batches), atol=1e-8)
    # and does not depend on how the columns are written
    again, *_ = measure(batch, z @ rng.normal(size=(p, p)) * 1e-6)
    np.testing.assert_allclose(found, again, atol=1e-6)


def test_association_is_1_when_confounded_and_0_when_balanced():
    site = np.unique(BATCH, return_inverse=True)[1]
    np.testing.assert_allclose(measure(BATCH, site == 1)[0], 1, atol=1e-7)
    assert measure(BATCH, SEX == "f")[0] == 0  # as even as can be


def test_association_by_chance_is_about_0_for_many_batches():
    """Unadjusted it would be about √(B / n)."""
    rng = np.random.default_rng(0)
    batch = np.repeat(np.arange(30), 5)
    found = [measure(batch, rng.normal(size=150))[0] for _ in range(40)]
    assert np.median(found) < 0.2


@every_method
def test_strong_association_is_told_with_its_strength(method, x, rng):
    group = np.where((BATCH == "a") ^ (rng.random(N) < 0.1), "patient", "control")
    strength = measure(BATCH, group == "patient")[0]
    assert 0.5 < strength < 1
    with pytest.warns(AssociationWarning, match=rf"'group'.*{strength:.2f}"):
        method().fit(x, batch=BATCH, covariates=table(group=group, sex=SEX))


@every_method
def test_weak_association_is_no_matter(method, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method().fit(x, batch=BATCH, covariates=table(sex=SEX))


def test_a_column_does_not_vary_where_the_fullest_feature_has_values(x, rng):
    """That feature stays as it is, and the others are corrected."""
    x[rng.random(x.shape) < 0.6] = np.nan
    x[:, 0] = np.where(SEX == "f", 6.0 + np.arange(N), np.nan)
    z = np.column_stack([SEX == "m", np.arange(N) % 7]).astype(float)
    fitted = bc.RemoveBatchEffect().fit(x, batch=BATCH, covariates=z)
    assert fitted.aim_.adjustable.tolist() == [False] + [True] * 14
