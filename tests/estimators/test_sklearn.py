"""The estimators among scikit-learn's: pipelines, cross-validation, searches, tables."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import batchcorr as bc
from batchcorr.errors import DensifyWarning, InputError

ESTIMATORS = [bc.ComBat, bc.Standardize, bc.RemoveBatchEffect]
N, G = 120, 12
GENES = [f"g{j}" for j in range(G)]
BATCH = np.resize(["a", "b", "c"], N)
Y = np.resize([0, 0, 0, 1, 1, 1], N)
RNG = np.random.default_rng(0)
SAMPLES = pd.DataFrame(
    {"sex": RNG.choice(["f", "m"], N), "age": RNG.normal(50, 9, N).round(1)}
)


def values():
    """Two classes apart in a few genes, three batches apart in all of them."""
    rng = np.random.default_rng(1)
    x = rng.normal(6, 1, (N, G))
    x[:, :3] += 1.2 * Y[:, None]
    code = np.searchsorted(["a", "b", "c"], BATCH)
    shift, scale = rng.normal(0, 2, (3, G)), rng.uniform(0.5, 2, (3, G))
    return x * scale[code] + shift[code]


X = values()
TABLE = pd.DataFrame(X, columns=GENES, index=[f"s{i}" for i in range(N)])
MIXED = TABLE.assign(batch=BATCH, sex=SAMPLES["sex"].array, age=SAMPLES["age"].array)

each_estimator = pytest.mark.parametrize("kind", ESTIMATORS)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def pipeline(correction):
    return Pipeline(
        [
            ("correct", correction),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression()),
        ]
    )


def folds(n=3):
    """Splits of which every part has all batches and both classes."""
    strata = [f"{label}{y}" for label, y in zip(BATCH, Y, strict=True)]
    split = StratifiedKFold(n, shuffle=True, random_state=0)
    return list(split.split(X, strata))


def frozen(estimator):
    """Return everything that `fit` found, as arrays by name."""
    correction, aim = estimator.correction_, estimator.aim_
    return estimator.details_ | {
        "scale": correction.scale,
        "shift": correction.shift,
        "coefficients": correction.coefficients,
        "nuisance": correction.nuisance,
        "aim": aim.location,
        "aim scale": aim.scale,
        "adjustable": aim.adjustable,
        "batches": np.array(estimator.batches_),
    }


def assert_same_fit(left, right):
    left, right = frozen(left), frozen(right)
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)


# -- metadata routing -------------------------------------------------------------


@each_estimator
def test_batch_and_covariates_are_asked_for_by_default(kind):
    methods = ("fit", "partial_fit", "transform", "inverse_transform")
    requests = kind().get_metadata_routing()
    for method in methods:
        asked = getattr(requests, method).requests
        assert asked["batch"] is True, method
        assert asked["covariates"] is True, method


def test_linear_removal_also_asks_for_nuisance_and_weights():
    requests = bc.RemoveBatchEffect().get_metadata_routing()
    assert requests.fit.requests["nuisance"] is True
    assert requests.fit.requests["weights"] is True
    assert requests.transform.requests["nuisance"] is True
    assert "weights" not in requests.transform.requests


@pytest.mark.usefixtures("routing")
@each_estimator
def test_a_pipeline_hands_over_batch_and_covariates(kind):
    model = pipeline(kind()).fit(X, Y, batch=BATCH, covariates=SAMPLES)
    alone = kind().fit(X, batch=BATCH, covariates=SAMPLES)
    assert_same_fit(model["correct"], alone)
    corrected = alone.transform(X, batch=BATCH, covariates=SAMPLES)
    expected = model[1:].predict_proba(corrected)
    found = model.predict_proba(X, batch=BATCH, covariates=SAMPLES)
    np.testing.assert_array_equal(found, expected)
    assert model.score(X, Y, batch=BATCH, covariates=SAMPLES) > 0.7


@pytest.mark.usefixtures("routing")
def test_a_pipeline_hands_over_nuisance_and_weights():
    nuisance, weights = SAMPLES[["age"]], np.linspace(0.5, 2, N)
    model = pipeline(bc.RemoveBatchEffect()).fit(
        X, Y, batch=BATCH, nuisance=nuisance, weights=weights
    )
    alone = bc.RemoveBatchEffect().fit(
        X, batch=BATCH, nuisance=nuisance, weights=weights
    )
    assert_same_fit(model["correct"], alone)
    model.predict(X, batch=BATCH, nuisance=nuisance)
    with pytest.raises(InputError, match=r"nuisance=.*age"):
        model.predict(X, batch=BATCH)


@pytest.mark.usefixtures("routing")
def test_cross_validate_hands_over_what_belongs_to_each_fold():
    splits = folds()
    found = cross_validate(
        pipeline(bc.ComBat()),
        X,
        Y,
        cv=splits,
        params={"batch": BATCH, "covariates": SAMPLES},
        return_estimator=True,
    )
    for (train, test), model, score in zip(
        splits, found["estimator"], found["test_score"], strict=True
    ):
        own = {"batch": BATCH[train], "covariates": SAMPLES.iloc[train]}
        assert_same_fit(model["correct"], bc.ComBat().fit(X[train], **own))
        own = {"batch": BATCH[test], "covariates": SAMPLES.iloc[test]}
        assert score == model.score(X[test], Y[test], **own)


@pytest.mark.usefixtures("routing")
def test_a_grid_search_hands_over_batch_and_covariates():
    grid = {"correct__mean_only": [True, False], "correct__reference": [None, "b"]}
    search = GridSearchCV(pipeline(bc.ComBat()), grid, cv=folds())
    search.fit(X, Y, batch=BATCH, covariates=SAMPLES)
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_["correct"]
    assert best.reference == search.best_params_["correct__reference"]
    found = search.best_estimator_.predict(X, batch=BATCH, covariates=SAMPLES)
    assert found.shape == (N,)


@pytest.mark.usefixtures("routing")
def test_a_column_transformer_hands_over_batch():
    table = TABLE.assign(extra=1.0)
    union = ColumnTransformer(
        [("genes", bc.Standardize(), GENES)],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    found = union.fit_transform(table, batch=BATCH)
    assert list(found.columns) == [*GENES, "extra"]
    expected = bc.Standardize().fit_transform(X, batch=BATCH)
    np.testing.assert_array_equal(found[GENES], expected)
    np.testing.assert_array_equal(found["extra"], 1.0)


@each_estimator
def test_without_routing_the_error_names_both_ways(kind):
    with pytest.raises(InputError, match=r"batch_column=.*enable_metadata_routing"):
        pipeline(kind()).fit(X, Y)


@each_estimator
def test_fit_takes_y_second_and_ignores_it(kind):
    left = kind().fit(X, Y, batch=BATCH)
    assert_same_fit(left, kind().fit(X, 1 - Y, batch=BATCH))
    assert_same_fit(left, kind().fit(X, batch=BATCH))
    np.testing.assert_array_equal(
        kind().fit_transform(X, Y, batch=BATCH), left.transform(X, batch=BATCH)
    )
    with pytest.raises(TypeError):
        kind().fit(X, Y, BATCH)


# -- columns of a table -------------------------------------------------------------


def by_columns(kind, **kwargs):
    return kind(batch_column="batch", covariate_columns=["sex", "age"], **kwargs)


@each_estimator
def test_columns_are_as_good_as_metadata(kind):
    left = by_columns(kind).fit(MIXED)
    right = kind().fit(TABLE, batch=BATCH, covariates=MIXED[["sex", "age"]])
    assert_same_fit(left, right)
    found = left.transform(MIXED)
    expected = right.transform(TABLE, batch=BATCH, covariates=MIXED[["sex", "age"]])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(by_columns(kind).fit_transform(MIXED), expected)


def test_columns_may_stand_anywhere():
    shuffled = MIXED[["age", *GENES[:5], "batch", *GENES[5:], "sex"]]
    found = by_columns(bc.ComBat).fit_transform(shuffled)
    np.testing.assert_array_equal(found, by_columns(bc.ComBat).fit_transform(MIXED))


def test_metadata_goes_before_columns():
    turned = np.roll(BATCH, 1)
    left = bc.ComBat(batch_column="batch").fit(TABLE.assign(batch=BATCH), batch=turned)
    assert_same_fit(left, bc.ComBat().fit(TABLE, batch=turned))


@each_estimator
@pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss", None])
def test_scorers_find_the_batch_in_a_column(kind, scoring):
    scores = cross_val_score(
        pipeline(by_columns(kind)),
        MIXED,
        Y,
        cv=folds(),
        scoring=scoring,
        error_score="raise",
    )
    assert np.isfinite(scores).all()
    assert scoring == "neg_log_loss" or scores.min() > 0.7


@pytest.mark.usefixtures("routing")
def test_scorers_find_the_batch_in_a_column_under_routing_too():
    found = cross_val_score(
        pipeline(by_columns(bc.ComBat)), MIXED, Y, cv=folds(), scoring="roc_auc"
    )
    with sklearn.config_context(enable_metadata_routing=False):
        expected = cross_val_score(
            pipeline(by_columns(bc.ComBat)), MIXED, Y, cv=folds(), scoring="roc_auc"
        )
    np.testing.assert_array_equal(found, expected)


def test_cross_val_predict_finds_the_batch_in_a_column():
    model = pipeline(by_columns(bc.ComBat, mean_only=True))
    found = cross_val_predict(model, MIXED, Y, cv=folds(), method="predict_proba")
    expected = np.empty_like(found)
    for train, test in folds():
        fitted = clone(model).fit(MIXED.iloc[train], Y[train])
        expected[test] = fitted.predict_proba(MIXED.iloc[test])
    np.testing.assert_array_equal(found, expected)
    assert roc_auc_score(Y, found[:, 1]) > 0.7


def test_a_grid_search_scores_with_columns():
    search = GridSearchCV(
        pipeline(by_columns(bc.Standardize)),
        {"correct__scale": [True, False]},
        scoring="roc_auc",
        cv=folds(),
        error_score="raise",
    ).fit(MIXED, Y)
    assert search.best_score_ > 0.7
    assert search.predict(MIXED).shape == (N,)


# -- nothing of the test rows gets into a fit -----------------------------------------


@pytest.mark.usefixtures("routing")
@each_estimator
def test_test_rows_never_influence_a_fit(kind):
    splits = folds()
    changed = []
    for _, test in splits:
        x, batch, table, y = X.copy(), BATCH.copy(), SAMPLES.copy(), Y.copy()
        x[test] = 100 * np.random.default_rng(9).normal(size=(len(test), G))
        batch[test] = "a"
        table.loc[test, "age"] = 1000.0
        y[test] = 1 - y[test]
        changed.append((x, batch, table, y))
    for k, (train, test) in enumerate(splits):
        models = []
        for x, batch, table, y in [(X, BATCH, SAMPLES, Y), changed[k]]:
            found = cross_validate(
                pipeline(kind()),
                x,
                y,
                cv=[(train, test)],
                params={"batch": batch, "covariates": table},
                return_estimator=True,
                error_score="raise",
            )
            models.append(found["estimator"][0])
        before, after = models
        assert_same_fit(before["correct"], after["correct"])
        np.testing.assert_array_equal(before["scale"].mean_, after["scale"].mean_)
        np.testing.assert_array_equal(before[-1].coef_, after[-1].coef_)


@each_estimator
def test_transform_changes_nothing_in_the_estimator(kind):
    estimator = kind().fit(X, batch=BATCH)
    before = {name: array.copy() for name, array in frozen(estimator).items()}
    estimator.transform(100 * X[::-1], batch=BATCH)
    estimator.inverse_transform(X, batch=BATCH)
    for name, array in frozen(estimator).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@each_estimator
def test_a_row_is_corrected_the_same_in_any_company(kind):
    estimator = kind().fit(X, batch=BATCH)
    whole = estimator.transform(X, batch=BATCH)
    rows = np.random.default_rng(2).permutation(N)[:17]
    np.testing.assert_array_equal(
        estimator.transform(X[rows], batch=BATCH[rows]), whole[rows]
    )
    one = estimator.transform(X[4:5], batch=BATCH[4:5])
    np.testing.assert_array_equal(one, whole[4:5])


# -- names, tables, kinds of matrix ---------------------------------------------------


@each_estimator
def test_features_of_a_table_keep_their_names(kind):
    estimator = kind().fit(TABLE, batch=BATCH)
    assert estimator.n_features_in_ == G
    assert list(estimator.feature_names_in_) == GENES
    assert list(estimator.get_feature_names_out()) == GENES
    assert list(estimator.get_feature_names_out(GENES)) == GENES


@each_estimator
def test_columns_taken_out_are_features_in_but_not_out(kind):
    estimator = by_columns(kind).fit(MIXED)
    assert estimator.n_features_in_ == G + 3
    assert list(estimator.feature_names_in_) == list(MIXED.columns)
    assert list(estimator.get_feature_names_out()) == GENES
    model = make_pipeline(by_columns(kind), StandardScaler()).fit(MIXED)
    assert list(model.get_feature_names_out()) == GENES


@each_estimator
def test_features_of_a_matrix_are_numbered(kind):
    estimator = kind().fit(X, batch=BATCH)
    assert estimator.n_features_in_ == G
    assert not hasattr(estimator, "feature_names_in_")
    assert list(estimator.get_feature_names_out()) == [f"x{j}" for j in range(G)]


@each_estimator
def test_a_new_fit_forgets_the_names_of_the_last(kind):
    estimator = kind().fit(TABLE, batch=BATCH).fit(X[:, 1:], batch=BATCH)
    assert estimator.n_features_in_ == G - 1
    assert not hasattr(estimator, "feature_names_in_")
    assert list(estimator.get_feature_names_out()) == [f"x{j}" for j in range(G - 1)]


def test_names_that_are_not_given_are_not_known():
    with pytest.raises(NotFittedError):
        bc.ComBat().get_feature_names_out()
    with pytest.raises(ValueError, match="input_features"):
        bc.ComBat().fit(TABLE, batch=BATCH).get_feature_names_out(GENES[:3])


@each_estimator
def test_set_output_makes_tables(kind):
    expected = kind().fit_transform(X, batch=BATCH)
    estimator = kind().set_output(transform="pandas")
    for found in (
        estimator.fit_transform(TABLE, batch=BATCH),
        estimator.transform(TABLE, batch=BATCH),
    ):
        assert isinstance(found, pd.DataFrame)
        assert list(found.columns) == GENES
        assert list(found.index) == list(TABLE.index)
        np.testing.assert_array_equal(found, expected)
    assert isinstance(kind().fit_transform(TABLE, batch=BATCH), np.ndarray)


def test_set_output_makes_tables_without_the_columns_taken_out():
    model = make_pipeline(by_columns(bc.ComBat), StandardScaler())
    found = model.set_output(transform="pandas").fit_transform(MIXED)
    assert list(found.columns) == GENES
    assert list(found.index) == list(MIXED.index)


def test_set_output_is_kept_by_copies():
    estimator = bc.ComBat().set_output(transform="pandas").fit(TABLE, batch=BATCH)
    for copied in (clone(estimator).fit(TABLE, batch=BATCH), pickled(estimator)):
        assert isinstance(copied.transform(TABLE, batch=BATCH), pd.DataFrame)


@each_estimator
@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda x: pd.DataFrame(x, columns=GENES), id="DataFrame"),
        pytest.param(np.asfortranarray, id="Fortran order"),
        pytest.param(sp.csr_matrix, id="CSR matrix"),
        pytest.param(sp.csr_array, id="CSR array"),
        pytest.param(sp.csc_matrix, id="CSC matrix"),
        pytest.param(lambda x: x.tolist(), id="lists"),
    ],
)
@pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning")
@pytest.mark.filterwarnings(
    "ignore:.* constant in a batch"
)  # where a gene is all zeros
def test_every_kind_of_matrix_gives_the_same(kind, convert):
    x = np.where(X < 5, 0, X)
    given = convert(x)
    expected = kind().fit_transform(x, batch=BATCH, covariates=SAMPLES)
    found = kind().fit_transform(given, batch=BATCH, covariates=SAMPLES)
    exact = not isinstance(given, list)  # lists have no dtype and become float32
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, rtol=1e-9 if exact else 1e-4)


def test_labels_are_matched_by_position_not_by_index():
    batch = pd.Series(BATCH, index=np.arange(N)[::-1])
    table = SAMPLES.set_axis(np.arange(N)[::-1])
    left = bc.ComBat().fit(TABLE, batch=batch, covariates=table)
    assert_same_fit(left, bc.ComBat().fit(X, batch=BATCH, covariates=SAMPLES))


def renamed(index, count):
    return index[:-count].append(pd.Index([f"other {i}" for i in range(count)]))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda given: given[::-1],
            r"rows of X in another order.*give {}.loc\[X.index",
        ),
        (lambda given: given.set_axis(renamed(given.index, 1)), "has 1 rows that X"),
        (lambda given: given[::-1].rename({"s0": "zz"}), r"X does not have \(zz\)"),
        (lambda given: given.set_axis(renamed(given.index, N - 2)), f"{N - 2} rows"),
    ],
    ids=["another order", "one name", "one name and another order", "few in common"],
)
@pytest.mark.parametrize("name", ["batch", "covariates"])
def test_labels_of_other_rows_are_refused(name, change, match):
    given = {
        "batch": pd.Series(BATCH, index=TABLE.index),
        "covariates": SAMPLES.set_axis(TABLE.index),
    }
    fitted = bc.ComBat().fit(TABLE, **given)
    other = given | {name: change(given[name])}
    for call in (bc.ComBat().fit, fitted.transform):
        with pytest.raises(InputError, match=match.format(name)):
            call(TABLE, **other)
    with pytest.raises(
        InputError, match=match.format("covariates").replace("X", "batch")
    ):
        bc.ComBat().fit(X, **(given | {"covariates": change(given["covariates"])}))
    assert_same_fit(bc.ComBat().fit(TABLE.reset_index(drop=True), **given), fitted)


def test_nuisances_of_other_rows_are_refused_beside_an_array_too():
    batch = pd.Series(BATCH, TABLE.index)
    age = pd.Series(np.arange(N) % 7.0, TABLE.index, name="age")
    model = bc.RemoveBatchEffect().fit(X, batch=batch, nuisance=age)
    new = batch.map(lambda label: f"new {label}")
    for call, labels in (
        (bc.RemoveBatchEffect().fit, batch),
        (model.transform, batch),
        (model.inverse_transform, batch),
        (model.add_batches, new),
    ):
        call(X, batch=labels, nuisance=age)
        with pytest.raises(InputError, match="rows of batch in another order"):
            call(X, batch=labels, nuisance=age[::-1])


@each_estimator
def test_x_is_only_written_to_with_copy_false(kind):
    x = X.copy()
    kept = kind().fit(x, batch=BATCH).transform(x, batch=BATCH)
    np.testing.assert_array_equal(x, X)
    assert not np.shares_memory(kept, x)
    written = kind(copy=False).fit(x, batch=BATCH).transform(x, batch=BATCH)
    assert np.shares_memory(written, x)
    np.testing.assert_array_equal(x, kept)


# -- the manners of an estimator --------------------------------------------------------


def pickled(estimator):
    return pickle.loads(pickle.dumps(estimator))


@each_estimator
def test_clone_keeps_parameters_and_forgets_the_fit(kind):
    estimator = by_columns(kind, copy=False).fit(MIXED)
    copied = clone(estimator)
    assert copied.get_params() == estimator.get_params()
    check_is_fitted(estimator)
    with pytest.raises(NotFittedError):
        check_is_fitted(copied)
    with pytest.raises(NotFittedError):
        copied.transform(MIXED)


@each_estimator
def test_a_fitted_estimator_can_be_sent_to_another_process(kind):
    estimator = kind().fit(TABLE, batch=BATCH, covariates=SAMPLES)
    sent = pickled(estimator)
    assert_same_fit(sent, estimator)
    given = {"batch": BATCH, "covariates": SAMPLES}
    np.testing.assert_array_equal(
        sent.transform(TABLE, **given), estimator.transform(TABLE, **given)
    )


@each_estimator
def test_fit_twice_is_fit_once(kind):
    twice = kind().fit(10 * X[::-1, ::-1], batch=BATCH[::-1]).fit(X, batch=BATCH)
    assert_same_fit(twice, kind().fit(X, batch=BATCH))


@pytest.mark.usefixtures("tiny_is_large")
@each_estimator
def test_tags_tell_of_missing_values_and_sparse_matrices(kind):
    tags = sklearn.utils.get_tags(kind())
    assert tags.input_tags.allow_nan
    assert tags.input_tags.sparse
    x = X.copy()
    x[3, 2] = np.nan
    y = kind().fit_transform(x, batch=BATCH)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    with pytest.warns(DensifyWarning):
        kind().fit_transform(sp.csr_matrix(X), batch=BATCH)
