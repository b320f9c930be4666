"""What holds for every method, every kind of matrix and every design.

A new method is found through the registry; a new kind of matrix is one line of `KINDS`
in conftest.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone

import batchcorr as bc
from batchcorr.arrays import apply
from batchcorr.design.design import Design
from batchcorr.errors import DesignError, InputError
from batchcorr.methods import registry
from batchcorr.models import empirical_bayes
from batchcorr.models.location_scale import LocationScale
from batchcorr.models.namespace import packages_of
from tests.conftest import KINDS, LAZY, strict, tensor, values

# Sparse matrices become dense here, as they should, and `small` has features that are
# constant, as it should.
pytestmark = [
    pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning"),
    pytest.mark.filterwarnings("ignore:.* constant in a batch and stay unchanged"),
    pytest.mark.filterwarnings("ignore:.* keep part of their batch effects"),
]

OTHERS = [tensor, strict]  # arrays of other libraries

OPTIONS: dict[str, list[dict[str, Any]]] = {  # beside the defaults
    "combat": [
        {"mean_only": True},
        {"parametric": False},
        {"reference": 2},
        {"shrink": False},
    ],
    "standardize": [
        {"target": "unit"},
        {"center": False},
        {"scale": False},
        {"reference": 2},
    ],
}
DESIGNS = {
    "nothing": [],
    "category": ["cell_type"],
    "number": ["age"],
    "both": ["cell_type", "sex", "age"],
}
METHODS = {name: method for name, method in registry().items() if method.record.streams}


@dataclass(frozen=True)
class Case:
    """A method with its options, what it keeps and what else it removes."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    nuisance: list[str] = field(default_factory=list)

    def __str__(self):
        options = [f"{name}={value}" for name, value in self.options.items()]
        removed = [f"-{name}" for name in self.nuisance]
        return ",".join([self.method, *options, *self.kept, *removed])

    def model(self, **more):
        return METHODS[self.method](**self.options, **more)

    def beside(self, data):
        """Return the metadata that fit and transform take with the matrix."""
        found = {"batch": data.batch, "covariates": data.keep(self.kept)}
        if self.nuisance:
            found["nuisance"] = data.keep(self.nuisance)
        return found

    def fit(self, data, x=None, **more):
        x = data.x if x is None else x
        return self.model(**more).fit(x, **self.beside(data))

    def run(self, data, x=None, **more):
        x = data.x if x is None else x
        return self.model(**more).fit_transform(x, **self.beside(data))


CASES = [
    Case(name, options, kept)
    for name in METHODS
    for options in [{}, *OPTIONS.get(name, [])]
    for kept in DESIGNS.values()
    if not (options.get("target") == "unit" and kept)  # which is refused
] + [Case("remove_batch_effect", {}, ["cell_type"], ["age"])]

# Every option once, with all that can be kept; and each method as it is.
FEW = [case for case in CASES if len(case.kept) == 3 or "target" in case.options] + [
    case for case in CASES if case.nuisance
]
PLAIN = [case for case in FEW if not case.options]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_option = pytest.mark.parametrize("case", FEW, ids=str)
every_method = pytest.mark.parametrize("case", PLAIN, ids=str)


def same_bits(found, expected):
    np.testing.assert_array_equal(found, expected, strict=True)


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def snapshot(x):
    """Return all that is stored of a matrix, copied."""
    names = ("data", "indices", "indptr", "row", "col")
    x = x.compute() if isinstance(x, da.Array) else x
    if hasattr(x, "toarray"):
        found = {name: getattr(x, name) for name in names if hasattr(x, name)}
        return {name: np.array(values(array)) for name, array in found.items()}
    return {"values": np.array(values(x))}


# -- kinds of matrix -----------------------------------------------------------------


@every_option
def test_every_kind_of_matrix_gives_the_same(case, small, kind):
    expected = case.run(small)
    found = case.run(small, kind.of(small.x))
    assert kind.library in packages_of(type(found))  # a tensor if it was given so
    dtype = kind.values(kind.of(small.x)).dtype
    assert kind.values(found).dtype == dtype
    close(kind.values(found), expected, 1e-6 if dtype == np.float32 else 1e-10)


@every_method
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow) if kind in LAZY else kind
        for kind in KINDS
    ],
    ids=lambda kind: getattr(kind, "name", None),
)
def test_every_kind_of_matrix_gives_the_same_in_many_rows(case, tall, kind):
    found = kind.values(case.run(tall, kind.of(tall.x)))
    close(found, case.run(tall), 1e-6 if found.dtype == np.float32 else 1e-10)


@every_option
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix, *OTHERS])
def test_float32_is_float64_rounded_once(case, small, make):
    """The same numbers in float32: sums are float64, so that only the last step rounds."""
    single = values(case.run(small, make(small.x.astype(np.float32))))
    same_bits(single, values(case.run(small, make(small.x))).astype(np.float32))


@every_case
def test_layouts_of_dense_matrices_give_the_same_bits(case, small):
    expected = case.run(small)
    same_bits(case.run(small, np.asfortranarray(small.x)), expected)
    same_bits(case.run(small, pd.DataFrame(small.x)), expected)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint8, bool, np.float16])
def test_other_numbers_become_floats_that_hold_them(small, dtype):
    x = np.round(small.x).astype(dtype)
    found = bc.Standardize().fit_transform(x, batch=small.batch)
    floats = x.astype(np.float64 if dtype is np.int64 else np.float32)
    expected = bc.Standardize().fit_transform(floats, batch=small.batch)
    same_bits(found, expected)


@pytest.mark.parametrize("name", METHODS)
def test_big_endian_values_are_read_right(small, name):
    case = Case(name)
    close(case.run(small, small.x.astype(">f8")), case.run(small), 1e-12)


# -- what happens to the input -------------------------------------------------------


@every_method
def test_the_input_is_left_as_it_was(case, small, kind):
    x = kind.of(small.x)
    before = snapshot(x)
    model = case.model()
    corrected = model.fit_transform(x, **case.beside(small))
    model.transform(x, **case.beside(small))
    model.inverse_transform(x, **case.beside(small))
    for name, value in snapshot(x).items():
        same_bits(value, before[name])
    x = x.compute() if isinstance(x, da.Array) else x
    assert not np.shares_memory(
        values(corrected), values(x.data if hasattr(x, "toarray") else x)
    )


@every_option
@pytest.mark.parametrize("order", ["C", "F"])
def test_copy_false_writes_into_the_input(case, small, order):
    x = np.array(small.x, order=order)
    corrected = case.run(small, x, copy=False)
    assert corrected is x
    same_bits(corrected, case.run(small))


@pytest.mark.parametrize("name", METHODS)
def test_copy_false_spares_what_cannot_be_written(small, name):
    x = small.x.copy()
    x.flags.writeable = False
    corrected = Case(name).run(small, x, copy=False)
    same_bits(x, small.x)
    same_bits(corrected, Case(name).run(small))


def test_the_last_block_of_a_fortran_matrix_is_not_written_to():
    """Blocks of columns are copied; the last here has one column, contiguous as is."""
    rng = np.random.default_rng(0)
    x = np.asfortranarray(rng.normal(5, 1, (4096, 1025)).astype(np.float32))
    before = x.copy()
    bc.Standardize().fit_transform(x, batch=np.arange(4096) % 2)
    same_bits(x, before)


def test_writing_to_another_layout_spares_the_input(small):
    design = Design.of(small.batch - 1)
    shape = (3, small.x.shape[1])
    none = np.empty((0, shape[1]))
    double = LocationScale(np.full(shape, 2.0), np.zeros(shape), none, none)
    x, out = small.x.copy(), np.empty(small.x.shape, order="F")
    same_bits(apply(x, design, double, out=out), 2 * small.x)
    same_bits(x, small.x)


# -- rows, blocks and threads --------------------------------------------------------


@every_case
def test_the_order_of_rows_does_not_matter(case, small):
    order = np.random.default_rng(3).permutation(len(small.x))
    close(case.run(small.take(order)), case.run(small)[order], 1e-12)


@every_method
def test_fit_then_transform_is_fit_transform(case, small, kind):
    x = kind.of(small.x)
    model = case.fit(small, x)
    found = model.transform(x, **case.beside(small))
    same_bits(kind.values(found), kind.values(case.run(small, x)))


@every_case
def test_rows_alone_are_corrected_as_among_others(case, small):
    model = case.fit(small)
    whole = model.transform(small.x, **case.beside(small))
    for rows in ([5], list(range(3, 40, 4))):
        part = small.take(rows)
        same_bits(model.transform(part.x, **case.beside(part)), whole[rows])


@every_option
@pytest.mark.parametrize("make", [np.asarray, *OTHERS])
@pytest.mark.parametrize("rows", [1, 700])
def test_rows_of_many_are_corrected_as_among_them(case, tall, rows, make):
    model = case.fit(tall)
    whole = values(model.transform(make(tall.x), **case.beside(tall)))
    part = tall.take(slice(rows))
    found = model.transform(make(part.x), **case.beside(part))
    same_bits(values(found), whole[:rows])


@every_method
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, *OTHERS])
def test_no_rows_are_corrected_to_no_rows(case, small, make):
    model, none = case.fit(small), small.take(slice(0))
    corrected = model.transform(make(none.x), **case.beside(none))
    assert tuple(corrected.shape) == (0, small.x.shape[1])


def blocks(data, sizes):
    """Cut the rows, batch by batch, so that most blocks lack some batches."""
    order = np.argsort(data.batch, kind="stable")
    cuts = np.cumsum(np.resize(sizes, len(order)))
    return [data.take(rows) for rows in np.split(order, cuts[cuts < len(order)])]


def fit_in_blocks(case, parts, make=np.asarray):
    model = case.model()
    declared = {
        "batches": [1, 2, 3],
        "levels": {
            name: levels
            for name, levels in {
                "cell_type": ["B", "NK", "T"],
                "sex": ["f", "m"],
            }.items()
            if name in case.kept
        },
    }
    for place, part in enumerate(parts):
        x = make(part.x) if place % 2 else part.x
        first = declared if place == 0 else {}
        model.partial_fit(x, **case.beside(part), **first)
    return model


@pytest.mark.parametrize("case", [c for c in CASES if not c.nuisance], ids=str)
def test_blocks_are_fitted_as_the_whole(case, small):
    model = fit_in_blocks(case, blocks(small, [1, 7, 2, 13]))
    close(model.transform(small.x, **case.beside(small)), case.run(small))


@pytest.mark.parametrize("case", [c for c in PLAIN if not c.nuisance], ids=str)
@pytest.mark.parametrize(
    "make", [sp.csr_matrix, sp.csc_matrix, np.asfortranarray, *OTHERS]
)
@pytest.mark.parametrize("sizes", [[44], [30, 14], [1, 7, 2, 13]], ids=str)
def test_blocks_may_be_of_different_kinds(case, small, make, sizes):
    model = fit_in_blocks(case, blocks(small, sizes), make)
    close(model.transform(small.x, **case.beside(small)), case.run(small))


@pytest.mark.parametrize("name", METHODS)
def test_blocks_may_come_in_any_order_and_some_with_missing_values(small, name):
    x = small.x.copy()
    x[3, 5] = x[20, 7] = x[21, 7] = np.nan
    data = type(small)(x, small.batch, small.table)
    case = Case(name, kept=["age"])
    whole = case.run(data)
    assert np.isnan(whole).sum() == 3
    parts = blocks(data, [9, 4])
    for order in (parts, parts[::-1], parts[3:] + parts[:3]):
        model = fit_in_blocks(case, order)
        close(model.transform(data.x, **case.beside(data)), whole)


@every_option
def test_fit_forgets_what_was_fitted_before(case, small):
    model = case.fit(small.take(slice(30)), small.x[:30, :9])
    model.fit(small.x, **case.beside(small))
    same_bits(model.transform(small.x, **case.beside(small)), case.run(small))


@every_option
def test_the_number_of_threads_changes_no_bit(case, small, tall, threads):
    wide = type(small)(np.tile(small.x, 4), small.batch, small.table)
    for data, make in (
        (wide, np.asarray),
        (wide, sp.csr_matrix),
        (tall, sp.csc_matrix),
    ):
        x = make(data.x)
        threads(1)
        one = case.run(data, x)
        threads(2)
        same_bits(case.run(data, x), one)


@every_option
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_another_thread_gives_the_same_bits(case, small, make):
    x = make(small.x)
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(case.run, small, x).result()
    same_bits(elsewhere, case.run(small, x))


# -- the frozen state ----------------------------------------------------------------


def new_batches(data):
    return type(data)(data.x, data.batch + 10, data.table)


@every_case
def test_what_is_saved_comes_back(case, small, tmp_path):
    model = case.fit(small)
    model.save(tmp_path / "correction.npz")
    again = bc.load(tmp_path / "correction.npz")
    assert type(again) is type(model)
    assert again.get_params() == model.get_params()
    assert again.batches_ == model.batches_
    beside = case.beside(small)
    corrected = model.transform(small.x, **beside)
    same_bits(again.transform(small.x, **beside), corrected)
    same_bits(
        again.inverse_transform(corrected, **beside),
        model.inverse_transform(corrected, **beside),
    )
    for name, value in model.details_.items():
        same_bits(again.details_[name], value)
    grown, grown_again = (
        each.add_batches(small.x, **case.beside(new_batches(small)))
        for each in (model, again)
    )
    beside = case.beside(new_batches(small))
    same_bits(
        grown_again.transform(small.x, **beside), grown.transform(small.x, **beside)
    )
    grown.save(tmp_path / "grown.npz")
    loaded = bc.load(tmp_path / "grown.npz")
    same_bits(loaded.transform(small.x, **beside), grown.transform(small.x, **beside))


@every_case
def test_the_inverse_undoes_the_correction(case, small):
    model = case.fit(small)
    beside = case.beside(small)
    there = model.transform(small.x, **beside)
    close(model.inverse_transform(there, **beside), small.x)
    back = model.inverse_transform(small.x, **beside)
    close(model.transform(back, **beside), small.x)


@every_option
def test_adding_batches_changes_no_other(case, small):
    model = case.fit(small)
    before = model.transform(small.x, **case.beside(small))
    grown = model.add_batches(small.x, **case.beside(new_batches(small)))
    assert grown.batches_ == (1, 2, 3, 11, 12, 13)
    assert model.batches_ == (1, 2, 3)
    same_bits(grown.transform(small.x, **case.beside(small)), before)
    same_bits(model.transform(small.x, **case.beside(small)), before)


@every_case
def test_a_batch_added_again_is_corrected_as_before(case, small):
    """The same samples under a new name have the same effects, and the same prior."""
    third = small.take(small.batch == 3)
    model = case.fit(small)
    expected = model.transform(third.x, **case.beside(third))
    beside = case.beside(new_batches(third))
    grown = model.add_batches(third.x, **beside)
    close(grown.transform(third.x, **beside), expected)


@every_option
def test_clones_are_unfitted_and_equal(case, small):
    model = case.fit(small)
    copied, made = clone(model), type(model)(**model.get_params())
    for other in (copied, made):
        assert other.get_params() == model.get_params()
        with pytest.raises(Exception, match="not fitted"):
            other.transform(small.x, **case.beside(small))
        same_bits(other.fit_transform(small.x, **case.beside(small)), case.run(small))


# -- batches -------------------------------------------------------------------------


def relabelled(data, labels):
    return type(data)(data.x, labels, data.table)


NAMES = {
    "text": lambda b: np.array(["a", "b", "c"])[b - 1],
    "object": lambda b: np.array(["a", "b", "c"], dtype=object)[b - 1],
    "float": lambda b: b / 2,
    "category": lambda b: pd.Categorical.from_codes(b - 1, ["z", "y", "x"]),
    "unused category": lambda b: pd.Categorical.from_codes(b, ["none", *"abc"]),
    "series": lambda b: pd.Series(b, index=b[::-1]),
    "list": lambda b: [int(label) for label in b],
}


@pytest.mark.parametrize(
    "case", [case for case in FEW if "reference" not in case.options], ids=str
)
@pytest.mark.parametrize("name", NAMES)
def test_names_of_batches_do_not_matter(case, small, name):
    renamed = relabelled(small, NAMES[name](small.batch))
    beside = case.beside(renamed)
    same_bits(case.model().fit_transform(small.x, **beside), case.run(small))


@every_case
def test_the_order_of_batches_does_not_matter(case, small):
    names = np.array(["c", "a", "b"])
    options = {
        key: names[value - 1] if key == "reference" else value
        for key, value in case.options.items()
    }
    turned = Case(case.method, options, case.kept, case.nuisance)
    found = turned.run(relabelled(small, names[small.batch - 1]))
    close(found, case.run(small), 1e-12)


@pytest.mark.parametrize("name", ["combat", "standardize"])
@pytest.mark.parametrize("reference", [1, 3])
@pytest.mark.parametrize("kept", [[], DESIGNS["both"]], ids=len)
def test_the_reference_batch_is_not_touched(small, kind, name, reference, kept):
    case = Case(name, {"reference": reference}, kept)
    x = kind.of(small.x)
    there = small.batch == reference
    corrected = kind.values(case.run(small, x))
    same_bits(corrected[there], kind.values(x)[there])
    assert (corrected[~there] != small.x[~there]).any()


@pytest.mark.parametrize("kept", [[], DESIGNS["both"]], ids=len)
@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}])
def test_one_batch_is_left_alone_by_standardize(small, kind, kept, options):
    case = Case("standardize", options, kept)
    one = relabelled(small, np.ones(len(small.x)))
    x = kind.of(small.x)
    same_bits(kind.values(case.run(one, x)), kind.values(x))


@pytest.mark.parametrize("name", sorted({*METHODS} - {"standardize"}))
def test_one_batch_is_refused_by_the_others(small, name):
    with pytest.raises(InputError, match="only one batch"):
        Case(name).run(relabelled(small, np.ones(len(small.x))))


@pytest.mark.parametrize("name", ["combat", "standardize"])
def test_a_second_batch_factor_is_refused_where_values_are_scaled(small, name):
    """The affine map removes nuisances unscaled: it cannot hold r (x - w η)."""
    both = np.c_[small.batch, np.arange(len(small.x)) % 2]
    with pytest.raises(InputError, match="batch"):
        Case(name).model().fit(small.x, batch=both)


# -- equivariance --------------------------------------------------------------------


@every_case
def test_units_and_origin_of_a_feature_do_not_matter(case, small):
    """x → a x + c, a > 0, in all batches: y → a y + c; a unit target has no units."""
    rng = np.random.default_rng(4)
    a, c = 10.0 ** rng.uniform(-3, 3, 24), rng.normal(0, 5, 24)
    y, found = case.run(small), case.run(small, a * small.x + c)
    if case.options.get("target") == "unit":
        moved = np.where(small.x.std(axis=0) > 0, 1.0, a)  # constants keep their units
        close(found, moved * y, 1e-9)
    else:
        assert (np.abs(found - (a * y + c)) <= 1e-9 * (a + abs(c))).all()


def shifted(data, level, shift):
    x = data.x + np.where(data.batch == level, 1.0, 0.0)[:, None] * shift
    return type(data)(x, data.batch, data.table)


# What a shift c of all of batch 3 does to corrected values: added to those of batch 3,
# and to those of the others. In general it only moves the common level.
SHARE = 11 / 44
MOVES = {
    "standardize": {
        "": (SHARE, SHARE),
        "target": (0, 0),
        "center": (1, 0),
        "scale": (SHARE, SHARE),
        "reference": (0, 0),
    },
    "remove_batch_effect": {"": (1 / 3, 1 / 3)},
    "combat": {
        "": (SHARE, SHARE),
        "mean_only": (SHARE, SHARE),
        "parametric": (SHARE, SHARE),
        "shrink": (SHARE, SHARE),
        "reference": (0, 0),
    },
}


@pytest.mark.parametrize("case", [c for c in CASES if c.method in MOVES], ids=str)
def test_a_shift_of_a_batch_moves_the_common_level_alone(case, small, monkeypatch):
    """Any shift, feature by feature; for ComBat one of equally many σ in all features.

    Empirical Bayes shrinks a batch's effects towards their mean over features, so that
    only a shift that all features share passes through it whole.
    """
    # With sva's stopping rule the result is known to 1e-4 of γ* only.
    monkeypatch.setattr(empirical_bayes, "TOLERANCE", 1e-11)
    model = case.fit(small)
    shift = np.random.default_rng(5).normal(0, 3, 24)
    if case.method == "combat":
        shift = np.where(model.aim_.adjustable, 0.7 * model.aim_.scale, 0.0)
    own, others = MOVES[case.method]["".join([*case.options][:1])]
    moves = np.where(small.batch == 3, own, others)[:, None] * shift
    found = case.run(shifted(small, 3, shift))
    np.testing.assert_allclose(found, case.run(small) + moves, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["combat", "standardize"])
def test_a_shift_of_the_reference_moves_all(small, name):
    case = Case(name, {"reference": 2}, ["cell_type"])
    shift = np.zeros(24)
    shift[2:] = 0.5 * case.fit(small).aim_.scale[2:]
    found = case.run(shifted(small, 2, shift))[:, 2:]
    # in ComBat all other batches' effects move by the same, within sva's stopping rule
    tolerance = 5e-3 if name == "combat" else 1e-10
    close(found, (case.run(small) + shift)[:, 2:], tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if "age" in c.kept], ids=str)
def test_an_effect_of_a_kept_covariate_stays_whole(case, small):
    """x → x + z k: y → y + z k, whatever the batches' scales are."""
    data = type(small)(small.x[:, 2:], small.batch, small.table)  # those that vary
    effect = small.table["age"].to_numpy()[:, None] * np.linspace(-0.5, 0.5, 22)
    found = case.run(data, data.x + effect)
    np.testing.assert_allclose(found, case.run(data) + effect, rtol=1e-9, atol=1e-9)


def test_an_effect_of_a_nuisance_goes_whole(small):
    case = Case("remove_batch_effect", {}, ["cell_type"], ["age"])
    age = small.table["age"].to_numpy()
    effect = (age - age.mean())[:, None] * np.linspace(-0.5, 0.5, 24)
    close(case.run(small, small.x + effect), case.run(small))


# -- what each method promises -------------------------------------------------------


def test_standardized_batches_have_one_mean_and_one_standard_deviation(small):
    y = bc.Standardize().fit_transform(small.x, batch=small.batch)
    parts = [y[small.batch == b] for b in (1, 2, 3)]
    pooled = sum(
        ((small.x[small.batch == b] - small.x[small.batch == b].mean(axis=0)) ** 2).sum(
            axis=0
        )
        for b in (1, 2, 3)
    ) / (44 - 3)
    for part in parts:
        close(part.mean(axis=0), small.x.mean(axis=0), 1e-12)
    for part in (parts[1], parts[2]):
        close(part.std(axis=0, ddof=1), np.sqrt(pooled), 1e-12)


@pytest.mark.parametrize("center", [True, False])
def test_standardize_is_its_equation_on_an_explicit_design(small, center):
    """y = σ (x - α_b - zβ) / σ_b + α + zβ, with α_b instead of α if not centred."""
    x = small.x[:, 2:]
    full = np.hstack(
        [
            small.batch[:, None] == [1, 2, 3],
            small.table["cell_type"].to_numpy()[:, None] == ["NK", "T"],
            small.table[["age"]],
        ]
    ).astype(float)
    solution = np.linalg.lstsq(full, x)[0]
    kept, squares = full[:, 3:] @ solution[3:], (x - full @ solution) ** 2
    sigma = np.sqrt(squares.sum(axis=0) / (44 - 3 - 3))
    common = np.bincount(small.batch)[1:] / 44 @ solution[:3]
    expected = np.empty_like(x)
    for b, n in ((1, 14), (2, 19), (3, 11)):
        rows = small.batch == b
        own = np.sqrt(squares[rows].sum(axis=0) / (n - 1))
        residuals = (x - full @ solution)[rows]
        level = common if center else solution[b - 1]
        expected[rows] = sigma / own * residuals + level + kept[rows]
    found = bc.Standardize(center=center).fit_transform(
        x, batch=small.batch, covariates=small.table[["cell_type", "age"]]
    )
    close(found, expected)


def test_standardized_batches_of_a_reference_look_like_it(small):
    y = bc.Standardize(reference=3).fit_transform(small.x, batch=small.batch)
    for b in (1, 2, 3):
        part, aim = y[small.batch == b][:, 2:], small.x[small.batch == 3][:, 2:]
        close(part.mean(axis=0), aim.mean(axis=0), 1e-12)
        close(part.std(axis=0, ddof=1), aim.std(axis=0, ddof=1), 1e-12)


@pytest.mark.parametrize("kept", DESIGNS.values(), ids=DESIGNS)
def test_removing_a_batch_effect_twice_is_removing_it_once(small, kept):
    case = Case("remove_batch_effect", {}, kept)
    once = case.run(small)
    close(case.run(small, once), once, 1e-11)


@pytest.mark.parametrize("name", METHODS)
def test_constant_features_stay_as_they_are(small, kind, name):
    x = kind.of(small.x)
    corrected = kind.values(Case(name).run(small, x))
    same_bits(corrected[:, 0], kind.values(x)[:, 0])
    if name == "combat":
        same_bits(corrected[:, 1], kind.values(x)[:, 1])


def test_an_unknown_batch_is_refused_everywhere(small):
    for name in METHODS:
        model = Case(name).fit(small)
        with pytest.raises(DesignError, match="add_batches"):
            model.transform(small.x, batch=small.batch + 1)
