"""Where other implementations go wrong: here it is right, by an independent oracle."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from tests.reference_combat import combat

# Small and unbalanced designs on purpose: their warnings are not the matter here.
pytestmark = pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchCorrWarning")

LETTERS = np.array(["a", "b", "c", "d"])
DTYPES = {  # how labels of a category may come
    "category": lambda codes: pd.Series(pd.Categorical.from_codes(codes, LETTERS)),
    "unused category": lambda codes: pd.Series(
        pd.Categorical.from_codes(codes, [*LETTERS, "never"])
    ),
    "object": lambda codes: pd.Series(LETTERS[codes], dtype=object),
    "string": lambda codes: pd.Series(LETTERS[codes], dtype="string"),
    "pyarrow": lambda codes: pd.Series(LETTERS[codes], dtype="string[pyarrow]"),
    "numpy text": lambda codes: pd.Series(list(LETTERS[codes])),
    "bool": lambda codes: pd.Series(codes > 0),
    "boolean": lambda codes: pd.Series(codes > 0, dtype="boolean"),
    "integers as category": lambda codes: pd.Series(codes + 7).astype("category"),
    "mixed object": lambda codes: pd.Series(["no", "yes", 3, 4.5], dtype=object)[
        codes
    ].reset_index(drop=True),
}
OPTIONS = [
    {},
    {"reference": 1},
    {"mean_only": True},
    {"parametric": False},
    {"parametric": False, "mean_only": True},
]


def dummies(codes):
    """One column for each level that occurs, but the first."""
    return np.array(
        [[float(c == level) for level in set(codes) - {min(codes)}] for c in codes]
    )


def draw_design(rng, n_levels):
    """Return batches and two categories and a number such that all can be estimated."""
    while True:
        n_batches = rng.integers(2, 5)
        n = rng.integers(5 * n_batches, 50)
        batch = rng.integers(0, n_batches, n)
        one, two = rng.integers(0, n_levels, n), rng.integers(0, 2, n)
        number = rng.normal(50, 10, n)
        kept = int(rng.integers(1, 4))
        z = np.hstack([dummies(one), dummies(two), number[:, None]][:kept])
        full = np.hstack([batch[:, None] == np.arange(n_batches), z])
        scaled = full / np.linalg.norm(full, axis=0).clip(1e-9)
        smallest = np.linalg.svd(scaled, compute_uv=False)[-1]
        each = np.bincount(batch, minlength=n_batches)
        if smallest > 0.02 and each.min() >= 2 and z.shape[1] + n_batches + 3 < n:
            return batch, one, two, number, kept, z


def draw_values(rng, batch, z, n_features=9):
    x = rng.normal(size=(len(batch), n_features)) * rng.uniform(0.5, 2, (5, 1))[batch]
    x += z @ rng.normal(0, 0.3, (z.shape[1], n_features))
    return x + rng.normal(6, 1, (5, n_features))[batch]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_combat_is_the_oracle_s_for_any_labels(dtype, options):
    """Four random designs for each of 50 combinations."""
    if dtype == "pyarrow" and find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    for seed in range(4):
        rng = np.random.default_rng((list(DTYPES).index(dtype), seed))
        two_valued = dtype in {"bool", "boolean"}
        batch, one, two, number, kept, z = draw_design(rng, 2 if two_valued else 4)
        x = draw_values(rng, batch, z)
        table = pd.DataFrame(
            {"one": DTYPES[dtype](one), "two": DTYPES[dtype](two), "number": number}
        ).iloc[:, :kept]
        found = bc.ComBat(**options).fit_transform(x, batch=batch, covariates=table)
        expected = combat(x, batch, z, **options)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_the_oracle_is_right(golden):
    """It is within rounding of R."""
    for name in ("combat_14_tiny", "combat_10_uniform_genes", "combat_05_ref5_cancer"):
        case = golden(name)
        reference = 5 if "ref5" in name else None
        y = combat(
            case["input"], case["batch"], case["mod"][:, 1:], reference=reference
        )
        np.testing.assert_allclose(y, case["expected"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kept", [[], ["cell_type", "age"]], ids=len)
def test_a_constant_gene_leaves_all_others_as_they_are_without_it(small, options, kept):
    """In one peer NaN > tolerance ends the iteration of all genes after one round."""
    beside = {"batch": small.batch, "covariates": small.keep(kept)}
    alone = bc.ComBat(**options).fit_transform(small.x[:, 2:], **beside)
    # features 0 and 1: constant throughout, and in one batch
    for extra in ([0], [1], [0, 1]):
        x = np.hstack([small.x[:, extra], small.x[:, 2:]])
        found = bc.ComBat(**options).fit_transform(x, **beside)
        np.testing.assert_allclose(
            found[:, len(extra) :], alone, rtol=1e-12, atol=1e-12
        )
        np.testing.assert_array_equal(found[:, : len(extra)], x[:, : len(extra)])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kept", ["age", "sex"])
def test_a_gene_that_is_a_covariate_leaves_all_others_as_they_are(small, options, kept):
    """Its residuals are rounding errors, and must not become part of the priors."""
    table = small.table[[kept]]
    gene = table[kept] if kept == "age" else (table[kept] == "m") * 1.5
    beside = {"batch": small.batch, "covariates": table}
    alone = bc.ComBat(**options).fit_transform(small.x, **beside)
    found = bc.ComBat(**options).fit_transform(
        np.hstack([gene.to_numpy()[:, None], small.x]), **beside
    )
    np.testing.assert_allclose(found[:, 1:], alone, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[:, 0], gene, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [400, 1600])
def test_nonparametric_combat_is_finite_for_large_batches(n):
    """A product of 520 densities underflows: R and its ports then give NaN."""
    rng = np.random.default_rng(0)
    batch = np.repeat([1, 2], n)
    x = rng.normal(6, 1, (2 * n, 12)) * np.where(batch == 2, 1.7, 1.0)[:, None]
    x += rng.normal(0, 1, (3, 12))[batch]
    y = bc.ComBat(parametric=False).fit_transform(x, batch=batch)
    assert np.isfinite(y).all()
    apart = y[batch == 1].mean(axis=0) - y[batch == 2].mean(axis=0)
    before = x[batch == 1].mean(axis=0) - x[batch == 2].mean(axis=0)
    assert np.abs(apart).max() < np.abs(before).max()
    if n == 400:  # products do not underflow yet
        expected = combat(x, batch, np.empty((2 * n, 0)), parametric=False)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_float32_stays_float32(small, options):
    x = small.x.astype(np.float32)
    y = bc.ComBat(**options).fit_transform(x, batch=small.batch, covariates=small.table)
    assert y.dtype == np.float32


def test_labels_of_batches_may_be_of_any_type():
    rng = np.random.default_rng(5)
    codes = np.resize([0, 1, 2, 3], 40)
    x = draw_values(rng, codes, np.empty((40, 0)))
    expected = combat(x, codes, np.empty((40, 0)))
    for name, make in DTYPES.items():
        if name in {"bool", "boolean"} or (name == "pyarrow" and not find_spec(name)):
            continue
        found = bc.ComBat().fit_transform(x, batch=make(codes))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9, err_msg=name)


def test_few_integers_are_a_number_with_a_warning_and_a_category_on_demand(small):
    """Read as labels or as a slope? It is said, and the other is one word away."""
    stage = pd.DataFrame({"stage": np.resize([1, 2, 2, 3, 1], 44)})
    with pytest.warns(bc.errors.CovariateWarning, match="read as a number"):
        slope = bc.ComBat().fit_transform(small.x, batch=small.batch, covariates=stage)
    number = combat(small.x, small.batch, stage.to_numpy(float))
    labels = combat(small.x, small.batch, dummies(stage["stage"]))
    category = bc.ComBat().fit_transform(
        small.x, batch=small.batch, covariates=stage.astype("category")
    )
    np.testing.assert_allclose(slope, number, atol=1e-9)
    np.testing.assert_allclose(category, labels, atol=1e-9)
    assert np.abs(number - labels).max() > 1e-3
