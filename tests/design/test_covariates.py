from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from batchcorr import Standardize
from batchcorr.design.covariates import CovariateEncoding
from batchcorr.design.saved import read_encoding, to_json
from batchcorr.errors import (
    CovariateWarning,
    DesignError,
    InputError,
    MissingKeyError,
    UnknownBatchError,
)

GOLDEN = Path(__file__).parents[1] / "golden"

SEX = ["m", "f", "f", "m", "f", "m", "m", "f"]
AGE = [30.5, 41.0, 52.0, 63.5, 28.0, 47.0, 55.0, 39.0]
MALE = np.array([1.0, 0, 0, 1, 0, 1, 1, 0])


@pytest.fixture
def obs():
    tissue = pd.Categorical(list("xyzxyzxy"), categories=["z", "unused", "x", "y"])
    columns = {"sex": SEX, "age": AGE, "tissue": tissue, "note": ["?"] * 8}
    return pd.DataFrame(columns, index=[5, 5, 4, 3, 2, 1, 0, 9])


def through_json(encoding):
    saved = json.loads(json.dumps(to_json(encoding), allow_nan=False))
    return read_encoding(saved)


def encode(covariates, **options):
    """Fit and encode, and check what holds for every encoding."""
    n = len(covariates)
    encoding, columns = CovariateEncoding.fit_transform(covariates, n, **options)
    assert columns.dtype == np.float64
    assert columns.flags.c_contiguous
    assert columns.shape == (n, len(encoding.names)) == (n, len(encoding.terms))
    again = through_json(encoding)
    assert again == encoding
    np.testing.assert_array_equal(again.columns(covariates, n), columns)
    return encoding, columns


def test_golden_designs_of_r():
    for case in ("combat_02_cancer", "combat_11_cancer_and_age"):
        golden = np.load(GOLDEN / f"{case}.npz")
        names = [str(name) for name in golden["mod_names"]]
        if "cancer" in golden:
            cancer = golden["cancer"]
        else:
            mod = golden["mod"]
            cancer = np.where(mod[:, 1] == 1, "Cancer", "Biopsy")
            cancer = np.where(mod[:, 2] == 1, "Normal", cancer)
        obs = pd.DataFrame({"cancer": cancer})
        if "age" in golden:
            obs["age"] = golden["age"]
        for formula in (None, "~ " + " + ".join(obs)):
            encoding, columns = encode(obs, formula=formula)
            mine = [name.replace("[", "").replace("]", "") for name in encoding.names]
            assert mine == names[1:]
            np.testing.assert_array_equal(columns, golden["mod"][:, 1:])


def test_none_gives_no_columns(obs):
    encoding, _ = CovariateEncoding.fit_transform(None, 8)
    assert encoding.columns(None, 3).shape == (3, 0)
    assert encoding.columns(obs, 8).shape == (8, 0)
    assert encoding == through_json(encoding)
    with pytest.raises(InputError, match="fitted without covariates"):
        encoding.columns(np.ones((8, 2)), 8)


def test_every_column_of_a_table_is_a_main_effect(obs):
    encoding, columns = encode(obs[["sex", "age", "tissue"]])
    assert encoding.names == ("sex[m]", "age", "tissue[x]", "tissue[y]")
    assert encoding.terms == ("sex", "age", "tissue", "tissue")
    assert encoding.required == ("sex", "age", "tissue")
    x, y = (np.array(list("xyzxyzxy")) == level for level in "xy")
    np.testing.assert_array_equal(columns, np.stack([MALE, AGE, x, y], axis=1))


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(SEX, dtype=object),
        pd.Series(SEX, dtype="string"),
        pd.Series(SEX, dtype="category"),
        pd.Series(pd.Categorical(SEX, ["f", "x", "m"], ordered=True)),
        pd.Series(np.array(SEX) == "m"),
        pd.Series(np.array(SEX) == "m", dtype="boolean"),
        pd.Series(np.array(SEX) == "m", dtype=object),
        pd.Series(np.array(SEX) == "m").astype("category"),
        pd.Series(MALE).astype(int).astype("category"),
        pd.Series(MALE).astype(int).astype(str),
        pd.Series([0 if sex == "f" else "m" for sex in SEX]),
        pd.Series(pd.to_datetime(MALE).astype("category")),
        pd.Series(pd.cut(MALE, [-1, 0.5, 1])),
    ],
    ids=range(13),
)
def test_labels_of_any_type_are_one_hot(column):
    encoding, columns = encode(pd.DataFrame({"a": column}))
    np.testing.assert_array_equal(columns, MALE[:, None])
    assert encoding.terms == ("a",)
    assert encoding.names[0].startswith("a[")


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "int8", "uint64", "Int64", "Float64", "object"],
)
def test_numbers_of_any_type_stay_numbers(dtype):
    numbers = np.arange(8)
    encoding, columns = encode(pd.DataFrame({"a": pd.Series(numbers, dtype=dtype)}))
    assert encoding.names == ("a",)
    np.testing.assert_array_equal(columns, numbers[:, None])


def test_zero_and_one_are_numbers_without_a_warning():
    encoding, columns = encode(pd.DataFrame({"male": MALE.astype(int)}))
    assert encoding.names == ("male",)
    np.testing.assert_array_equal(columns, MALE[:, None])


@pytest.mark.parametrize("dtype", [int, float, "Int64"])
def test_few_integers_are_numbers_with_a_warning(dtype):
    dose = pd.DataFrame({"dose": pd.Series([1, 2, 3] * 3, dtype=dtype)})
    with pytest.warns(CovariateWarning, match=r"only the values 1, 2, 3.*category"):
        encoding, _ = CovariateEncoding.fit_transform(dose, 9)
    assert encoding.names == ("dose",)
    np.testing.assert_array_equal(encoding.columns(dose, 9)[:, 0], [1, 2, 3] * 3)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2] * 8,  # as numbers and as labels the same model
        [1, 2, 3, 4, 5, 6] * 3,
        [1, 2, 3] * 2,  # too few rows to tell
        [0.5, 1.5, 2.5] * 3,
    ],
)
def test_other_numbers_come_without_a_warning(values):
    encode(pd.DataFrame({"a": values}))


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("~ C(dose)", ("C(dose)[2]", "C(dose)[3]")),
        ("~ C(dose, levels=[3, 1, 2])", None),
        ("~ log(dose)", ("log(dose)",)),
        ("~ poly(dose, 2)", ("poly(dose, 2)[1]", "poly(dose, 2)[2]")),
    ],
)
def test_a_formula_says_how_to_read_few_integers(formula, names):
    encoding, columns = encode(pd.DataFrame({"dose": [1, 2, 3] * 3}), formula=formula)
    assert names is None or encoding.names == names
    if names is None:
        np.testing.assert_array_equal(columns[:3], [[1, 0], [0, 1], [0, 0]])


def test_a_formula_that_reads_few_integers_as_they_are_warns():
    dose = pd.DataFrame({"dose": [1, 2, 3] * 3})
    with pytest.warns(CovariateWarning, match="only the values"):
        CovariateEncoding.fit_transform(dose, 9, formula="~ dose + log(dose)")


def test_a_formula_with_interactions(obs):
    encoding, columns = encode(obs, formula="~ sex * center(age) + tissue - 1")
    assert encoding.required == ("sex", "age", "tissue")
    assert encoding.terms == (
        "sex",
        "center(age)",
        "tissue",
        "tissue",
        "sex:center(age)",
    )
    centred = np.array(AGE) - np.mean(AGE)
    np.testing.assert_allclose(columns[:, 1], centred)
    np.testing.assert_allclose(columns[:, 4], MALE * centred)


def test_new_rows_are_encoded_as_learned(obs):
    for formula in (None, "~ sex*scale(age) + poly(age, 2) + tissue"):
        table = obs[["sex", "age", "tissue"]] if formula is None else obs
        encoding, columns = encode(table, formula=formula)
        for rows in ([0], [7, 2, 2], [1, 2, 4]):
            some = obs.iloc[rows][::1]
            np.testing.assert_array_equal(
                encoding.columns(some, len(rows)), columns[rows]
            )
            text = some.astype({"tissue": str}).iloc[:, ::-1]
            np.testing.assert_array_equal(
                encoding.columns(text, len(rows)), columns[rows]
            )


def test_labels_match_across_types():
    plate = pd.DataFrame({"plate": pd.Categorical([1, 2, 1, 2])})
    for formula in (None, "~ plate"):
        encoding, columns = encode(plate, formula=formula)
        for dtype in (str, int, float):
            same = encoding.columns(plate.astype(dtype), 4)
            np.testing.assert_array_equal(same, columns)


@pytest.mark.parametrize("formula", [None, "~ sex + age"])
def test_an_unseen_level_is_an_error_that_names_it(obs, formula):
    encoding, _ = encode(obs[["sex", "age"]], formula=formula)
    new = obs.assign(sex="x")
    with pytest.raises(DesignError, match=r"covariate 'sex'.*'x'.*'f', 'm'") as caught:
        encoding.columns(new, 8)
    assert not isinstance(caught.value, UnknownBatchError)


@pytest.mark.parametrize("formula", [None, "~ sex + age", "~ sex * log(age)"])
def test_a_missing_column_is_named_with_a_guess(obs, formula):
    encoding, _ = encode(obs[["sex", "age"]], formula=formula)
    with pytest.raises(MissingKeyError, match=r"no column 'age'.*mean 'Age'"):
        encoding.columns(obs.rename(columns={"age": "Age"}), 8)
    with pytest.raises(MissingKeyError, match=r"no column 'aeg'.*mean 'age'"):
        CovariateEncoding.fit_transform(obs, 8, formula="~ sex + aeg")


@pytest.mark.parametrize("formula", [None, "~ sex + age", "~ sex + C(age)"])
@pytest.mark.parametrize("column", ["sex", "age"])
def test_missing_values_are_counted_and_located(obs, formula, column):
    new = obs[["sex", "age"]].astype({"sex": object})
    new.iloc[[3, 5], ["sex", "age"].index(column)] = None
    match = rf"covariate '{column}' is missing .*2 of 8 samples \((first in )?rows? 3"
    with pytest.raises(DesignError, match=match):
        CovariateEncoding.fit_transform(new, 8, formula=formula)
    encoding, _ = encode(obs[["sex", "age"]], formula=formula)
    with pytest.raises(DesignError, match=match):
        encoding.columns(new, 8)


def test_infinite_values_are_an_error(obs):
    obs = obs[["sex", "age"]].assign(age=[1.0, np.inf, 2, -np.inf, 3, 4, 5, 6])
    with pytest.raises(DesignError, match=r"'age' is missing or infinite in 2 of 8.*1"):
        CovariateEncoding.fit_transform(obs, 8)


@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e160, 1e300])
def test_numbers_that_cannot_be_squared_are_refused_by_name(unit):
    with pytest.raises(
        DesignError, match=r"covariate 'age' has values of about .e.*units"
    ):
        CovariateEncoding.fit_transform(pd.Series(AGE, name="age") * unit, len(AGE))


@pytest.mark.parametrize("unit", [1e-98, 1e97])
def test_units_of_a_covariate_have_no_say(unit):
    rng = np.random.default_rng(0)
    x, age, batch = rng.normal(size=(12, 5)), rng.uniform(20, 80, 12), [0, 1] * 6
    wanted = Standardize().fit_transform(x, batch=batch, covariates=age)
    found = Standardize().fit_transform(x, batch=batch, covariates=age * unit)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2024-01-01", periods=8),
        pd.date_range("2024-01-01", periods=8, tz="UTC"),
        pd.timedelta_range("1 day", periods=8),
        pd.period_range("2024-01", periods=8, freq="M"),
        pd.interval_range(0, 8),
        np.arange(8) * 1j,
        [pd.Timestamp("2024-01-01").date()] * 8,
        [[1]] * 8,
        [{"a": 1}] * 8,
    ],
    ids=range(9),
)
def test_other_kinds_of_columns_are_refused(values):
    match = "covariate 'a' (contains .* are possible|must hold one label per row)"
    with pytest.raises(InputError, match=match):
        CovariateEncoding.fit_transform(pd.DataFrame({"a": values}), 8)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([f"sample{i}" for i in range(8)], "8 levels in 8 samples.*identifier"),
        (list("abcdefga"), "7 levels in 8 samples.*identifier"),
        ([str(age) for age in AGE], "8 levels.*stored as text.*to_numeric"),
        (pd.Categorical([f"sample{i}" for i in range(8)]), "identifier"),
    ],
)
def test_identifiers_are_refused(values, match):
    with pytest.raises(DesignError, match=match):
        CovariateEncoding.fit_transform(pd.DataFrame({"a": values}), 8)
    with pytest.raises(DesignError, match=match):
        CovariateEncoding.fit_transform(pd.DataFrame({"a": values}), 8, formula="~ a")


@pytest.mark.parametrize(
    "values",
    [
        ["1.5", "2.5", "2.5", "1.5"],
        pd.Categorical(list("abca")),
        list("ab"),
        [True, False],
    ],
)
def test_other_labels_are_not_identifiers(values):
    encode(pd.DataFrame({"a": values}))


@pytest.mark.parametrize("formula", [None, "~ sex + a"])
@pytest.mark.parametrize("values", [["?"] * 8, [3.5] * 8, [True] * 8, [0] * 8])
def test_a_constant_column_is_left_out_with_a_warning(values, formula):
    table = pd.DataFrame({"sex": SEX, "a": values})
    with pytest.warns(CovariateWarning, match="'a' has the same value") as caught:
        encoding, _ = CovariateEncoding.fit_transform(table, 8, formula=formula)
    assert len(caught) == 1
    assert encoding.names == ("sex[m]",)
    assert through_json(encoding) == encoding
    np.testing.assert_array_equal(encoding.columns(table, 8), MALE[:, None])


def test_an_empty_cell_of_an_interaction_is_left_out():
    table = pd.DataFrame({"a": list("xxyyxxyy"), "b": list("ppppqqpp")})
    with pytest.warns(CovariateWarning, match="has the same value") as caught:
        encoding, _ = CovariateEncoding.fit_transform(table, 8, formula="~ a*b")
    assert [str(w.message).split("'")[1] for w in caught] == ["a[y]:b[q]"]
    assert encoding.names == ("a[y]", "b[q]")
    assert through_json(encoding).columns(table, 8).shape == (8, 2)


def test_a_series_is_one_covariate(obs):
    encoding, columns = encode(obs["sex"])
    assert encoding.names == ("sex[m]",)
    assert encoding.required == ("sex",)
    np.testing.assert_array_equal(encoding.columns(obs, 8), columns)
    np.testing.assert_array_equal(encoding.columns(SEX, 8), columns)
    with pytest.raises(MissingKeyError, match="'sex'"):
        encoding.columns(obs["tissue"], 8)


@pytest.mark.parametrize(
    "labels", [SEX, np.array(SEX), pd.Categorical(SEX), pd.array(SEX, dtype="string")]
)
def test_a_list_of_labels_is_one_covariate(labels, obs):
    encoding, columns = encode(labels)
    assert encoding.names == ("covariate[m]",)
    np.testing.assert_array_equal(columns, MALE[:, None])
    np.testing.assert_array_equal(encoding.columns(obs["sex"], 8), columns)


def test_a_vector_of_numbers_is_one_covariate():
    encoding, columns = encode(np.array(AGE), role="nuisance")
    assert encoding.names == encoding.terms == ("nuisance",)
    np.testing.assert_array_equal(columns[:, 0], AGE)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, bool])
def test_an_array_holds_design_columns_and_loses_its_intercept(dtype):
    array = np.stack([np.ones(8), MALE, np.arange(8) > 3], axis=1).astype(dtype)
    encoding, columns = encode(array)
    assert encoding.names == encoding.terms == ("covariate[1]", "covariate[2]")
    assert encoding.required == ()
    np.testing.assert_array_equal(columns, array[:, 1:])
    np.testing.assert_array_equal(encoding.columns(array[:1], 1), array[:1, 1:])
    np.testing.assert_array_equal(encoding.columns(array.tolist(), 8), array[:, 1:])
    assert encode(np.empty((8, 0)))[1].shape == (8, 0)


@pytest.mark.parametrize(
    ("covariates", "match"),
    [
        ("sex", "must be a DataFrame"),
        ("~ sex", "must be a DataFrame"),
        ({"sex": SEX}, "must be a DataFrame"),
        (3, "must be a DataFrame"),
        (np.zeros((8, 2, 2)), "2-D array of numbers"),
        (np.array([SEX, SEX]).T, "labels in a DataFrame"),
        (np.zeros((8, 2), complex), "must be a 2-D array of numbers"),
        (np.array([[1, None]] * 8), "must be a 2-D array of numbers"),
        (sp.csr_array(np.ones((8, 2))), "must be"),
        ([[1], [1, 2]], "equal length"),
        (np.ones((7, 2)), r"7 rows for 8 rows of data.*transpose"),
        (pd.DataFrame({"a": AGE[:7]}), "7 rows for 8 rows"),
        (["sex", "age"], "2 rows for 8 rows"),
        (np.array([[1.0, np.nan]] * 8), r"covariate\[1\] is missing in 8 of 8"),
        (np.array([[1.0, np.inf]] * 8), "infinite"),
        (
            pd.DataFrame(np.ones((8, 2)), columns=["a", "a"]),
            r"several columns named 'a'",
        ),
        (pd.DataFrame(np.ones((8, 2)), columns=["1", 1]), r"several columns named '1'"),
    ],
    ids=range(17),
)
def test_what_cannot_be_covariates(covariates, match):
    with pytest.raises(InputError, match=match):
        CovariateEncoding.fit_transform(covariates, 8)


def test_new_covariates_must_be_of_the_same_kind(obs):
    table, _ = encode(obs[["sex", "age"]])
    array, _ = encode(np.random.default_rng(0).normal(size=(8, 2)))
    with pytest.raises(InputError, match="give a DataFrame with the columns 'sex'"):
        table.columns(None, 8)
    with pytest.raises(InputError, match="give a DataFrame"):
        table.columns(np.ones((8, 2)), 8)
    with pytest.raises(InputError, match="were a 2-D array in fit"):
        array.columns(obs, 8)
    with pytest.raises(InputError, match="were a 2-D array in fit"):
        array.columns(None, 8)
    with pytest.raises(InputError, match="3 design columns, but had 2"):
        array.columns(np.ones((8, 3)), 8)
    with pytest.raises(InputError, match="8 rows for 5"):
        array.columns(np.ones((8, 2)), 5)
    with pytest.raises(InputError, match="8 rows for 5"):
        table.columns(obs, 5)
    with pytest.raises(DesignError, match=r"'age' had numbers.*now has labels"):
        table.columns(obs.assign(age="old"), 8)


@pytest.mark.parametrize("covariates", [None, np.ones((8, 2)), SEX])
def test_a_formula_needs_a_table(covariates):
    with pytest.raises(InputError, match="needs the columns of a DataFrame"):
        CovariateEncoding.fit_transform(covariates, 8, formula="~ sex")


def test_a_hostile_formula_is_refused_on_the_way_in_and_when_read(obs):
    hostile = "~ sex + __import__('os').system('x')"
    with pytest.raises(InputError, match="Allowed are"):
        CovariateEncoding.fit_transform(obs, 8, formula=hostile)
    encoding, _ = encode(obs, formula="~ sex + center(age)")
    saved = to_json(encoding)
    saved["formula"] = saved["formula"] | {"formula": hostile}
    with pytest.raises(InputError, match="Allowed are"):
        read_encoding(saved)


def test_columns_named_like_functions_and_modules_are_columns():
    names = ["np", "C", "log", "v1", "v0", "__FORMULAIC_STATE__", "a:b", "center(v0)"]
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(1, 0.1, size=(20, len(names))), columns=names)
    formula = " + ".join(f"`{name}`" for name in names) + " + log(log) + center(v0)"
    encoding, columns = encode(table, formula=formula)
    assert encoding.names == (*names, "log(log)", "center(v0)")
    np.testing.assert_array_equal(columns[:, :8], table)
    np.testing.assert_allclose(columns[:, 8], np.log(table["log"]))


def test_columns_without_text_names():
    table = pd.DataFrame({0: AGE, ("a", 1): SEX})
    encoding, columns = encode(table)
    assert encoding.names == ("0", "('a', 1)[m]")
    assert columns[0].tolist() == [30.5, 1]


def test_declared_levels_need_not_occur_and_keep_constant_columns(obs):
    first, whole = obs.iloc[1:3], obs[["sex", "age"]]
    for formula in (None, "~ sex + age"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encoding, _ = CovariateEncoding.fit_transform(
                first[["sex", "age"]].assign(age=1.5),
                2,
                formula=formula,
                levels={"sex": ["f", "m", "x"]},
            )
        assert encoding.names == ("sex[m]", "sex[x]", "age")
        assert encoding.columns(first, 2)[:, :2].sum() == 0
        np.testing.assert_array_equal(encoding.columns(whole, 8)[:, 0], MALE)
        assert through_json(encoding) == encoding


def test_declared_levels_make_labels_of_numbers():
    table = pd.DataFrame({"dose": [1, 2, 3] * 3})
    encoding, _ = encode(table, levels={"dose": [1, 2, 3, 4]})
    assert encoding.names == ("dose[2]", "dose[3]", "dose[4]")


def test_declared_levels_are_checked(obs):
    obs = obs[["sex", "age"]]
    with pytest.raises(DesignError, match=r"'sex'.*not among the declared levels: 'm'"):
        CovariateEncoding.fit_transform(obs, 8, levels={"sex": ["f", "x"]})
    with pytest.raises(MissingKeyError, match=r"no column 'Sex'.*mean 'sex'"):
        CovariateEncoding.fit_transform(obs, 8, levels={"Sex": ["f", "m"]})


def test_in_parts_an_array_keeps_its_constant_columns():
    encoding, _ = CovariateEncoding.fit_transform(np.ones((3, 2)), 3, levels={})
    assert encoding.columns(np.zeros((2, 2)), 2).shape == (2, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"kept": [0]},
        {"kept": [0, 7]},
        {"kept": ["a", "b"]},
        {"kept": None},
        {"names": ["a"]},
        {"terms": []},
        {"variables": None},
        {"variables": [{"column": "age"}]},
        {"variables": [{"column": "sex", "labels": {"name": "sex", "levels": []}}]},
        {"variables": []},
        {"formula": {}},
        {"formula": "~ a"},
        {"width": "a"},
    ],
    ids=range(13),
)
def test_damaged_encodings_are_not_read(obs, change):
    encoding, _ = encode(obs[["sex", "age"]])
    with pytest.raises(InputError):
        read_encoding(to_json(encoding) | change)


def test_nothing_given_is_changed(obs):
    before = obs.copy(deep=True)
    encode(obs[["sex", "age"]])
    encode(obs, formula="~ sex*log(age)")
    pd.testing.assert_frame_equal(obs, before)
    array = np.ones((8, 2))
    array.flags.writeable = False
    encode(array)
