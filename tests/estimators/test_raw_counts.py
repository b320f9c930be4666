"""Counts as people have them: masked, in tables with missing values, of any integers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import InputError
from batchcorr.estimators.matrix import as_matrix
from batchcorr.estimators.raw_counts import as_counts, raw_counts

COUNTS = np.random.default_rng(0).poisson(20, (12, 8))


def masked(values, *where):
    found = np.ma.masked_array(values, mask=np.zeros(values.shape, bool))
    for place in where:
        found[place] = np.ma.masked
        found.data[place] = 10_000
    return found


def nullable(values, *where):
    table = pd.DataFrame(values).astype("Int32")
    for row, column in where:
        table.iloc[row, column] = pd.NA
    return table


KINDS = pytest.mark.parametrize("kind", [masked, nullable])


@KINDS
def test_where_nothing_is_missing_integers_stay(kind):
    for found in (as_counts(kind(COUNTS)), raw_counts(kind(COUNTS))):
        assert type(found) is np.ndarray
        assert found.dtype.kind == "i"
        np.testing.assert_array_equal(found, COUNTS)
    whole = bc.LogNormalize().fit_transform(COUNTS)
    np.testing.assert_array_equal(bc.LogNormalize().fit_transform(kind(COUNTS)), whole)


@KINDS
def test_a_hidden_count_is_missing_not_ten_thousand(kind):
    given = kind(COUNTS, (3, 5))
    found = as_matrix(given)
    assert np.argwhere(np.isnan(found)).tolist() == [[3, 5]]
    for method in (bc.ComBatSeq, bc.LogNormalize, bc.normalization_factors):
        about = {"batch": np.arange(12) % 2} if method is bc.ComBatSeq else {}
        with pytest.raises(InputError, match="missing"):
            method(given) if method is bc.normalization_factors else method().fit(
                given, **about
            )


@KINDS
def test_a_hidden_value_takes_no_part_in_quantiles(kind):
    given = kind(COUNTS, (3, 5), (7, 0))
    plain = COUNTS.astype(float)
    plain[3, 5] = plain[7, 0] = np.nan
    np.testing.assert_allclose(
        bc.QuantileNormalize().fit_transform(given),
        bc.QuantileNormalize().fit_transform(plain),
    )


def test_a_mask_is_not_written_through():
    given = masked(COUNTS.astype(float))
    before = given.data.copy()
    bc.QuantileNormalize(copy=False).fit_transform(given)
    bc.LogNormalize(copy=False).fit_transform(given)
    np.testing.assert_array_equal(given.data, before)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.uint32])
def test_large_integers_keep_their_last_digit(dtype):
    """float32 holds whole numbers to 2^24 only: 16,777,217 is lost there."""
    x = (2**24 + np.arange(24).reshape(6, 4)).astype(dtype)
    assert as_matrix(x).dtype == np.float64
    np.testing.assert_array_equal(as_matrix(x), x)
    assert as_matrix(x.astype(np.uint16)).dtype == np.float32


def test_counts_that_float64_does_not_hold_are_refused():
    with pytest.raises(InputError, match=r"counts must be under 2\^53"):
        as_counts(np.array([[1, 2**53 + 1]]))


@pytest.mark.parametrize(
    "method", ["combat_seq", "log_normalize", "quantile_normalize"]
)
def test_frozen_counts_are_read_only(method):
    counts = COUNTS.copy()
    counts.flags.writeable = False
    estimator = {
        "combat_seq": bc.ComBatSeq(),
        "log_normalize": bc.LogNormalize(copy=False),
        "quantile_normalize": bc.QuantileNormalize(copy=False),
    }[method]
    batch = {"batch": np.arange(12) % 2} if method != "log_normalize" else {}
    found = estimator.fit_transform(counts, **batch)
    assert not np.shares_memory(found, counts)
    np.testing.assert_array_equal(counts, COUNTS)
