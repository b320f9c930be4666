"""Size factors: R's to rounding, on every kind of matrix; refused where R gives NaN."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.arrays.counts import CountRows, canonical, totals
from batchcorr.errors import EmptySampleWarning, InputError
from batchcorr.models.counts.size_factors import fit_reference, measure
from batchcorr.models.counts.trimmed_mean import _log2

METHODS = [
    "tmm",
    "tmmwsp",
    "rle",
    "upperquartile",
    "median_of_ratios",
    "poscounts",
]
each_method = pytest.mark.parametrize("method", METHODS)

# Four small libraries, and what edgeR 3.40.2 says of them.
TOY = np.array(
    [
        [5, 0, 3, 0, 0, 0, 0, 0],
        [0, 2, 1, 0, 0, 0, 0, 0],
        [1, 1, 9, 0, 0, 0, 0, 0],
        [0, 4, 4, 0, 0, 0, 0, 7],
    ]
)
SAID_OF_TOY = {
    "tmm": [
        0.88973070517366881,
        1.29221755413898531,
        1.37470572664221491,
        0.63269739034572003,
    ],
    "tmmwsp": [
        0.94760568147625956,
        1.42558292628068561,
        1.06053953329626149,
        0.69799610086607911,
    ],
    "rle": [
        0.92278202306390844,
        0.82025068716791871,
        2.01334259577580044,
        0.65620054973433495,
    ],
    "upperquartile": [
        1.23510427071735629,
        1.17628978163557751,
        0.76993512979783252,
        0.89398023404303883,
    ],
}
SAID_OF_TOY_PLUS_QUARTER = {
    "tmm": [
        0.96936387281174574,
        1.93872774562349148,
        0.74566451754749674,
        0.71359675537384260,
    ],
    "tmmwsp": [
        0.98633874995294568,
        1.44265341623690624,
        0.95864703320696232,
        0.73308302539355941,
    ],
}


def make_counts(n=12, n_features=400, seed=0):
    """Counts with three features in every sample, and fifty in none."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(0.5, 20, n_features)
    counts = rng.poisson(level * rng.gamma(4, 0.25, (n, n_features)))
    counts[:, :3] += 1
    counts[:, -50:] = 0
    return counts


@each_method
@pytest.mark.parametrize("name", ["norm_01_bulk", "norm_02_sparse"])
def test_factors_are_those_of_r(golden, stored, name, method):
    case = golden(name)
    x = stored.of(case["counts"].astype(np.float64))
    found = bc.normalization_factors(x, method)
    np.testing.assert_allclose(found, case[method], rtol=1e-12)


@each_method
@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int32", "int64", "float32", ">i4"]
)
def test_counts_of_any_dtype(method, dtype):
    counts = np.minimum(make_counts(), 100)
    expected = bc.normalization_factors(counts.astype(np.float64), method)
    for of in (np.asarray, sp.csr_array, sp.csc_matrix):
        if of is np.asarray or dtype != ">i4":
            found = bc.normalization_factors(of(counts.astype(dtype)), method)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", SAID_OF_TOY)
def test_few_features(method):
    found = bc.normalization_factors(TOY, method)
    np.testing.assert_allclose(found, SAID_OF_TOY[method], rtol=1e-14)


@pytest.mark.parametrize("method", SAID_OF_TOY_PLUS_QUARTER)
def test_fractions_are_counts_too(method):
    found = bc.normalization_factors(TOY + 0.25, method)
    np.testing.assert_allclose(found, SAID_OF_TOY_PLUS_QUARTER[method], rtol=1e-14)


@pytest.mark.parametrize(
    ("counts", "method", "expected"),
    [
        ([[5, 3, 0, 0], [0, 0, 2, 9]], "tmm", [1, 1]),
        (
            [[5, 3, 0, 0], [0, 0, 2, 9]],
            "tmmwsp",
            [0.93396144910991985, 1.07070800508202568],
        ),
        (
            [[5, 3, 0, 0], [0, 0, 2, 9]],
            "upperquartile",
            [1.13284303119776197, 0.88273482950474957],
        ),
        (
            [[7, 0], [3, 0], [2, 1]],
            "tmm",
            [1.1447142425533319, 1.1447142425533319, 0.7631428283688878],
        ),
        (
            [[7, 0], [3, 0], [2, 1]],
            "tmmwsp",
            [1.1447142425533319, 1.1447142425533319, 0.7631428283688878],
        ),
        (
            [[7, 0], [3, 0], [2, 1]],
            "rle",
            [1.14471424255333187, 1.1447142425533321, 0.76314282836888803],
        ),
        (
            [[7, 0], [3, 0], [2, 1]],
            "upperquartile",
            [1.0873803730028921, 1.0873803730028921, 0.8457402901133606],
        ),
    ],
)
def test_libraries_with_little_in_common(counts, method, expected):
    found = bc.normalization_factors(np.array(counts), method)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@each_method
def test_proportional_libraries_and_single_ones(method):
    counts = np.arange(1, 7)
    one = bc.normalization_factors(counts[None], method)
    two = bc.normalization_factors(np.array([counts, 4 * counts]), method)
    expected = [0.5, 2] if method in {"median_of_ratios", "poscounts"} else [1, 1]
    np.testing.assert_allclose(one, [1], rtol=1e-14)
    np.testing.assert_allclose(two, expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["norm_01_bulk", "norm_02_sparse"])
def test_the_reference_sample_is_edger_s(golden, name):
    case = golden(name)
    sums, _ = totals(case["counts"])
    np.testing.assert_array_equal(sums, case["lib_size"])
    reference, _ = fit_reference(CountRows(case["counts"], sums), "tmm")
    expected = case["counts"][case["tmm_ref_column0"]]
    np.testing.assert_array_equal(reference.profile, expected)
    assert reference.library == expected.sum()


@pytest.mark.parametrize("which", ["upper", "median"])
def test_quantiles_are_those_of_edaseq(golden, which):
    case = golden("edaseq_between_lane")
    counts = case["counts"].astype(np.float64)
    if which == "upper":
        factors = bc.normalization_factors(counts, "upperquartile")
        quantile = factors * counts.sum(axis=1)
    else:
        quantile = np.median(counts, axis=1)
    scaled = counts / (quantile / quantile.mean())[:, None]
    np.testing.assert_allclose(scaled, case[which], rtol=1e-13)


def test_logarithms_are_the_c_library_s_to_the_last_bit():
    values = np.random.default_rng(0).lognormal(0, 5, 5000)
    expected = [math.log2(value) for value in values]
    np.testing.assert_array_equal(_log2(values), expected)


@each_method
def test_features_without_counts_take_no_part(method):
    counts = make_counts()
    padded = np.hstack([np.zeros((len(counts), 300), dtype=int), counts])
    np.testing.assert_array_equal(
        bc.normalization_factors(padded, method),
        bc.normalization_factors(counts[:, :-50], method),
    )


@each_method
def test_samples_without_counts_take_no_part(stored, method):
    counts = np.insert(make_counts(), [0, 5, 12], 0, axis=0)
    filled = counts.any(axis=1)
    with pytest.warns(EmptySampleWarning, match="3 of 15 samples have no counts"):
        found = bc.normalization_factors(stored.of(counts.astype(np.float64)), method)
    expected = bc.normalization_factors(counts[filled].astype(np.float64), method)
    np.testing.assert_array_equal(found[filled], expected)
    np.testing.assert_array_equal(found[~filled], 1)


@each_method
def test_factors_of_edger_have_product_one(method):
    found = bc.normalization_factors(make_counts(seed=3), method)
    if method != "median_of_ratios":
        assert np.prod(found) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("method", ["rle", "upperquartile"])
def test_depth_does_not_move_factors(method):
    counts = make_counts().astype(np.float64)
    deeper = counts * np.random.default_rng(1).uniform(0.2, 5, (len(counts), 1))
    np.testing.assert_allclose(
        bc.normalization_factors(deeper, method),
        bc.normalization_factors(counts, method),
        rtol=1e-12,
    )


@each_method
def test_a_sample_is_measured_alike_alone_and_beside_others(method):
    counts = make_counts()
    rows = CountRows(counts, totals(counts)[0])
    reference, factors = fit_reference(rows, method)
    for i in (0, 7):
        alone = counts[[i]]
        found = measure(CountRows(alone, totals(alone)[0]), reference)
        np.testing.assert_array_equal(found, factors[[i]])


def test_counts_beyond_32_bits_are_read_exactly():
    counts = np.array([[2**40 + 1, 2**33], [3, 2**31 + 5]])
    sums, smallest = totals(counts)
    np.testing.assert_array_equal(sums, [2**40 + 1 + 2**33, 2**31 + 8])
    assert smallest == 0
    np.testing.assert_array_equal(totals(sp.csr_array(counts))[0], sums)
    np.testing.assert_array_equal(totals(sp.csc_array(counts))[0], sums)


@pytest.mark.parametrize("of", [np.asarray, np.asfortranarray, sp.csr_matrix])
def test_totals_in_many_blocks(of):
    counts = np.random.default_rng(0).poisson(0.7, (900, 1500)).astype(np.float32)
    counts[[0, 100, 101, 899]] = 0
    counts[5, 5] = -3
    sums, smallest = totals(of(counts))
    np.testing.assert_array_equal(sums, counts.sum(axis=1))
    assert smallest == -3


def test_entries_stored_twice_are_found_in_many_blocks():
    rng = np.random.default_rng(0)
    x = sp.random_array((9000, 300), density=0.1, format="csr", rng=rng)
    assert canonical(x) is x
    twice = x.copy()
    where = twice.indptr[5000]
    twice.indices[where] = twice.indices[where + 1]
    merged = canonical(twice)
    assert merged is not twice
    assert merged.nnz == x.nnz - 1
    np.testing.assert_array_equal(merged.toarray(), twice.toarray())


@pytest.mark.parametrize("method", ["rle", "median_of_ratios"])
def test_no_feature_in_every_sample(method):
    with pytest.raises(InputError, match=r"No feature has counts in.*poscounts"):
        bc.normalization_factors(np.array([[5, 3, 0], [0, 2, 9], [1, 0, 1]]), method)


def test_upper_quartile_of_zero():
    counts = np.array([[1, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    with pytest.raises(InputError, match=r"\(rows 0\).*upper quartile is 0.*tmmwsp"):
        bc.normalization_factors(counts, "upperquartile")


def test_a_sample_that_shares_no_feature_with_those_of_fit():
    counts = np.array([[3, 4, 0], [5, 1, 0]])
    reference, _ = fit_reference(CountRows(counts, counts.sum(axis=1)), "poscounts")
    other = np.array([[0, 0, 8]])
    with pytest.raises(InputError, match="none of their counts is in a feature"):
        measure(CountRows(other, other.sum(axis=1)), reference)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1.0, -2.0]], "negative values, down to -2"),
        ([[1.0, np.nan]], r"row 0\) contain missing or infinite"),
        ([[1.0, 2.0], [np.inf, 1.0]], r"row 1\) contain missing or infinite"),
        ([[np.inf, -np.inf]], "missing or infinite"),
        ([[0, 0], [0, 0]], "All counts are 0"),
        ([1, 2, 3], "samples × features"),
        ([["a", "b"]], "real numbers"),
        (np.zeros((3, 0)), "no features"),
        (np.zeros((0, 3)), "All counts are 0"),
    ],
)
@pytest.mark.filterwarnings("ignore::batchcorr.errors.EmptySampleWarning")
def test_what_is_no_counts(counts, message):
    with pytest.raises(InputError, match=message):
        bc.normalization_factors(np.array(counts))


@pytest.mark.parametrize("of", [sp.csr_matrix, sp.csc_array])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_what_is_no_counts_in_a_sparse_matrix(of, value):
    counts = make_counts().astype(np.float64)
    counts[4, 7] = value
    with pytest.raises(InputError, match=r"negative|missing"):
        bc.normalization_factors(of(counts))


def test_unknown_methods():
    with pytest.raises(InputError, match="Did you mean 'tmm'"):
        bc.normalization_factors(TOY, "tmn")
    with pytest.raises(InputError, match="no normalization method 'total'"):
        bc.normalization_factors(TOY, "total")


def test_tables_of_counts():
    table = pd.DataFrame(TOY, columns=list("abcdefgh"))
    found = bc.normalization_factors(table)
    np.testing.assert_allclose(found, SAID_OF_TOY["tmm"], rtol=1e-14)


@each_method
def test_counts_in_dask_arrays(method):
    array = pytest.importorskip("dask.array")
    counts = make_counts()
    x = array.from_array(counts, chunks=(5, 70))
    for given in (x, x.map_blocks(sp.csr_matrix), x.astype(np.float32)):
        found = bc.normalization_factors(given, method)
        expected = bc.normalization_factors(counts, method)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
