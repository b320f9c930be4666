"""Sites that cannot share rows: sums together are as rows together, and give none away."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from itertools import combinations

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import batchcorr as bc
from batchcorr.cli import app
from batchcorr.errors import (
    DesignError,
    FeatureWarning,
    FileError,
    InputError,
    MissingKeyError,
)
from batchcorr.models.moments import Moments

BATCHES = ["a", "b", "c", "d"]
LEVELS = {"cell_type": ["B", "NK", "T"]}
KEPT = ["cell_type", "age"]
UNITS = "log2 CPM"


def make_adata(seed=0, n_features=30):
    """Two batches at site 1, one that is split over sites 2 and 3, and one more at 3."""
    rng = np.random.default_rng(seed)
    site = np.repeat([1, 2, 3], [55, 22, 50])
    batch = np.array(["a"] * 24 + ["b"] * 31 + ["c"] * 22 + ["c"] * 24 + ["d"] * 26)
    cell_type = np.resize(["B", "NK", "T", "T"], len(batch)).astype(object)
    age = rng.normal(50, 12, len(batch)).clip(30, 70)
    x = rng.normal(5, 1, (len(batch), n_features)) + 0.03 * age[:, None]
    x += (cell_type == "T")[:, None] * rng.normal(0, 1, n_features)
    codes = np.searchsorted(BATCHES, batch)
    x = x * rng.uniform(0.6, 1.5, (4, n_features))[codes]
    x += rng.normal(0, 1, (4, n_features))[codes]
    obs = pd.DataFrame(
        {"batch": batch, "cell_type": cell_type, "age": age, "site": site},
        index=[f"s{k}" for k in range(len(batch))],
    )
    var = pd.DataFrame(index=[f"g{k}" for k in range(n_features)])
    return anndata.AnnData(x, obs=obs, var=var)


@pytest.fixture(scope="module")
def pooled():
    return make_adata()


@pytest.fixture(scope="module")
def schema(pooled):
    """Made at site 2, which has one batch only."""
    return bc.make_schema(
        parts(pooled)[1],
        "batch",
        units=UNITS,
        covariates=KEPT,
        batches=BATCHES,
        levels=LEVELS,
    )


def parts(adata):
    return [adata[adata.obs["site"] == site].copy() for site in (1, 2, 3)]


def gathered(adata, schema):
    return [bc.moments(part, schema) for part in parts(adata)]


def only(adata, covariates=(), **options):
    options = {"batches": BATCHES, "units": UNITS} | options
    return bc.make_schema(adata, "batch", covariates=list(covariates), **options)


def corrected(adata, correction):
    return bc.pp.apply(adata, correction, copy=True).X


# -- together as one -----------------------------------------------------------------


@pytest.mark.parametrize("kept", [[], ["cell_type"], KEPT], ids=" ".join)
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("combat", {}),
        ("combat", {"mean_only": True}),
        ("combat", {"parametric": False}),
        ("combat", {"reference": "c"}),
        ("standardize", {}),
        ("standardize", {"reference": "b"}),
        ("remove_batch_effect", {}),
    ],
)
def test_sites_are_as_one(pooled, method, parameters, kept):
    schema = only(pooled, kept)
    together = bc.fit_moments(gathered(pooled, schema), method=method, **parameters)
    whole = bc.fit(pooled, "batch", method=method, covariates=kept, **parameters)
    assert together.batches_ == whole.batches_
    np.testing.assert_allclose(
        corrected(pooled, together), corrected(pooled, whole), rtol=0, atol=1e-10
    )
    for field in fields(whole.correction_):
        np.testing.assert_allclose(
            getattr(together.correction_, field.name),
            getattr(whole.correction_, field.name),
            rtol=1e-10,
            atol=1e-10,
        )


def test_the_order_of_sites_and_their_storage_do_not_matter(pooled, schema, tmp_path):
    sites = parts(pooled)
    sites[1].X = sp.csr_matrix(sites[1].X)
    sites[2].X = sp.csc_matrix(sites[2].X)
    paths = []
    for k, site in enumerate(sites):
        paths.append(tmp_path / f"{k}.npz")
        bc.moments(site, schema).save(paths[-1])
    whole = bc.fit(pooled, "batch", covariates=KEPT)
    for order in (paths, paths[::-1]):
        together = bc.fit_moments(order)
        np.testing.assert_allclose(
            corrected(pooled, together), corrected(pooled, whole), atol=1e-10
        )


def test_missing_values_are_as_in_the_whole(pooled):
    adata = pooled.copy()
    rng = np.random.default_rng(1)
    adata.X[rng.random(adata.shape) < 0.04] = np.nan
    adata.X[adata.obs["batch"] == "b", 3] = np.nan
    whole = bc.fit(adata, "batch", method="combat")
    together = bc.fit_moments(gathered(adata, only(adata)))
    np.testing.assert_allclose(
        corrected(adata, together), corrected(adata, whole), atol=1e-10
    )


def test_a_site_may_name_and_order_things_its_own_way(pooled, schema):
    site = parts(pooled)[0]
    other = site[:, ::-1].copy()
    other.obs["run"] = other.obs.pop("batch").astype("category")
    expected = bc.moments(site, schema)
    found = bc.moments(other, schema, batch_key="run")
    same_moments(found.moments, expected.moments)
    another = site[:, :1].copy()
    another.var_names = ["another"]
    extra = anndata.concat([site, another], axis=1)
    extra.obs = site.obs
    extra.layers["log"], extra.X = extra.X, None
    with pytest.warns(FeatureWarning, match="1 of 31 features are not in the schema"):
        found = bc.moments(extra, schema, layer="log")
    same_moments(found.moments, expected.moments)


def test_a_correction_from_sites_lives_like_any_other(pooled, schema, tmp_path):
    fitted = bc.fit_moments(gathered(pooled, schema))
    fitted.save(tmp_path / "correction.npz")
    loaded = bc.load(tmp_path / "correction.npz")
    expected = corrected(pooled, fitted)
    np.testing.assert_array_equal(corrected(pooled, loaded), expected)
    alone = corrected(pooled[60:61], loaded)
    np.testing.assert_array_equal(alone, expected[60:61])
    assert list(fitted.get_feature_names_out()) == list(pooled.var_names)
    more = pooled[pooled.obs["batch"] == "a"].copy()
    fitted.partial_fit(more.X, batch=more.obs["batch"], covariates=more.obs[KEPT])
    assert fitted.moments_.rows.sum() == pooled.n_obs + more.n_obs


# -- the schema ----------------------------------------------------------------------


def test_schema_by_hand_and_from_data_are_the_same(pooled, schema, tmp_path):
    by_hand = bc.Schema(
        pooled.var_names,
        BATCHES,
        units=UNITS,
        covariates={"cell_type": LEVELS["cell_type"], "age": "numeric"},
    )
    assert by_hand == schema
    assert by_hand.differences(schema) == []
    schema.save(tmp_path / "schema.json")
    assert bc.Schema.load(tmp_path / "schema.json") == schema
    assert schema.columns == ("cell_type[NK]", "cell_type[T]", "age")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ["g1", "g2"]}, r"features \(28 in one only: g0, "),
        ({"features": [f"g{k}" for k in range(29, -1, -1)]}, "in another order"),
        ({"batches": [*BATCHES, "e"]}, r"batches \(a, b, c, d and a, b, c, d, e\)"),
        ({"units": "counts"}, r"units \(log2 CPM and counts\)"),
        ({"covariates": {"age": "numeric"}}, r"covariates \(cell_type, age and age\)"),
        (
            {"covariates": {"cell_type": ["B", "T"], "age": "numeric"}},
            r"levels of 'cell_type' \(B, NK, T and B, T\)",
        ),
    ],
)
def test_sites_of_different_schemas_are_refused(pooled, schema, change, message):
    ours = gathered(pooled, schema)
    given = {field.name: getattr(schema, field.name) for field in fields(schema)}
    theirs = replace_schema(ours[1], bc.Schema(**given | change))
    with pytest.raises(DesignError, match=f"site 1 and site 2 .*{message}"):
        bc.fit_moments([ours[0], theirs])


def replace_schema(site, schema):
    return bc.SiteMoments(schema, site.moments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, "there are none"),
        ({"features": ["x", "x"]}, "'x' occurs more than once"),
        ({"features": "abc"}, "list of feature names"),
        ({"batches": ["a", "a"]}, "each once"),
        ({"batches": []}, "at least one"),
        ({"units": " "}, "units must be a text"),
        ({"covariates": {"batch": ["a"]}}, "cannot be a covariate"),
        ({"covariates": {"sex": "m"}}, "one label per row"),
        ({"covariates": ["sex"]}, "levels or 'numeric'"),
    ],
)
def test_schemas_that_cannot_be_are_refused(change, message):
    given = {"features": ["x"], "batches": ["a"], "units": UNITS} | change
    with pytest.raises(InputError, match=message):
        bc.Schema(**given)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '{"batchcorr_schema": 1}', "\x00", "[" * 100_000, "text"],
)
def test_files_that_are_no_schema_are_refused(tmp_path, text):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(FileError, match="not a schema"):
        bc.Schema.load(path)
    with pytest.raises(FileError, match="no file"):
        bc.Schema.load(tmp_path / "other.json")


def test_make_schema_refuses_what_sites_cannot_agree_on(pooled):
    with pytest.raises(InputError, match="no formula"):
        only(pooled, ["~ age"])
    with pytest.raises(MissingKeyError, match="Did you mean 'age'"):
        only(pooled, ["ages"])
    with pytest.raises(DesignError, match=r"outside the declared levels: .*'d'"):
        only(pooled, batches=["a", "b", "c"])
    with pytest.raises(MissingKeyError, match="levels names no covariate 'sex'"):
        only(pooled, levels={"sex": ["f", "m"]})


# -- what is not learned -------------------------------------------------------------


def test_what_no_site_has_is_named(pooled, schema):
    sites = gathered(pooled, schema)
    with pytest.raises(DesignError, match="No site holds samples of the batches 'd'"):
        bc.fit_moments([sites[0], bc.moments(parts(pooled)[2][:24].copy(), schema)])
    more = only(pooled, KEPT, levels={"cell_type": ["B", "NK", "ILC", "T"]})
    with pytest.raises(DesignError, match=r"No site holds 'ILC' of .*'cell_type'"):
        bc.fit_moments(gathered(pooled, more))
    first = only(pooled, KEPT, levels={"cell_type": ["ILC", "B", "NK", "T"]})
    with pytest.raises(DesignError, match=r"No site holds 'ILC' of .*'cell_type'"):
        bc.fit_moments(gathered(pooled, first))
    flat = pooled.copy()
    flat.obs["age"] = 50.5
    with pytest.raises(DesignError, match=r"more than one value of .*'age'"):
        bc.fit_moments(gathered(flat, schema))


def test_the_same_samples_twice_are_refused(pooled, schema, tmp_path):
    sites = gathered(pooled, schema)
    with pytest.raises(DesignError, match=r"site 1 and site 4 hold the same samples"):
        bc.fit_moments([*sites, sites[0]])
    part = parts(pooled)[0]
    again = bc.moments(part[part.obs["batch"] == "b"].copy(), schema)
    with pytest.raises(DesignError, match=r"same samples of batch 'b'"):
        bc.fit_moments([*sites, again])
    sites[1].save(tmp_path / "two.npz")
    with pytest.raises(DesignError, match=r"two.npz and .*two.npz .*same samples"):
        bc.fit_moments([tmp_path / "two.npz"] * 2)


def test_fit_refuses_what_moments_cannot_tell(pooled, schema):
    sites = gathered(pooled, schema)
    with pytest.raises(InputError, match="combat_seq cannot be fitted to moments"):
        bc.fit_moments(sites, method="combat_seq")
    with pytest.raises(InputError, match="no parameter 'shrink'"):
        bc.fit_moments(sites, shrink=True)
    with pytest.raises(InputError, match="no formula"):
        bc.fit_moments(sites, formula="~ age")
    with pytest.raises(InputError, match="not as AnnData"):
        bc.fit_moments([pooled])
    with pytest.raises(InputError, match="no sites"):
        bc.fit_moments([])
    with pytest.raises(DesignError, match="one batch only"):
        bc.fit_moments([one_batch(pooled)])


def one_batch(pooled):
    part = parts(pooled)[1]
    return bc.moments(part, bc.make_schema(part, "batch", units=UNITS))


def test_labels_outside_the_schema_are_refused(pooled, schema):
    part = parts(pooled)[0]
    part.obs["batch"] = part.obs["batch"].astype(str).replace("b", "z")
    with pytest.raises(DesignError, match=r"batch has labels outside .*'z'"):
        bc.moments(part, schema)
    part = parts(pooled)[0]
    part.obs["cell_type"] = part.obs["cell_type"].astype(str).replace("T", "Treg")
    with pytest.raises(DesignError, match=r"'cell_type' has labels outside .*'Treg'"):
        bc.moments(part, schema)
    with pytest.raises(MissingKeyError, match=r"1 of 30 features .*missing"):
        bc.moments(parts(pooled)[0][:, 1:].copy(), schema)


# -- the guard -----------------------------------------------------------------------


def refused(adata, schema, message):
    with pytest.raises(DesignError, match=message) as caught:
        bc.moments(adata, schema)
    assert "give a person away" in str(caught.value)


def test_small_cells_are_refused_and_named(pooled):
    part = parts(pooled)[0]
    labels = part.obs["cell_type"].astype(str).to_numpy()
    labels[:24] = ["B"] * 10 + ["NK"] * 4 + ["T"] * 10
    part.obs["cell_type"] = labels
    schema = only(part, ["cell_type"])
    refused(part, schema, r"batch 'a' × cell_type 'NK' \(4\)\. Merge levels")
    labels[10] = "T"  # 3 are refused as well, none is not
    part.obs["cell_type"] = labels
    refused(part, schema, r"'NK' \(3\)")
    labels[10:14] = "T"
    part.obs["cell_type"] = labels
    assert bc.moments(part, schema).samples == {"a": 24, "b": 31}
    labels[9:14] = "NK"
    part.obs["cell_type"] = labels
    assert bc.moments(part, schema).n_rows == 55


def test_small_batches_are_refused_even_without_covariates(pooled):
    some = pooled[:, :5]
    refused(some[20:60].copy(), only(some), r"batch 'a' \(4\)\.")
    assert bc.moments(some[19:60].copy(), only(some)).n_rows == 41


def test_combinations_of_levels_are_cells(pooled):
    """A mean of 6 of one sex and that of 5 of one type may differ by one person."""
    part = pooled[:24].copy()
    part.obs["cell_type"] = ["T"] * 6 + ["B"] * 18
    part.obs["sex"] = ["m"] + ["f"] * 5 + ["m"] * 18
    refused(part, only(part, ["cell_type", "sex"]), r"cell_type 'T' × sex 'm' \(1\)")
    bc.moments(part, only(part, ["cell_type"]))


def test_numbers_need_samples_and_must_not_single_out(pooled):
    part = pooled[:24].copy()
    refused(part[:14].copy(), only(part, KEPT), r"batch 'a' \(14; 15 for 3 design col")
    part.obs["dose"] = 0.0
    part.obs.iloc[7, part.obs.columns.get_loc("dose")] = 1.5
    refused(part, only(part, ["dose"]), r"dose 0 \(23\)|dose 1.5 \(1\)")
    part.obs["dose"] = np.random.default_rng(0).normal(size=24)
    bc.moments(part, only(part, ["dose"]))
    part.obs.iloc[7, part.obs.columns.get_loc("dose")] = 40
    refused(part, only(part, ["dose"]), r"batch 'a' \(1 with numbers far from")


def test_a_sample_with_leverage_1_could_be_read_from_the_moments(pooled):
    """Why the guard is there: a level of one sample gives it away to rounding."""
    from batchcorr.arrays import moments
    from batchcorr.design.design import Design

    x = pooled.X[:24]
    alone = np.zeros((24, 1))
    alone[7] = 1
    sums = moments(x, Design.of(np.zeros(24), 1, alone))
    told = sums.mean[0] + sums.cross[0, 0] / sums.gram[0, 0, 0, 0] * (1 - 1 / 24)
    np.testing.assert_allclose(told, x[7], rtol=1e-12)


def raw(adata, schema):
    """Moments without a guard."""
    from batchcorr.arrays import moments

    return moments(adata.X, schema.design(adata.n_obs, adata.obs.batch, adata.obs)[0])


def told_by(sums, feature):
    """Return the columns of the one sample whose value is not 0, and that value."""
    value = sums.mean[0, feature] * sums.n[0, 0]
    return sums.columns[0, :, 0] + sums.cross[0, :, feature] / value, value


def left_out(adata, schema, why):
    """Return where features were left out, and check that nothing of them was given."""
    with pytest.warns(FeatureWarning, match=why):
        found = bc.moments(adata, schema).moments
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


def people(n=60, seed=0):
    """One batch of people: sex, an infection and age are kept."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "batch": "a",
            "sex": np.resize(["f", "m"], n),
            "hiv": np.resize(["no", "no", "yes", "yes"], n),
            "age": rng.normal(50, 12, n),
        },
        index=[f"s{k}" for k in range(n)],
    )
    return anndata.AnnData(rng.normal(5, 1, (n, 8)), obs=obs)


PEOPLE = ["sex", "hiv", "age"]


def schema_of(adata, kept=()):
    return bc.make_schema(adata, "batch", units=UNITS, covariates=list(kept))


def stored(x, kind):
    if kind.startswith("dask"):
        lazy = da.from_array(x, chunks=(17, 3))
        return lazy.map_blocks(sp.csr_matrix) if kind == "dask of CSR" else lazy
    return {"dense": np.asarray, "CSR": sp.csr_matrix, "CSC": sp.csc_matrix}[kind](x)


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
        return np.argwhere(bc.moments(adata, schema).moments.n == 0)


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
        found = bc.moments(adata, schema_of(adata)).moments
    assert "1 (0) in which fewer than 5 samples differ" in str(told[0].message)
    assert np.flatnonzero(found.n == 0).tolist() == [0, 3]


@pytest.mark.parametrize("kind", ["dense", "CSR", "dask"])
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
        found = bc.moments(adata, schema).moments
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
        found = bc.moments(adata, schema).moments
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
        why = r"1 \(1\) with values missing, which would tell covariates"
        assert left_out(adata, schema, why) == [[0, 1], [0, 6]]
    assert bc.moments(adata, schema_of(adata)).moments.n[0, :2].tolist() == [60, 59]


@pytest.mark.parametrize("twins", [2, 3, 4])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_numbers_that_single_out_a_few_would_tell_their_sum(twins, noise):
    """A dose and its square say who had the dose 2, as a level of its own would."""
    adata = people()
    rng = np.random.default_rng(1)
    dose = np.repeat([0.0, 1, 2], [30, 30 - twins, twins])
    dose += noise * rng.normal(size=60)
    adata.obs["dose"], adata.obs["dose2"] = dose, dose**2
    kept = {"sex": ["f", "m"]} | dict.fromkeys(["age", "dose", "dose2"], "numeric")
    schema = bc.Schema(adata.var_names, ["a"], units=UNITS, covariates=kept)
    sums = raw(adata, schema)
    lagrange = [0, 0, -0.5, 0.5]  # (dose² - dose) / 2: 0, 0 and 1
    told = sums.cross[0].T @ lagrange + 60 * sums.mean[0] * (
        sums.columns[0, :, 0] @ lagrange
    )
    np.testing.assert_allclose(told, adata.X[-twins:].sum(axis=0), rtol=0.1)
    refused(adata, schema, r"batch 'a' \((fewer than 5|2) with numbers (apart|far)")
    adata.obs["dose"] = np.repeat([0.0, 1, 2], [30, 24, 6])
    adata.obs["dose2"] = adata.obs["dose"] ** 2
    bc.moments(adata, schema)


def test_few_samples_are_found_among_all_that_could_be():
    """Against every set of four samples, in designs of which some single few out."""
    from batchcorr.sites.disclosure import _basis, _largest_share

    rng = np.random.default_rng(0)
    sets = np.array(list(combinations(range(20), 4)))
    found, true = [], []
    for twins in np.tile([2, 4, 6, 8], 8):
        dose = np.repeat([0.0, 1, 2], [8, 12 - twins, twins])
        age = rng.normal(size=20) + 4 * (rng.random(20) < 0.1)
        basis = _basis(np.stack([dose, dose**2, age], axis=1))
        own = basis[sets] @ basis[sets].transpose(0, 2, 1)
        true.append(np.linalg.eigvalsh(own)[:, -1].max())
        found.append(_largest_share(basis))
    found, true = np.array(found), np.array(true)
    assert (found <= true + 1e-9).all()
    np.testing.assert_array_equal(found > 0.9, true > 0.9)
    assert 15 < (true > 0.9).sum() < 30


def test_what_is_left_out_is_as_missing(pooled):
    """At one site of two that hold the batch, and in a batch that no other site has."""
    adata = pooled.copy()
    adata.X[:, [4, 9]] = 0
    adata.X[::3, [4, 9]] = 3
    rows = np.flatnonzero(adata.obs["site"] == 2)
    adata.X[rows, 4] = np.arange(len(rows)) == 8
    rows_b = np.flatnonzero(adata.obs["batch"] == "b")
    adata.X[rows_b, 9] = np.arange(len(rows_b)) > 27
    with pytest.warns(FeatureWarning) as told:
        sites = gathered(adata, only(adata, KEPT))
    said = [str(warning.message) for warning in told]
    assert "batch 'b': 1 (g9) in" in said[0]
    assert "batch 'c': 1 (g4) in" in said[1]
    together = bc.fit_moments(sites)
    missing = adata.copy()
    missing.X[rows, 4] = missing.X[rows_b, 9] = np.nan
    whole = bc.fit(missing, "batch", covariates=KEPT)
    for field in fields(whole.correction_):
        np.testing.assert_allclose(
            getattr(together.correction_, field.name),
            getattr(whole.correction_, field.name),
            rtol=1e-9,
            atol=1e-9,
        )
    y = corrected(adata, together)
    np.testing.assert_array_equal(y[:, 9], adata.X[:, 9])
    assert not np.array_equal(y[:, 4], adata.X[:, 4])


def test_no_feature_need_be_complete():
    """Levels are counted in each feature's own samples."""
    rng = np.random.default_rng(0)
    held = ["f"] * 5 + ["x"] * 20 + ["y"] * 5 + ["f"] * 5 + ["x"] * 5 + ["y"] * 20
    obs = pd.DataFrame(
        {
            "level": held + ["f", "x", "y"] * 5,
            "batch": ["a"] * 60 + ["b"] * 15,
            "site": [1] * 30 + [2] * 30 + [3] * 15,
        },
        index=[f"s{k}" for k in range(75)],
    )
    adata = anndata.AnnData(rng.normal(size=(75, 2)), obs=obs)
    adata.X[:30, 0] = adata.X[30:60, 1] = np.nan
    schema = only(adata, ["level"], batches=["a", "b"])
    found = bc.fit_moments(gathered(adata, schema), method="standardize")
    whole = bc.fit(adata, "batch", method="standardize", covariates="level")
    np.testing.assert_allclose(corrected(adata, found), corrected(adata, whole))


def test_a_batch_of_which_nothing_could_be_given_is_refused():
    adata = people()
    adata.X[3] = np.nan
    schema = schema_of(adata, ["sex"])
    refused(
        adata, schema, r"every feature of a batch: batch 'a': 8 \(0, 1, 2 and 5 more"
    )


# -- files ---------------------------------------------------------------------------


def same_moments(one, two):
    for field in fields(Moments):
        np.testing.assert_allclose(
            getattr(one, field.name), getattr(two, field.name), rtol=1e-12, atol=1e-12
        )


def test_moments_are_saved_exactly(pooled, schema, tmp_path):
    site = gathered(pooled, schema)[0]
    path = tmp_path / "site.npz"
    site.save(path)
    loaded = bc.SiteMoments.load(path)
    assert loaded.schema == schema
    assert loaded.samples == {"a": 24, "b": 31}
    for field in fields(Moments):
        one, two = (getattr(s.moments, field.name) for s in (loaded, site))
        np.testing.assert_array_equal(one, two)
    assert [p.name for p in tmp_path.iterdir()] == ["site.npz"]


def test_no_row_and_no_name_of_a_sample_is_in_the_file(pooled, schema, tmp_path):
    bc.moments(parts(pooled)[0], schema).save(tmp_path / "site.npz")
    with np.load(tmp_path / "site.npz", allow_pickle=False) as file:
        shapes = {name: file[name].shape for name in file.files}
        header = json.loads(str(file["header"]))
    assert shapes.pop("header") == ()
    assert shapes == {
        "rows": (4, 1),
        "n": (4, 1),
        "mean": (4, 30),
        "squares": (4, 30),
        "columns": (4, 3, 1),
        "cross": (4, 3, 30),
        "gram": (4, 3, 3, 1),
    }
    assert header.keys() == {
        "batchcorr_moments",
        "schema",
        "fingerprint",
        "n_rows",
        "versions",
    }


def change(path, edit):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    edit(arrays, header)
    arrays["header"] = np.array(json.dumps(header))
    np.savez(path, **arrays)


def put(name, place, value):
    return lambda arrays, _: arrays[name].__setitem__(place, value)


DAMAGES = {
    "fewer features": lambda a, _: a.update(mean=a["mean"][:, 1:]),
    "another dtype": lambda a, _: a.update(mean=a["mean"].astype("f4")),
    "not finite": put("cross", (0, 0, 0), np.nan),
    "half a sample": put("rows", (0, 0), 23.5),
    "fewer samples": put("rows", (0, 0), 23),
    "few samples": lambda a, h: (
        put("rows", (0, 0), 4)(a, h),
        put("n", (0, 0), 4)(a, h),
    ),
    "more values than samples": put("n", (0, 0), 25),
    "negative squares": put("squares", (0, 0), -1),
    "negative products": put("gram", (0, 0, 0, 0), -1),
    "an array less": lambda a, _: a.pop("gram"),
    "an array more": lambda a, _: a.update(x=np.ones(3)),
    "another schema": lambda _, h: h["schema"].update(units="counts"),
    "no schema": lambda _, h: h.pop("schema"),
    "schema of a list": lambda _, h: h.update(schema=[]),
    "other rows": lambda _, h: h.update(n_rows=56),
    "a newer version": lambda _, h: h.update(batchcorr_moments=2),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_changed_files_are_refused(pooled, schema, tmp_path, name):
    path = tmp_path / "site.npz"
    bc.moments(parts(pooled)[0], schema).save(path)
    change(path, DAMAGES[name])
    with pytest.raises(
        FileError, match=r"site\.npz (is damaged|does not|was saved by)"
    ):
        bc.SiteMoments.load(path)


def test_damaged_and_other_files_are_refused(pooled, schema, tmp_path):
    path = tmp_path / "site.npz"
    bc.moments(parts(pooled)[0], schema).save(path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-30], b"text"):
        path.write_bytes(content)
        with pytest.raises(FileError, match="does not hold the moments"):
            bc.fit_moments([path])
    bc.fit(pooled, "batch", method="standardize").save(path)
    with pytest.raises(FileError, match="does not hold the moments"):
        bc.SiteMoments.load(path)
    np.savez(path, header=np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(FileError, match="does not hold the moments"):
        bc.SiteMoments.load(path)
    with pytest.raises(FileError, match="There is no file"):
        bc.SiteMoments.load(tmp_path / "none.npz")


def test_a_byte_that_changed_is_found_or_means_nothing(pooled, schema, tmp_path):
    path = tmp_path / "site.npz"
    site = bc.moments(parts(pooled)[0], schema)
    site.save(path)
    whole, harmless = path.read_bytes(), 0
    for place in np.linspace(0, len(whole) - 1, 150).astype(int):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        try:
            found = bc.SiteMoments.load(path)
        except FileError:
            continue
        harmless += 1
        assert found.schema == schema
        for field in fields(Moments):
            one, two = (getattr(s.moments, field.name) for s in (found, site))
            np.testing.assert_array_equal(one, two)
    assert harmless < 30


def test_sites_may_differ_in_having_missing_values(pooled):
    adata = pooled.copy()
    adata.X[2, 5] = np.nan
    sites = gathered(adata, only(adata))
    assert sites[0].moments.n.shape != sites[1].moments.n.shape
    whole = bc.fit(adata, "batch", method="standardize")
    together = bc.fit_moments(sites[::-1], method="standardize")
    np.testing.assert_allclose(
        corrected(adata, together), corrected(adata, whole), atol=1e-10
    )


# -- the command line ----------------------------------------------------------------


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


def test_from_files_to_a_corrected_file(pooled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, part in enumerate(parts(pooled), start=1):
        part.write_h5ad(f"{k}.h5ad")
    more = [f"--level=batch={b}" for b in "abd"]
    keys = ["--batch", "batch", "--covariate", "cell_type", "--covariate", "age"]
    said = run("schema", "2.h5ad", "-o", "s.json", *keys, "--units", UNITS, *more)
    assert (
        "30 features in log2 CPM; batches c, a, b, d; keeping cell_type (B, NK" in said
    )
    for k in (1, 2, 3):
        said = run("moments", f"{k}.h5ad", "--schema", "s.json", "-o", f"{k}.npz")
    assert "sums over 50 samples × 30 features, of batches c (24), d (26)." in said
    files = ["1.npz", "2.npz", "3.npz"]
    said = run("fit", *files, "-o", "c.npz", "--set", "mean_only=true")
    assert "combat, learned from the sums of 3 sites over 127 samples" in said
    assert "the sums of 3 sites" in run("fit", *files, "last.npz")
    assert bc.load("last.npz").mean_only is False
    assert "last.npz exists already" in run("fit", *files, "last.npz", code=1)
    run("apply", "c.npz", "3.h5ad", "out.h5ad")
    whole = bc.fit(pooled, "batch", covariates=KEPT, mean_only=True)
    np.testing.assert_allclose(
        anndata.read_h5ad("out.h5ad").X, corrected(pooled, whole)[77:], atol=1e-10
    )


def test_commands_refuse_with_one_line(pooled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = parts(pooled)[1]
    part.obs["lane"] = np.resize([1, 2], part.n_obs)
    part.write_h5ad("in.h5ad")
    common = ["in.h5ad", "-o", "s.json", "--units", UNITS, "--batch"]
    said = run("schema", *common, "lane", "--level", "lane=3", "--level", "lane=2")
    assert "batches 1, 2, 3." in said
    assert "exists already" in run("schema", *common, "batch", code=1)
    said = run("schema", *common, "lane", "--force", "--level", "x=3", code=2)
    assert "'x=3' must be KEY=LABEL" in said
    said = run("schema", *common, "lane", "--force", "--covariate", "age", "--level",
               "age=3", code=2)  # fmt: skip
    assert "'age' holds numbers" in said
    few = part[:12].copy()
    few.obs["lane"] = [1] * 9 + [2] * 3
    few.write_h5ad("few.h5ad")
    said = run("moments", "few.h5ad", "--schema", "s.json", "-o", "m.npz", code=1)
    assert said.startswith("Error: The sums of this site could give a person away")
    assert not (tmp_path / "m.npz").exists()
    run("moments", "in.h5ad", "--schema", "s.json", "-o", "m.npz")
    said = run("fit", "m.npz", "-o", "c.npz", code=1)
    assert "No site holds samples of the batches 3" in said
    said = run("fit", "m.npz", "-o", "m2.h5ad", code=2)
    assert "m2.h5ad must end in .npz" in said
    said = run("fit", "m.npz", "-o", "m.npz", code=1)
    assert "is the input itself" in said
    assert "There is no file n.npz" in run("fit", "n.npz", "-o", "c.npz", code=1)
