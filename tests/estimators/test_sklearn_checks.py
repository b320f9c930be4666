"""Every estimator before scikit-learn's own checks; what is not met has its reason."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.utils.estimator_checks import parametrize_with_checks

import batchcorr as bc

pytestmark = [
    pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchSizeWarning"),
    pytest.mark.filterwarnings("ignore::batchcorr.errors.CountsWarning"),
    pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning"),
    pytest.mark.filterwarnings("ignore::batchcorr.errors.EmptySampleWarning"),
    pytest.mark.filterwarnings("ignore::batchcorr.errors.FeatureWarning"),
    pytest.mark.filterwarnings("ignore::batchcorr.errors.LogScaleWarning"),
]


def labels(x):
    """Two batches by the digits of a row's first value: the checks know of no batches.

    So a row keeps its batch in any order and any company.
    """
    first = x.toarray()[:, 0] if sp.issparse(x) else np.asarray(x)[:, 0]
    digits = np.abs(first.astype(np.float32).astype(float)) * 1234.567
    return np.floor(digits).astype(int) % 2


class Labelled:
    """An estimator that finds its batches itself."""

    def fit(self, X, y=None):
        return super().fit(X, y, batch=batches(X))

    def transform(self, X):
        return super().transform(X, batch=batches(X))

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)

    def partial_fit(self, X, y=None):
        return super().partial_fit(X, y, batch=batches(X), batches=[0, 1])


def batches(x):
    """None where X is refused before its batches are looked at."""
    x = x if sp.issparse(x) else np.asarray(x)
    return labels(x) if x.ndim == 2 and x.size and x.dtype.kind in "biuf" else None


class ComBat(Labelled, bc.ComBat):
    """With batches of its own."""


class Standardize(Labelled, bc.Standardize):
    """With batches of its own."""


class RemoveBatchEffect(Labelled, bc.RemoveBatchEffect):
    """With batches of its own."""


ESTIMATORS = [
    ComBat(),
    Standardize(),
    RemoveBatchEffect(),
    bc.ComBatSeq(),
    bc.LogNormalize(),
    bc.QuantileNormalize(),
]

OUR_WORDS = {
    "check_estimators_empty_data_messages": "the error is ours, in other words",
    "check_fit2d_predict1d": "the error is ours, in other words",
    "check_dtype_object": "numbers as Python objects are refused: mostly a table of text",
}
CHECKS_OF_FITTED_VALUES = [
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
    "check_transformer_preserve_dtypes",
]
FAILS = {
    "ComBat": {
        "check_fit2d_1feature": "empirical Bayes needs at least two features",
        "check_fit2d_1sample": "one sample has no batch effect",
    },
    "LogNormalize": {
        "check_positive_only_tag_during_fit": "the error is ours, in other words"
    },
    "RemoveBatchEffect": {"check_fit2d_1sample": "one sample has no batch effect"},
    "ComBatSeq": dict.fromkeys(
        CHECKS_OF_FITTED_VALUES,
        "the check's values are fractions, and counts are asked for",
    ),
}


def fails(estimator):
    """The checks that an estimator does not meet, each with its reason."""
    return OUR_WORDS | FAILS.get(type(estimator).__name__, {})


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=fails)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)
