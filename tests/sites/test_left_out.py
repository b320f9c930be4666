"""Features that would give a person away are left out of the sums."""

from __future__ import annotations

from dataclasses import fields

import anndata
import numpy as np
import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, FeatureWarning
from batchcorr.models.moments import Moments
from tests.sites.examples import PEOPLE, people, raw, schema_of, stored


def told_by(sums, feature):
    """Return the columns of the one sample whose value is not 0, and that value."""
    value = sums.mean[0, feature] * sums.n[0, 0]
    return sums.columns[0, :, 0] + sums.cross[0, :, feature] / value, value


def left_out(adata, schema, why):
    """Return where features were left out, and check that nothing of them was given."""
    with pytest.warns(FeatureWarning, match=why):
        found = bc.moments(adata, schema, exact=True).moments
    gone = found.n == 0
    for field in fields(Moments)[1:]:
        values = np.moveaxis(getattr(found, field.name), -1, 1)
        assert not values[gone].any()
        np.testing.assert_allclose(
            values[~gone],
            np.moveaxis(given_all(raw(adata, schema), field.name), -1, 1)[~gone],
            rtol=1e-10,
            atol=1e-10,
        )
    return np.argwhere(gone).tolist()


def given_all(sums, name):
    values = getattr(sums, name)
    return np.broadcast_to(values, (*values.shape[:-1], sums.n_features))


def test_a_feature_of_one_sample_would_tell_all_of_it():
    """From n, mean and squares one sees that one value is not 0; the rest follows."""
    adata = people()
    adata.X[:, 5] = 0
    adata.X[17, 5] = 3.7131
    schema = schema_of(adata, PEOPLE)
    sums = raw(adata, schema)
    assert sums.squares[0, 5] == pytest.approx(sums.mean[0, 5] ** 2 * 60 * 59)
    person, value = told_by(sums, 5)
    np.testing.assert_allclose(person, [1, 0, adata.obs["age"].iloc[17]])
    assert value == pytest.approx(3.7131)
    why = r"batch 'a': 1 \(5\) in which fewer than 5 samples differ"
    assert left_out(adata, schema, why) == [[0, 5]]


@pytest.mark.parametrize("kind", ["dense", "CSR", "CSC", "dask", "dask of CSR"])
@pytest.mark.parametrize("common", [0.0, 2.5])
def test_features_of_few_samples_are_left_out(kind, common):
    adata = people(50)
    adata.X[:, :7] = common
    for few in range(7):
        adata.X[10 : 10 + few, few] = np.arange(few) + 7.5
    adata.X[:5, 6] = 0 if common else 3  # with others: more than 10
    schema = schema_of(adata, ["sex"])
    adata.X = stored(adata.X, kind)
    found = {feature for _, feature in left_out_only(adata, schema)}
    assert found == {1, 2, 3, 4}


def left_out_only(adata, schema):
    with pytest.warns(FeatureWarning, match="fewer than 5 samples differ"):
        return np.argwhere(bc.moments(adata, schema, exact=True).moments.n == 0)


@pytest.mark.parametrize("kind", ["dense", "dask"])
def test_few_are_found_beside_missing_values(kind):
    adata = people(50)
    adata.X[:, :3] = 0
    adata.X[:7, :3] = np.nan
    adata.X[7:9, 0] = 3  # the two observed ones of the first nine
    adata.X[7:12, 1] = 3
    adata.X[:, 3] = np.where(np.arange(50) < 46, np.nan, 1)
    adata.X = stored(adata.X, kind)
    with pytest.warns(
        FeatureWarning, match=r"1 \(3\) with fewer than 5 values"
    ) as told:
        found = bc.moments(adata, schema_of(adata), exact=True).moments
    assert "1 (0) in which fewer than 5 samples differ" in str(told[0].message)
    assert np.flatnonzero(found.n == 0).tolist() == [0, 3]


@pytest.mark.parametrize("kind", ["dense", "CSR", "dask"])
@pytest.mark.filterwarnings("ignore::batchcorr.errors.CountsWarning")
def test_a_sample_that_outweighs_all_others_would_tell_all_of_it(kind):
    adata = people()
    adata.X[17, 2] = 500.0
    schema = schema_of(adata, PEOPLE)
    sums = raw(adata, schema)
    off = np.sqrt(sums.squares[0, 2] * 59 / 60)
    person = sums.columns[0, :, 0] + sums.cross[0, :, 2] / off
    np.testing.assert_allclose(person, [1, 0, adata.obs["age"].iloc[17]], atol=0.3)
    adata.X[21, 3] = 5 + 10  # its square is a part only, if the largest
    adata.X[:, 4] = 1e9 + adata.X[:, 4]
    adata.X[30, 4] = 1e9 - 100
    adata.X = stored(adata.X, kind)
    why = r"batch 'a': 3 \(2, 3, 4\) in which one sample outweighs"
    with pytest.warns(FeatureWarning, match=why):
        found = bc.moments(adata, schema, exact=True).moments
    assert np.flatnonzero(found.n == 0).tolist() == [2, 3, 4]


def test_ordinary_features_are_given():
    """Of 10 samples one often holds half of the squares, and that tells nothing."""
    rng = np.random.default_rng(0)
    n = 10
    adata = anndata.AnnData(rng.normal(size=(n, 3000)))
    adata.obs["batch"] = ["a"] * n
    squares = (adata.X - adata.X.mean(axis=0)) ** 2
    assert (squares.max(axis=0) > squares.sum(axis=0) / 2).sum() > 200
    schema = schema_of(adata)
    with pytest.warns(FeatureWarning, match="outweighs"):
        found = bc.moments(adata, schema, exact=True).moments
    assert (found.n == 0).sum() < 20


def test_one_missing_value_would_tell_the_levels_of_its_sample():
    adata = people()
    adata.X[17, 1] = np.nan
    adata.X[:, 6] = np.nan
    schema = schema_of(adata, ["sex", "hiv"])
    sums = raw(adata, schema)
    totals = sums.n[:, None, :] * sums.columns
    np.testing.assert_allclose(totals[0, :, 0] - totals[0, :, 1], [1, 0], atol=1e-9)
    for kept in (["sex", "hiv"], PEOPLE):
        schema = schema_of(adata, kept)
        why = r"1 \(1\) with missing values, which would disclose covariates"
        assert left_out(adata, schema, why) == [[0, 1], [0, 6]]
    assert bc.moments(adata, schema_of(adata), exact=True).moments.n[
        0, :2
    ].tolist() == [60, 59]


def test_a_batch_of_which_nothing_could_be_given_is_refused():
    adata = people()
    adata.X[3] = np.nan
    schema = schema_of(adata, ["sex"])
    message = r"every feature could disclose .*: batch 'a': 8 \(0, 1, 2 and 5 more"
    with pytest.raises(DesignError, match=message):
        bc.moments(adata, schema)
