"""CUDA kernels, compiled as C++, beside the rooms of NumPy, SciPy and the standard.

The text of the kernels and all that plans their launches is what runs on a device.
What is not tested here is CuPy itself: tests/arrays/test_gpu.py does that where a device is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from batchcorr.arrays import apply, cupy_kernels, moments
from batchcorr.arrays.cells import Cells
from batchcorr.arrays.operations import (
    Maps,
    affine,
    has_infinite,
    sums,
    sums_by_feature,
)
from batchcorr.design.design import Design
from batchcorr.models.location_scale import LocationScale
from tests.conftest import strict, strided, values, written_twice
from tests.emulated_cuda import COMPILER, Emulated, kernels

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")

WIDTH = 37
SIZES = [1, 2, 7, 8, 9, 63, 64, 65, 129, 2100]
SLOPES = [0, 1, 3, 4, 5, 9]
LAYOUTS = {
    "c": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "strided": lambda x: strided(x).astype(x.dtype, order="K"),
    "view": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, 1::3],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
each_size = pytest.mark.parametrize("n", SIZES)
each_slopes = pytest.mark.parametrize("n_slopes", SLOPES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    return Emulated(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def device(emulated):
    yield cupy_kernels.Device(np, emulated)
    emulated.cut = None


def make(n, n_slopes=0, dtype=np.float64, seed=0, category=True):
    """Values, and the cells and slopes of a design of 5 batches; batch 3 has no rows."""
    rng = np.random.default_rng(seed)
    codes = rng.choice([0, 1, 2, 4], n)
    x = rng.gamma(2.0, 2.0, (n, WIDTH)) + 3 * codes[:, None]
    x[rng.random(x.shape) < 0.5] = 0
    x[:, 0] = 7.3
    x[codes == 1, 1] = 0.1
    columns = rng.normal(size=(n, n_slopes))
    if category:
        columns = np.c_[columns, rng.integers(0, 2, n)]
    design = Design.of(codes, 5, columns, binary=[False] * n_slopes + [True] * category)
    return x.astype(dtype), design


def parts(design):
    cells = Cells.of(design)
    return cells, np.ascontiguousarray(design.centred[1][:, cells.sloped])


def agree(found, expected, cells):
    """Means, squares and products, where there are rows; and 0 exactly where it is."""
    there = cells.counts > 0
    size = 1 + abs(expected[0][there]).max()
    n = cells.counts.sum()
    np.testing.assert_allclose(found[0][there], expected[0][there], 1e-13, 1e-14 * size)
    np.testing.assert_allclose(found[1], expected[1], 1e-11, 1e-14 * n * size**2)
    np.testing.assert_allclose(found[2], expected[2], 1e-10, 1e-12 * n * size)
    assert found[2].shape == expected[2].shape


# -- dense ---------------------------------------------------------------------------


@each_size
@each_slopes
@each_dtype
def test_dense_sums(device, n, n_slopes, dtype):
    x, design = make(n, n_slopes, dtype)
    cells, slopes = parts(design)
    found = cupy_kernels.dense_sums(device, x, cells, slopes)
    agree(found, sums(x, cells, slopes), cells)
    if n < 2100:
        agree(found, sums(strict(x), cells, slopes), cells)


@each_layout
@each_dtype
def test_dense_sums_of_any_layout_are_the_same_bits(device, layout, dtype):
    x, design = make(700, 3, dtype)
    expected = cupy_kernels.dense_sums(device, x, *parts(design))
    found = cupy_kernels.dense_sums(device, layout(x), *parts(design))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@each_dtype
@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, 1e9 + 0.1])
def test_squares_are_0_where_a_cell_has_one_value_and_nowhere_else(
    device, dtype, value
):
    x, design = make(2100, 1, dtype)
    cells, slopes = parts(design)
    assert cells.flat
    for cell in range(cells.n_cells):  # each cell constant in other features
        x[cells.codes == cell, 2 + cell :: 9] = value * (1 + cell / 3)
    _, squares, _ = cupy_kernels.dense_sums(device, x, cells, slopes)
    for cell in range(cells.n_cells):
        constant = (np.ptp(x[cells.codes == cell], axis=0) == 0).tolist()
        assert 0 < sum(constant) < WIDTH
        assert (squares[cell] == 0).tolist() == constant


def test_nothing_cancels(device):
    """Means a billion times the spread, an outlier as first value, a long drift.

    Means of stripes are rounded once, to 1e-7 of the first feature's spread.
    """
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3000, 4))
    x[:, 0] += 1e9
    x[0, 1] = 1e6
    x[:, 2] += np.linspace(0, 1e5, 3000)
    x[:, 3] *= 1e-8
    design = Design.of(np.zeros(3000))
    mean, squares, _ = cupy_kernels.dense_sums(device, x, *parts(design))
    exact = x.astype(np.longdouble)
    centred = exact - exact.mean(axis=0)
    np.testing.assert_allclose(mean[0], exact.mean(axis=0).astype(float), 1e-13)
    squared = (centred**2).sum(axis=0).astype(float)
    np.testing.assert_allclose(squares[0, 0], squared[0], 1e-8)
    np.testing.assert_allclose(squares[0, 1:], squared[1:], 1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 5, 699])
def test_what_is_not_finite_shows_in_the_sums_of_its_feature(device, bad, row):
    x, design = make(700, 2)
    x[row, 5] = bad
    _, squares, _ = cupy_kernels.dense_sums(device, x, *parts(design))
    assert np.flatnonzero(~np.isfinite(squares).all(axis=0)).tolist() == [5]


def frozen_map(cells, n_slopes, seed=1):
    rng = np.random.default_rng(seed)
    return Maps(
        rng.uniform(0.5, 2, (cells.n_batches, WIDTH)),
        rng.normal(size=(cells.n_cells, WIDTH)),
        rng.normal(size=(len(cells.codes), n_slopes)),
        rng.normal(size=(cells.n_batches, n_slopes, WIDTH)),
    )


@each_size
@each_slopes
@each_dtype
def test_dense_affine_is_that_of_numpy_to_the_bit(device, n, n_slopes, dtype):
    x, design = make(n, dtype=dtype)
    cells, given = Cells.of(design), frozen_map(Cells.of(design), n_slopes)
    before = x.copy()
    expected = affine(x, cells, given, None)
    found = cupy_kernels.dense_affine(device, x, cells, given, None)
    np.testing.assert_array_equal(found, expected, strict=True)
    np.testing.assert_array_equal(x, before)
    near = values(affine(strict(x), cells, given, None))
    np.testing.assert_array_equal(found, near, strict=True)


@each_layout
@pytest.mark.parametrize("n_slopes", [0, 2])
def test_dense_affine_in_place_and_into_any_layout(device, layout, n_slopes):
    x, design = make(300)
    cells, given = Cells.of(design), frozen_map(Cells.of(design), n_slopes)
    expected = affine(x, cells, given, None)
    out = layout(np.full_like(x, np.nan))
    assert cupy_kernels.dense_affine(device, x, cells, given, out) is out
    np.testing.assert_array_equal(out, expected)
    here = layout(x)
    assert cupy_kernels.dense_affine(device, here, cells, given, here) is here
    np.testing.assert_array_equal(here, expected)


# -- CSR -----------------------------------------------------------------------------

CSR = {
    "matrix": sp.csr_matrix,
    "array": sp.csr_array,
    "unsorted": written_twice,
    "wide_indices": lambda x: wide(sp.csr_matrix(x)),
}


def wide(x):
    x.indices, x.indptr = x.indices.astype(np.int64), x.indptr.astype(np.int64)
    return x


@each_size
@pytest.mark.parametrize("n_slopes", [0, 1, 5])
@pytest.mark.parametrize("store", CSR.values(), ids=CSR)
def test_csr_sums(device, n, n_slopes, store):
    x, design = make(n, n_slopes)
    x[: n // 3] = 0  # rows without stored values
    cells, slopes = parts(design)
    stored = store(x)
    before = stored.copy()
    found = cupy_kernels.csr_sums(device, stored, cells, slopes)
    agree(found, sums(x, cells, slopes), cells)
    np.testing.assert_array_equal(found[1] == 0, sums(stored, cells, slopes)[1] == 0)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(before, name))


@pytest.mark.parametrize("n", [1, 9, 300])
@pytest.mark.parametrize("n_slopes", [0, 1, 5])
@pytest.mark.parametrize("store", CSR.values(), ids=CSR)
@each_dtype
def test_csr_affine_is_that_of_scipy_to_the_bit(device, n, n_slopes, store, dtype):
    x, design = make(n)
    x = np.round(x * 1024) / 1024  # in two parts it is the same number
    stored = store(x).astype(dtype)
    cells, given = Cells.of(design), frozen_map(Cells.of(design), n_slopes)
    expected = affine(sp.csr_matrix(x.astype(dtype)), cells, given, None)
    found = cupy_kernels.csr_affine(device, stored, cells, given, None)
    np.testing.assert_array_equal(found, expected, strict=True)
    out = np.full(x.shape, np.nan, dtype, order="F")
    assert cupy_kernels.csr_affine(device, stored, cells, given, out) is out
    np.testing.assert_array_equal(out, expected)


# -- both ----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [(1, 1), (1, 7), (5, 3), (200, 64)])
def test_how_a_launch_is_cut_changes_no_bit(device, cut):
    x, design = make(700, 5)
    cells, slopes = parts(design)
    given = frozen_map(cells, 2)
    stored = sp.csr_matrix(x)

    def all_of_it():
        yield from cupy_kernels.dense_sums(device, x, cells, slopes)
        yield from cupy_kernels.csr_sums(device, stored, cells, slopes)
        yield cupy_kernels.dense_affine(device, x, cells, given, None)
        yield cupy_kernels.csr_affine(device, stored, cells, given, None)

    expected = list(all_of_it())
    device.launch.cut = cut
    for a, b in zip(all_of_it(), expected, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_stripes_are_of_one_cell_and_cover_all_rows():
    _, design = make(700)
    cells = Cells.of(design)
    cell, bounds = cells.stripes(60)
    order = cells.sorted_rows().order
    assert bounds[0] == 0
    assert bounds[-1] == 700
    assert 0 < np.diff(bounds).min() <= np.diff(bounds).max() == 60
    for k, (start, stop) in enumerate(pairwise(bounds)):
        assert set(cells.codes[order[start:stop]]) == {cell[k]}


class OnDevice:
    """A matrix that goes through the kernels, NaN and all: the room of the tests."""

    def __init__(self, x, device):
        self.x, self.device, self.shape, self.dtype = x, device, x.shape, x.dtype


@sums.register(OnDevice)
def _sums(x, cells, slopes):
    work = cupy_kernels.csr_sums if sp.issparse(x.x) else cupy_kernels.dense_sums
    return work(x.device, x.x, cells, slopes)


@affine.register(OnDevice)
def _affine(x, *given):
    work = cupy_kernels.csr_affine if sp.issparse(x.x) else cupy_kernels.dense_affine
    return work(x.device, x.x, *given)


@has_infinite.register(OnDevice)
def _has_infinite(x):
    return has_infinite(x.x)


@sums_by_feature.register(OnDevice)
def _sums_by_feature(x, *given):
    return sums_by_feature(strict(x.x), *given)


@pytest.mark.parametrize("category", [True, False])
@pytest.mark.parametrize("n_slopes", [0, 2])
@pytest.mark.parametrize("n", [40, 2100])
@pytest.mark.parametrize("store", [np.asarray, sp.csr_matrix])
def test_both_passes_from_end_to_end(device, category, n_slopes, n, store):
    x, design = make(n, n_slopes, category=category)
    expected = moments(x, design)
    found = moments(OnDevice(store(x), device), design)
    for name in ("rows", "n", "mean", "squares", "columns", "cross", "gram"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), 1e-10, 1e-8
        )
    rng = np.random.default_rng(0)
    p = design.columns.shape[1]
    correction = LocationScale(
        rng.uniform(0.5, 2, (5, WIDTH)),
        rng.normal(size=(5, WIDTH)),
        rng.normal(size=(p, WIDTH)),
        np.empty((0, WIDTH)),
    )
    np.testing.assert_array_equal(
        apply(OnDevice(store(x), device), design, correction),
        apply(store(x), design, correction),
    )


def test_missing_values_take_the_twin_on_the_standard(device):
    x, design = make(60, 1)
    x[3, 4] = np.nan
    found, expected = moments(OnDevice(x, device), design), moments(x, design)
    assert found.by_feature
    np.testing.assert_allclose(found.squares, expected.squares, 1e-11, 1e-11)
    np.testing.assert_allclose(found.cross, expected.cross, 1e-10, 1e-10)


def test_every_kernel_is_launched(device):
    x, design = make(20, 1)
    cells, slopes = parts(design)
    device.launch.launched.clear()
    cupy_kernels.dense_sums(device, x, cells, slopes[:, :0])
    cupy_kernels.dense_sums(device, x, cells, slopes)
    cupy_kernels.csr_sums(device, sp.csr_matrix(x), cells, slopes)
    given = frozen_map(cells, 0)
    cupy_kernels.csr_affine(device, sp.csr_matrix(x), cells, given, None)
    assert set(device.launch.launched) == set(kernels())


@pytest.mark.slow
def test_tests_for_a_device_pass_where_numpy_stands_in_for_cupy():
    """What is asked of CuPy: see tests/standin_cupy.py for what this does not show."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.standin_cupy"),
            *("-p", "no:cacheprovider", "-m", "gpu"),
            *("tests/arrays/test_gpu.py", "tests/test_contracts.py"),
        ],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > 200, done.stdout
