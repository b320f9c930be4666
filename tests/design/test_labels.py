from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcorr.design.labels import BatchLabels
from batchcorr.errors import DesignError, InputError, UnknownBatchError

TEXT = ["b", "a", "b", "c"]
SPLIT = pd.Categorical(TEXT, categories=["c", "unused", "b", "a"])


@pytest.mark.parametrize(
    ("labels", "levels"),
    [
        pytest.param(TEXT, ("a", "b", "c"), id="list"),
        pytest.param(tuple(TEXT), ("a", "b", "c"), id="tuple"),
        pytest.param(iter(TEXT), ("a", "b", "c"), id="iterator"),
        pytest.param(np.array(TEXT), ("a", "b", "c"), id="numpy text"),
        pytest.param(np.array(TEXT, object), ("a", "b", "c"), id="numpy object"),
        pytest.param(np.array(TEXT, "S1"), ("a", "b", "c"), id="numpy bytes"),
        pytest.param(pd.Series(TEXT, dtype=object), ("a", "b", "c"), id="object"),
        pytest.param(pd.Series(TEXT, dtype="string"), ("a", "b", "c"), id="string"),
        pytest.param(pd.array(TEXT, dtype="string"), ("a", "b", "c"), id="extension"),
        pytest.param(pd.Index(TEXT), ("a", "b", "c"), id="index"),
        pytest.param(pd.Series(TEXT, index=[3, 3, 1, 0]), ("a", "b", "c"), id="index2"),
        pytest.param(SPLIT, ("c", "b", "a"), id="categorical"),
        pytest.param(pd.Series(SPLIT), ("c", "b", "a"), id="category"),
        pytest.param(pd.CategoricalIndex(SPLIT), ("c", "b", "a"), id="category index"),
        pytest.param([10, 9, 10], (9, 10), id="numbers by value"),
        pytest.param(["10", "9", "10"], ("10", "9"), id="text by text"),
        pytest.param(np.array([2, 1, 2], np.uint8), (1, 2), id="uint8"),
        pytest.param(np.array([2.5, 1, 2]), (1.0, 2.0, 2.5), id="float"),
        pytest.param(np.array([2, 1], np.float32), (1.0, 2.0), id="float32"),
        pytest.param(pd.Series([2, 1], dtype="Int64"), (1, 2), id="Int64"),
        pytest.param(pd.Series([2, 1], dtype="Float64"), (1.0, 2.0), id="Float64"),
        pytest.param(np.array([True, False]), (False, True), id="bool"),
        pytest.param(
            pd.Series([True, False], dtype="boolean"), (False, True), id="boolean"
        ),
        pytest.param(
            [np.int64(2), np.str_("b"), 1.5, "a"], (1.5, 2, "a", "b"), id="mixed"
        ),
        pytest.param(
            pd.to_datetime(["2024-02-01", "2024-01-01"]),
            ("2024-01-01 00:00:00", "2024-02-01 00:00:00"),
            id="dates",
        ),
        pytest.param(
            pd.cut(pd.Series([1, 5]), [0, 3, 6]), ("(0, 3]", "(3, 6]"), id="intervals"
        ),
    ],
)
def test_levels_and_codes_of_every_kind_of_label(labels, levels):
    labels = list(labels) if hasattr(labels, "__next__") else labels
    learned = BatchLabels.fit(labels, n_rows=len(labels))
    assert learned.levels == levels
    assert [type(level) for level in learned.levels] == [
        type(level) for level in levels
    ]
    codes = learned.codes(labels, n_rows=len(labels))
    assert codes.dtype == np.int32
    plain = [
        label.decode() if isinstance(label, bytes) else str(label)
        for label in pd.Series(labels)
    ]
    assert [str(levels[code]) for code in codes] == plain
    saved = json.loads(json.dumps(learned.to_json()))
    assert BatchLabels.from_json(saved) == learned


TEXTS = st.text("abç_.7", min_size=1, max_size=3).filter(lambda text: text[-1] != ".")


@given(st.lists(st.one_of(TEXTS, st.integers(-9, 9)), min_size=1))
def test_the_level_of_a_code_is_the_label(labels):
    learned = BatchLabels.fit(labels)
    levels = [str(learned.levels[code]) for code in learned.codes(labels)]
    assert levels == [str(label) for label in labels]
    assert len({*map(str, learned.levels)}) == len(learned.levels)


@pytest.mark.parametrize(
    ("labels", "levels", "codes"),
    [
        ([1, "1", 2, "2"], (1, 2), [0, 0, 1, 1]),
        (["1", 1, 2.0, "2.0"], (1, 2.0), [0, 0, 1, 1]),
        ([1, 1.0, "1.0", "1"], (1,), [0, 0, 0, 0]),
        ([1.5, "1.5", "a"], (1.5, "a"), [0, 0, 1]),
        ([True, "True", False], (False, True), [1, 1, 0]),
        (pd.Categorical(["1", 1, 2], categories=[2, "1", 1]), (2, 1), [1, 1, 0]),
    ],
)
def test_a_label_written_in_two_ways_is_one(labels, levels, codes):
    learned = BatchLabels.fit(labels)
    assert learned.levels == levels
    assert learned.codes(labels).tolist() == codes


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (["a", "a ", "b"], "both 'a' and 'a '"),
        (["1", "1.0", "2"], "both '1' and '1.0'"),
        ([True, 1, 0], "both numbers and true or false"),
        ([2.5, False, "a"], "both numbers and true or false"),
    ],
)
def test_labels_that_may_be_one_are_refused(labels, match):
    with pytest.raises(DesignError, match=match):
        BatchLabels.fit(labels)


def test_levels_saved_before_may_be_one_written_in_two_ways():
    saved = {"name": "batch", "levels": [1, "1"]}
    assert BatchLabels.from_json(saved).codes(["1", 1]).tolist() == [1, 0]
    with pytest.raises(InputError, match="levels of batch"):
        BatchLabels.fit([1], levels=[1, "1"])


@pytest.mark.parametrize("mark", ["NA", "N/A", "#N/A", "nan", "null", "", " ", " NA "])
@pytest.mark.parametrize("dtype", [object, "string", "category", "U4", "S4"])
def test_what_pandas_reads_as_missing_is_missing(mark, dtype):
    labels = ["a", mark, "b", mark]
    if dtype in ("U4", "S4"):
        labels = np.array(labels, dtype)
    else:
        labels = pd.Series(labels, index=list("wxyz"), dtype=dtype)
    with pytest.raises(
        DesignError, match=r"2 of 4 samples \((x, z|rows 1, 3)\)"
    ) as met:
        BatchLabels.fit(labels)
    assert f"{mark!r} is read as missing" in str(met.value).replace("b'", "'")
    with pytest.raises(DesignError, match="missing"):
        BatchLabels(("a", "b")).codes(labels)


def test_a_missing_mark_that_is_declared_is_a_label():
    learned = BatchLabels.fit(["None", "drug"], levels=["None", "drug"])
    assert learned.codes(["drug", "None"]).tolist() == [1, 0]


def test_labels_that_become_the_same_text_are_one_level():
    day = pd.Timestamp("2024-01-01")
    learned = BatchLabels.fit([str(day), day, "a"])
    assert learned.levels == ("2024-01-01 00:00:00", "a")
    assert learned.codes([day, "a", str(day)]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("levels", "labels", "codes"),
    [
        ((1, 2), ["2", "1"], [1, 0]),
        (("1", "2"), [2, 1], [1, 0]),
        (("1", "2"), [2.0, 1.0], [1, 0]),
        ((1.0, 2.0), ["2", "1"], [1, 0]),
        ((1.0, 2.0), ["2.0", "1.0"], [1, 0]),
        ((1, 2), [2.0, 1.0], [1, 0]),
        ((1.5, 2), ["1.5", "2"], [0, 1]),
        ((False, True), ["True", "False"], [1, 0]),
        (("False", "True"), [True, False], [1, 0]),
        (("1", 1), [1, "1"], [1, 0]),
        (("1", "2"), ["1", 1], [0, 0]),
        ((10**400, "a"), [str(10**400)], [0]),
    ],
)
def test_labels_match_as_text_when_that_is_unambiguous(levels, labels, codes):
    assert BatchLabels(levels).codes(labels).tolist() == codes


@pytest.mark.parametrize(
    ("levels", "labels"),
    [
        (("1", "1.0"), [1]),  # either could be meant
        (("1",), ["1.0"]),  # text is what it is
        ((1, 2), [True]),
        ((True, False), [1]),
    ],
)
def test_ambiguous_labels_do_not_match(levels, labels):
    with pytest.raises(UnknownBatchError):
        BatchLabels(levels).codes(labels)


def test_an_unknown_batch_names_the_batches_and_the_remedies():
    learned = BatchLabels.fit(["a", "b"])
    with pytest.raises(UnknownBatchError) as caught:
        learned.codes(["a", "y", "x", "y"])
    message = str(caught.value)
    assert "'y', 'x'" in message
    assert "Known labels: 'a', 'b'" in message
    assert "Fit again" in message
    assert "est.add_batches(X, batch=…)" in message


def test_only_the_first_unknown_labels_are_named():
    with pytest.raises(UnknownBatchError, match=r"4 and 5 more"):
        BatchLabels(("a",)).codes(list(range(10)))


def test_an_unknown_level_of_a_covariate_is_no_unknown_batch():
    learned = BatchLabels.fit(["a", "b"], name="covariate 'sex'")
    with pytest.raises(DesignError, match=r"covariate 'sex'.*'x'") as caught:
        learned.codes(["x"], unknown=DesignError)
    assert not isinstance(caught.value, UnknownBatchError)
    assert "add_batches" not in str(caught.value)


def test_categories_that_do_not_occur_are_not_unknown():
    labels = pd.Categorical(["a", "b"], categories=["x", "b", "a"])
    assert BatchLabels(("a", "b")).codes(labels).tolist() == [0, 1]
    labels = pd.Categorical([1, 1], categories=["1", 1])
    assert BatchLabels(("1",)).codes(labels).tolist() == [0, 0]


@pytest.mark.parametrize(
    "labels",
    [
        ["a", None, "b", None],
        ["a", np.nan, "b", np.nan],
        [1.0, np.nan, 2.0, np.nan],
        ["a", pd.NaT, "b", pd.NA],
        pd.Series(["a", None, "b", None], dtype="string"),
        pd.Series([1, None, 2, None], dtype="Int64"),
        pd.Series([True, None, False, None], dtype="boolean"),
        pd.Categorical(["a", None, "b", None]),
        pd.to_datetime(["2024-01-01", None, "2024-01-02", None]),
        np.ma.masked_array([1, 2, 3, 4], [False, True, False, True]),
    ],
)
def test_missing_labels_are_counted_and_located(labels):
    with pytest.raises(DesignError, match=r"2 of 4 samples \(rows 1, 3\)") as caught:
        BatchLabels.fit(labels)
    assert "drop them" in str(caught.value)
    with pytest.raises(DesignError, match="missing"):
        BatchLabels(("a", "b")).codes(labels)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ("batch", "one label per row"),
        (3, "one label per row"),
        (None, "one label per row"),
        ({"a": 1}, "one label per row"),
        (np.array("a"), "one label per row"),
        (np.zeros((4, 1)), r"not of shape \(4, 1\)"),
        (pd.DataFrame({"a": [1, 2]}), r"not of shape \(2, 1\)"),
        ([["a", "b"], ["c", "d"]], r"not of shape \(2, 2\)"),
        (pd.Series([["a"], ["b"]]), "not lists"),
        (pd.Series([{"a": 1}, {"b": 2}]), "not lists"),
        ([1.0, np.inf], "inf"),
    ],
)
def test_what_is_not_a_label_per_row(labels, match):
    with pytest.raises(InputError, match=match):
        BatchLabels.fit(labels)


def test_a_wrong_length_names_both_lengths():
    with pytest.raises(InputError, match=r"2 labels for 3 rows.*transpose"):
        BatchLabels.fit(["a", "b"], n_rows=3)
    with pytest.raises(InputError, match="2 labels for 3 rows"):
        BatchLabels(("a", "b")).codes(["a", "b"], n_rows=3)


def test_declared_levels_keep_their_order_and_need_not_occur():
    learned = BatchLabels.fit(["b", "b"], levels=["c", "b", "a"])
    assert learned.levels == ("c", "b", "a")
    assert learned.codes(["a", "c"]).tolist() == [2, 0]
    assert BatchLabels.fit([2], levels=np.array([1, 2])).levels == (1, 2)


def test_a_label_outside_the_declared_levels_is_an_error():
    with pytest.raises(DesignError, match=r"'x'.*Declared: 'a', 'b'"):
        BatchLabels.fit(["a", "x"], levels=["a", "b"])


@pytest.mark.parametrize("levels", [[], ["a", "a"], ["a", None], [1, 1.0], "ab"])
def test_declared_levels_are_distinct_labels(levels):
    with pytest.raises(InputError, match="levels of batch"):
        BatchLabels.fit(["a"], levels=levels)


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"name": "batch"},
        {"name": 1, "levels": ["a"]},
        {"name": "batch", "levels": "ab"},
        {"name": "batch", "levels": [["a"]]},
        {"name": "batch", "levels": [None]},
        {"name": "batch", "levels": []},
        {"name": "batch", "levels": ["a", "a"]},
    ],
)
def test_damaged_labels_are_not_read(saved):
    with pytest.raises(InputError, match="evels"):
        BatchLabels.from_json(saved)


def test_no_loop_runs_over_rows():
    rows = 2_000_000
    labels = np.arange(rows) % 7
    learned = BatchLabels.fit(labels, n_rows=rows)
    assert (learned.codes(labels) == labels).all()


def test_arrow_labels():
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    labels = pd.Series(["b", "a", "b"], dtype="string[pyarrow]")
    assert BatchLabels.fit(labels).levels == ("a", "b")
    numbers = pd.Series([2, 1, None], dtype="int64[pyarrow]")
    assert BatchLabels.fit(numbers[:2]).levels == (1, 2)
    with pytest.raises(DesignError, match="1 of 3"):
        BatchLabels.fit(numbers)
    dictionary = labels.astype("category").astype("string[pyarrow]")
    assert BatchLabels(("a", "b")).codes(dictionary).tolist() == [1, 0, 1]
