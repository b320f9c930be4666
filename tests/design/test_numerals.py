from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.design.covariates import CovariateEncoding
from batchcorr.errors import CovariateWarning, DesignError

N = 60
AGES = np.resize(np.arange(20, 32), N)
SAMPLES = [f"s{i}" for i in range(N)]


def with_cell(text):
    ages = AGES.astype(str).astype(object)
    ages[3] = text
    return ages


def read(values, **options):
    table = pd.DataFrame({"age": values}, index=SAMPLES)
    return CovariateEncoding.fit_transform(table, N, **options)[0]


@pytest.mark.parametrize("dtype", ["object", "string", "category"])
@pytest.mark.parametrize(
    ("values", "where"),
    [
        (AGES.astype(str), r"\('20': s0\)"),
        ([f"{age},5" for age in AGES], r"\('20,5': s0\)"),
        ([f"{age}.5" for age in AGES], r"\('20.5': s0\)"),
        ([f"{age} %" for age in AGES], r"\('20 %': s0\)"),
        ([f"1,{age + 100}.5" for age in AGES], r"\('1,120.5': s0\)"),
        (with_cell(">89"), r"\('>89': s3\)"),
        (with_cell(" 99"), r"\(' 99': s3\)"),
        (with_cell("unknown"), r"\('unknown': s3\)"),
        (with_cell("1e1"), r"\('1e1': s3\)"),
    ],
    ids=range(9),
)
def test_numbers_stored_as_text_are_told_with_column_and_cell(values, where, dtype):
    values = pd.Series(values, dtype="object").astype(dtype).to_numpy()
    column = pd.array(values) if dtype != "category" else pd.Categorical(values)
    match = rf"covariate 'age' contains numbers stored as text {where}.*to_numeric"
    with pytest.warns(CovariateWarning, match=match):
        encoding = read(column)
    assert len(encoding.names) == len(set(values)) - 1  # nothing else is changed
    read(column, formula="~ C(age)")


def test_a_number_beside_text_in_a_column_of_objects_is_told():
    ages = [*AGES.tolist()[:-1], ">89"]
    with pytest.warns(CovariateWarning, match=r"stored as text \('>89': s59\)"):
        read(ages)


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical((np.arange(N) % 4).astype(str)),  # scanpy's leiden
        pd.Categorical((np.arange(N) % 25 + 1).astype(str)),
        pd.Categorical(np.resize(["0", "1", "2,0", "2,1", "3"], N)),  # a part of one
        pd.Categorical(np.resize(["0", "1", "2", "4", "5"], N)),  # one was left out
        pd.Categorical(np.resize([27, 30, 45, 51], N)),
        np.resize(["1", "2", "3", "4"], N),
        np.resize(["007", "008", "012"], N),
        np.resize(["27", "30"], N),
        np.resize(["27", "a", "b", "c", "30"], N),
        np.resize(["1a", "2a", "3a"], N),
        np.resize(["2024-01-05", "2024-01-12", "2024-02-01"], N),
    ],
    ids=range(11),
)
def test_labels_made_of_digits_come_without_a_word(values):
    assert len(read(values).names) == len(set(values)) - 1


@pytest.mark.parametrize("dtype", ["object", "category"])
def test_as_many_numerals_as_samples_are_no_identifier_of_samples(dtype):
    ages = [f"{40 + k / 4:.2f}".replace(".", ",") for k in range(N)]
    with pytest.raises(DesignError, match=r"60 levels.*numbers stored as text .*s0"):
        read(pd.Series(ages, dtype=dtype).array)


@pytest.mark.parametrize("mark", ["N/A", "", "nan", "#N/A", "NULL"])
def test_a_missing_mark_among_numbers_is_missing(mark):
    match = rf"'age' is missing for 1 of 60 samples \(s3\). '{mark}' is read as missing"
    for values in (with_cell(mark), pd.Categorical(with_cell(mark))):
        with pytest.raises(DesignError, match=match):
            read(values)


# -- measurements as batches ----------------------------------------------------------


X = np.random.default_rng(0).normal(size=(96, 4))


@pytest.mark.parametrize(
    "batch",
    [
        np.random.default_rng(1).normal(50, 10, 96),
        np.random.default_rng(1).normal(50, 10, 96).astype(str),
        np.random.default_rng(1).integers(0, 1000, 96),
        np.round(np.random.default_rng(1).uniform(6, 10, 96), 1),
        pd.array(np.arange(96) // 1.5, dtype="Float64"),
        pd.Categorical(np.arange(96.0)),
    ],
    ids=range(6),
)
@pytest.mark.parametrize("method", [bc.ComBat, bc.Standardize, bc.RemoveBatchEffect])
def test_a_measurement_is_no_batch(batch, method):
    with pytest.raises(DesignError, match=r"different numbers in 96.*nuisance=") as met:
        method().fit(X, batch=batch)
    assert len(str(met.value)) < 600
    table = pd.DataFrame({"batch": ["a", "b"] * 48, "rin": batch})
    with pytest.raises(DesignError, match=r"batch factor 2 has .* different numbers"):
        bc.RemoveBatchEffect().fit(X, batch=table)


def test_a_name_of_each_sample_is_no_batch():
    with pytest.raises(DesignError, match="a different label for each of 96 samples"):
        bc.RemoveBatchEffect().fit(X, batch=[f"s{i}" for i in range(96)])


@pytest.mark.filterwarnings("ignore::batchcorr.errors.BatchSizeWarning")
@pytest.mark.parametrize(
    "batch",
    [np.arange(96) // 2, np.arange(96) // 2 / 2 // 4, np.resize([1.1, 1.2, 2.1], 96)],
    ids=["pairs", "numbers", "parts of plates"],
)
def test_numbers_may_be_batches(batch):
    assert len(bc.RemoveBatchEffect().fit(X, batch=batch).batches_) == len(set(batch))
