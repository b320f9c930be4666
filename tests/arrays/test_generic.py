"""Arrays of other libraries: nothing but the standard is asked of them."""

from __future__ import annotations

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr._anndata import matrices
from batchcorr.arrays import apply, array_api, generic, moments
from batchcorr.arrays.counts import totals
from batchcorr.arrays.operations import modules_of, sums
from batchcorr.design.design import Design
from batchcorr.errors import CountsWarning, InputError
from batchcorr.estimators.scale import unlogged
from batchcorr.models.empirical_bayes import prior_of, shrink
from batchcorr.models.location_scale import LocationScale
from tests.conftest import strict, tensor, values

each_library = pytest.mark.parametrize("make", [strict, tensor])
NAMES = ("rows", "n", "mean", "squares", "columns", "cross", "gram")


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(values(found), values(expected), tolerance, tolerance)


def with_missing(small):
    x = small.x.copy()
    x[3, 5] = x[20, 7] = x[21, 7] = np.nan
    x[small.batch == 2, 9] = np.nan
    return x


def design_of(small):
    age = small.table[["age"]].to_numpy()
    return Design.of(small.batch - 1, 4, np.c_[age, small.table["sex"] == "m"])


# -- the sums ------------------------------------------------------------------------


@each_library
@pytest.mark.parametrize("block", [1, 50, 2**24])
def test_blocks_of_any_size_give_the_same_sums(small, tall, monkeypatch, make, block):
    monkeypatch.setattr(generic, "BLOCK", block)
    for data in (small, tall) if block > 1 else (small,):
        design = design_of(data)
        found, expected = moments(make(data.x), design), moments(data.x, design)
        for name in NAMES:
            assert type(getattr(found, name)) is np.ndarray
            close(getattr(found, name), getattr(expected, name), 1e-9)


@each_library
@pytest.mark.parametrize("weighted", ["no", "row", "value"])
def test_missing_and_weighted_values(small, monkeypatch, make, weighted):
    monkeypatch.setattr(generic, "BLOCK", 200)
    x, design = with_missing(small), design_of(small)
    rng = np.random.default_rng(0)
    weights = {
        "no": None,
        "row": rng.uniform(0, 2, len(x)).round(1),
        "value": rng.uniform(0, 2, x.shape).round(1),
    }[weighted]
    found = moments(make(x), design, weights=weights)
    expected = moments(x, design, weights=weights)
    assert found.by_feature
    seen = expected.n > 0  # where nothing was, means mean nothing
    close(found.mean[seen], expected.mean[seen], 1e-9)
    for name in ("rows", "n", "squares", "columns", "cross", "gram"):
        close(getattr(found, name), getattr(expected, name), 1e-9)


@each_library
def test_infinite_values_are_refused(small, make):
    x = small.x.copy()
    x[-1, -1] = np.inf
    with pytest.raises(InputError, match="infinite"):
        moments(make(x), design_of(small))


def test_constant_features_have_squares_of_exactly_0(small, foreign):
    x = small.x + 0.1
    found = moments(foreign.of(x), Design.of(small.batch - 1))
    assert (found.squares[:, 0] == 0).all()
    assert found.squares[0, 1] == 0
    assert (found.squares[:, 2:] > 0).all()


# -- from moments to corrected values without NumPy ----------------------------------


def test_the_whole_way_is_on_the_standard(small, monkeypatch):
    """Moments, empirical Bayes' shrinkage and the map, by an array that is not NumPy's.

    Any use of NumPy on the way fails: the array cannot be turned into one of NumPy's.
    """
    x = strict(small.x[:, 2:])
    xp = x.__array_namespace__()

    def refuse(*_, **__):
        pytest.fail("became a NumPy array")

    monkeypatch.setattr(type(x), "__array__", refuse, raising=False)
    monkeypatch.setattr(type(x), "__buffer__", refuse, raising=False)
    found = generic.tensor_moments(x, small.batch - 1, 3)
    whole = found.collapse([0, 0, 0], 1)
    sigma = xp.sqrt(xp.sum(found.squares, axis=0) / xp.sum(found.n))
    gamma = (found.mean - whole.mean) / sigma
    squares = found.squares / sigma**2
    delta2 = squares / (found.n - 1)
    prior = prior_of(gamma, delta2)
    gamma_star, delta2_star, _ = shrink(gamma, delta2, squares, found.n, prior)
    scale = 1 / xp.sqrt(delta2_star)
    shift = whole.mean - scale * (whole.mean + gamma_star * sigma)
    none = xp.zeros((0, x.shape[1]), dtype=xp.float64)
    correction = LocationScale(scale, shift, none, none)
    y = generic.tensor_affine(x, correction, small.batch - 1)
    assert type(y) is type(x)
    monkeypatch.undo()
    expected = bc.ComBat().fit_transform(small.x[:, 2:], batch=small.batch)
    close(y, expected, 1e-9)


def test_tensors_keep_their_gradient():
    torch = pytest.importorskip("torch")
    x = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    codes = np.arange(30) % 2
    found = generic.tensor_moments(x, codes, 2)
    found.squares.sum().backward()
    with torch.no_grad():
        groups = [x[codes == b] for b in (0, 1)]
        for b, group in enumerate(groups):
            close(x.grad[codes == b], 2 * (group - group.mean(dim=0)))


# -- estimators and what is around them ----------------------------------------------


@each_library
def test_estimators_take_missing_values_and_weights(small, make):
    x, beside = with_missing(small), {"batch": small.batch}
    close(
        bc.ComBat().fit_transform(make(x), **beside),
        bc.ComBat().fit_transform(x, **beside),
    )
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x))
    found = bc.RemoveBatchEffect().fit(make(x), weights=weights, **beside)
    expected = bc.RemoveBatchEffect().fit(x, weights=weights, **beside)
    close(found.transform(make(x), **beside), expected.transform(x, **beside))


@each_library
def test_a_fit_on_one_kind_corrects_another(small, make, tmp_path):
    model = bc.ComBat().fit(make(small.x), batch=small.batch)
    model.save(tmp_path / "model.npz")
    found = bc.load(tmp_path / "model.npz").transform(small.x, batch=small.batch)
    close(found, bc.ComBat().fit_transform(small.x, batch=small.batch))


@each_library
def test_integers_become_floats_and_counts_are_noticed(small, make):
    counts = np.random.default_rng(0).poisson(30, small.x.shape)
    assert unlogged(make(counts)) == "counts"
    assert unlogged(make(counts / 7.0 * 50 ** (counts > 40))) == "normalized"
    assert not unlogged(make(small.x))
    with pytest.warns(CountsWarning):
        found = bc.Standardize().fit_transform(make(counts), batch=small.batch)
    assert values(found).dtype == np.float64
    with pytest.warns(CountsWarning):
        found = bc.Standardize().fit_transform(
            make(counts.astype(np.int16)), batch=small.batch
        )
    assert values(found).dtype == np.float32


@each_library
def test_what_is_no_matrix_of_numbers_is_refused(make):
    with pytest.raises(InputError, match="real numbers"):
        bc.ComBat().fit(make(np.ones((4, 2), complex)), batch=[0, 0, 1, 1])
    with pytest.raises(InputError, match="samples × features"):
        bc.ComBat().fit(make(np.ones(4)), batch=[0, 0, 1, 1])


@each_library
def test_copy_false_leaves_other_libraries_arrays_alone(small, make):
    x = make(small.x)
    found = bc.ComBat(copy=False).fit_transform(x, batch=small.batch)
    close(x, small.x, 0)
    close(found, bc.ComBat().fit_transform(small.x, batch=small.batch))


@each_library
def test_features_are_taken_and_replaced(small, make):
    positions = np.array([7, 2, 19])
    part = matrices.take_features(make(small.x), positions)
    close(part, small.x[:, positions], 0)
    expected = small.x.copy()
    expected[:, positions] *= 2
    found = matrices.replace_features(make(small.x), positions, 2 * part)
    assert type(found) is type(part)
    close(found, expected, 0)


def test_what_is_not_in_numpys_memory_is_not_written_to(small):
    adata = bc.datasets.bladder()
    assert not matrices.may_overwrite(adata, tensor(small.x), None)
    assert matrices.may_overwrite(adata, sp.csr_matrix(small.x), None)
    assert matrices.may_overwrite(adata, small.x.copy(), None)


@each_library
@pytest.mark.parametrize("chunks", [(17, -1), (5, 9)])
def test_blocks_of_dask_arrays_may_be_of_other_libraries(small, make, chunks):
    lazy = da.from_array(small.x, chunks=chunks).map_blocks(
        make, dtype=np.float64, meta=np.empty((0, 0))
    )
    model = bc.ComBat().fit(lazy, batch=small.batch)
    found = model.transform(lazy, batch=small.batch)
    first = found.blocks[0, 0].compute()
    assert type(first) is type(make(small.x))
    expected = bc.ComBat().fit_transform(small.x, batch=small.batch)
    close(first, expected[: chunks[0], : first.shape[1]])
    whole = np.block(
        [
            [values(block.compute()) for block in row]
            for row in found.to_delayed().tolist()
        ]
    )
    close(whole, expected)


@each_library
def test_subclasses_and_numpy_scalars_find_their_room(small, make):
    class Own(type(make(small.x))):
        """A type that somebody derived."""

    assert sums.dispatch(type(make(small.x))) is sums.dispatch(Own)
    assert issubclass(Own, array_api.StandardArray)
    assert not issubclass(np.ndarray, array_api.StandardArray)
    assert not issubclass(da.Array, array_api.StandardArray)


def test_other_kinds_are_refused_by_name():
    class Own:
        shape, ndim, dtype = (4, 2), 2, np.dtype(float)

    with pytest.raises(InputError, match="CuPy arrays and CSR matrices"):
        apply(
            Own(),
            Design.of([0, 0, 1, 1]),
            LocationScale(*[np.ones((2, 2))] * 2, *[np.ones((0, 2))] * 2),
        )


@each_library
def test_what_is_done_on_the_cpu_alone_says_so(small, make):
    with pytest.raises(InputError, match="convert it to a NumPy array"):
        totals(make(small.x))


# -- what is not needed --------------------------------------------------------------

BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Absent())
"""
WORK = """
import types
package = types.ModuleType("batchcorr")
package.__path__ = [{path!r}]
sys.modules["batchcorr"] = package  # its __init__ is the face: not needed below it
import pkgutil
for floor in ("models", "arrays", "methods"):
    folder = __import__(f"batchcorr.{{floor}}", fromlist=["__path__"]).__path__
    for found in pkgutil.iter_modules(folder):
        if found.name not in {skipped}:
            __import__(f"batchcorr.{{floor}}.{{found.name}}")
import numpy as np
from batchcorr.methods.combat import ComBat
x = np.random.default_rng(0).normal(size=(20, 5))
print(ComBat().fit_transform(x, batch=[0, 1] * 10).shape, "pandas" in sys.modules)
"""


@pytest.mark.parametrize(
    ("absent", "skipped"),
    [
        (["anndata", "scanpy", "torch", "cupy", "h5py", "zarr", "matplotlib"], []),
        (["anndata", "scanpy", "torch", "cupy", "dask"], list(modules_of("dask"))),
    ],
    ids=["no faces", "no dask"],
)
def test_models_arrays_and_methods_import_no_face(absent, skipped):
    path = bc.__path__[0]
    code = BLOCK.format(absent=absent) + WORK.format(path=path, skipped=skipped)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(20, 5)")
