"""Which columns are tested, and how tables tell it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from batchcorr.errors import BatchSizeWarning, DesignError, InputError
from batchcorr.estimators.contrasts import Contrast, read_contrast
from batchcorr.estimators.differential import differential_table
from batchcorr.estimators.least_squares import LeastSquares
from batchcorr.estimators.metadata import Labels
from batchcorr.estimators.problem import Problem

NAMES = [f"g{k}" for k in range(30)]


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    n = 48
    table = pd.DataFrame(
        {"group": np.resize(["a", "b", "c"], n), "age": rng.normal(50, 9, n).round(1)}
    )
    batch = np.repeat(["x", "y"], n // 2)
    return rng.normal(8, 1, (n, 30)), batch, table


def table_of(samples, test, formula=None, **options):
    x, batch, table = samples
    problem = Problem.of(x, Labels(batch, table), formula=formula)
    contrast = read_contrast(test)
    return differential_table(problem, contrast, NAMES, **options)


def by_least_squares(samples, columns, weights):
    """Coefficient and ordinary standard error, from the samples themselves."""
    x, batch, _ = samples
    design = np.column_stack([batch == "x", batch == "y", *columns]).astype(float)
    solution, squares = np.linalg.lstsq(design, x, rcond=None)[:2]
    c = np.concatenate([[0, 0], weights])
    v = c @ np.linalg.inv(design.T @ design) @ c
    return c @ solution, np.sqrt(v * squares / (len(x) - design.shape[1]))


def dummies(table):
    return [table.group == "b", table.group == "c", table.age]


@pytest.mark.parametrize(
    ("test", "weights"),
    [
        ("age", [0, 0, 1]),
        (("group", "b", "a"), [1, 0, 0]),
        (("group", "a", "b"), [-1, 0, 0]),
        (("group", "c", "b"), [-1, 1, 0]),
        (("group", {"a": -1, "b": 0.5, "c": 0.5}), [0.5, 0.5, 0]),
    ],
)
def test_slopes_and_contrasts(samples, test, weights):
    found = table_of(samples, test)
    coefficient, _ = by_least_squares(samples, dummies(samples[2]), weights)
    np.testing.assert_allclose(found["coefficient"], coefficient, rtol=1e-9)
    assert list(found.index) == NAMES
    np.testing.assert_allclose(found["mean"], samples[0].mean(axis=0))
    np.testing.assert_allclose(
        found["coefficient"] / found["standard_error"], found["t"]
    )
    assert (
        (found.ci_low < found.coefficient) & (found.coefficient < found.ci_high)
    ).all()
    np.testing.assert_allclose(
        found["p_adjusted"], stats.false_discovery_control(found["p_value"])
    )


def test_levels_are_tested_together_and_one_by_one(samples):
    found = table_of(samples, "group")
    b, c = (
        table_of(samples, ("group", "b", "a")),
        table_of(samples, ("group", "c", "a")),
    )
    for name in ("coefficient", "t", "p_value", "ci_low"):
        np.testing.assert_allclose(found[f"{name}[b]"], b[name])
        np.testing.assert_allclose(found[f"{name}[c]"], c[name])
    assert "f" in found
    assert (found["p_value"] > 0).all()


def test_two_levels_are_one_t(samples):
    x, batch, table = samples
    table["group"] = np.where(table.group == "a", "a", "b")
    assert "t" in table_of((x, batch, table), "group")


def test_a_formula_may_hold_the_tested_column(samples):
    plain = table_of(samples, ("group", "b", "a"))
    formula = table_of(samples, ("group", "b", "a"), formula="~ group + age")
    pd.testing.assert_frame_equal(plain, formula)


def test_unequal_variances_weigh_batches(samples):
    x, batch, table = samples
    x = x.copy()
    x[batch == "y"] *= 3
    equal = table_of((x, batch, table), "age")
    weighted = table_of(
        (x, batch, table), "age", method=LeastSquares(equal_variances=False)
    )
    assert weighted.standard_error.median() < equal.standard_error.median()


def test_a_batch_that_tells_no_variance_is_named(samples):
    x, batch, table = samples
    batch = batch.astype(object)
    batch[:1] = "lonely"
    with pytest.warns(BatchSizeWarning) as caught:
        table_of((x, batch, table), "age", method=LeastSquares(equal_variances=False))
    assert any("lonely" in str(w.message) for w in caught)


def test_a_group_confounded_with_batch_is_refused(samples):
    x, batch, table = samples
    table["group"] = np.where(batch == "x", "a", "b")
    with pytest.raises(DesignError, match="'group' is confounded with batch"):
        table_of((x, batch, table), "group")


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (("group", "d", "a"), "no level 'd'"),
        (("age", "1", "2"), "contains numbers and has no level '1'"),
        ("sex", "'sex' is not among the covariates"),
        (("group", {"a": 1, "b": 1}), "sum to 0"),
        (("group", {}), "sum to 0"),
        (3, "name of a column"),
        (("group", "a", "b", "c"), "name of a column"),
    ],
)
def test_what_cannot_be_tested_is_told(samples, test, says):
    with pytest.raises(InputError, match=says):
        table_of(samples, test)


def test_the_whole_of_a_column_is_the_default():
    assert read_contrast("group") == Contrast("group", None)


def test_covariates_of_any_scale_keep_their_digits(samples):
    """Time stamps and raw powers are tested as if they had been centred and scaled."""
    x, batch, table = samples
    rng = np.random.default_rng(1)
    age, seconds = rng.integers(60, 71, len(x)), rng.integers(0, 86_400, len(x))
    time = pd.Series(1_750_000_000.0 + seconds)
    raw = table.assign(time=time, a=age, a2=age**2, a3=age**3, age=age**4)
    u = (age - 65) / 5
    fine = table.assign(time=seconds / 43_200 - 1, a=u, a2=u**2, a3=u**3, age=u**4)
    for test in ("time", "group"):
        found, wanted = (table_of((x, batch, z), test) for z in (raw, fine))
        named = [name for name in found if name.startswith(("t", "f", "p_value"))]
        np.testing.assert_allclose(found[named], wanted[named], rtol=1e-8)
