"""What many tests share: one small dataset, the kinds of matrix, R's golden files."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from batchcorr.models.namespace import to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).resolve().parent / "golden"

# a plugin, and a script: importing them is using them
collect_ignore = ["standin_cupy.py", "golden/saved_0_1_0/make.py"]


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """Compiled kernels whatever the size: `test_small` shows that both give the same."""
    monkeypatch.setattr("batchcorr.arrays.numpy_passes.SMALL", 0)


# -- data --------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """Values on a log scale with many zeros, three batches, and what is to be kept.

    All values are multiples of 1/1024, so that float32 holds the very same numbers.
    Feature 0 is constant throughout, feature 1 is constant in the first batch.
    """

    x: np.ndarray
    batch: np.ndarray
    table: pd.DataFrame

    def take(self, rows: Any) -> Data:
        return Data(self.x[rows], self.batch[rows], self.table.iloc[rows])

    def keep(self, columns: list[str]) -> pd.DataFrame | None:
        return self.table[columns] if columns else None


def make_data(sizes=(14, 19, 11), n_features=24, seed=0) -> Data:
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = np.argsort(codes, kind="stable")
    cell_type, sex = np.empty(n, dtype=object), np.empty(n, dtype=object)
    cell_type[order] = np.resize(["B", "NK", "T", "T", "B"], n)  # about balanced
    sex[order] = np.resize(["m", "f", "f", "m", "m", "f", "f"], n)
    age = rng.normal(50, 12, n).round(1)
    x = rng.gamma(4.0, 0.7, (n, n_features)) + (cell_type == "T")[:, None]
    x = x * rng.uniform(0.6, 1.6, (len(sizes), n_features))[codes]
    x += rng.normal(0, 0.8, (len(sizes), n_features))[codes] + 0.02 * age[:, None]
    x[rng.random(x.shape) < 0.35] = 0
    x[:, 0] = 2.0
    x[codes == 0, 1] = 1.5
    table = pd.DataFrame({"cell_type": cell_type, "sex": sex, "age": age})
    return Data(np.round(x * 1024) / 1024, codes + 1, table)


@pytest.fixture(scope="session")
def small() -> Data:
    """44 samples of 24 features: no batch is split into cells."""
    return make_data()


@pytest.fixture(scope="session")
def tall() -> Data:
    """5200 samples of 7 features: cells of batch and categories, merged in chunks."""
    return make_data((2400, 1700, 1100), 7, seed=1)


# -- kinds of matrix ---------------------------------------------------------------


def values(x: Any) -> np.ndarray:
    """What a matrix of any kind holds, as NumPy sees it."""
    x = x.compute() if hasattr(x, "compute") else x
    return to_numpy(x.toarray() if hasattr(x, "toarray") else x)


@dataclass(frozen=True)
class Kind:
    """A kind of matrix: how it is made from a NumPy array, and whose results are."""

    name: str
    of: Callable[[np.ndarray], Any]
    library: str = "numpy"

    @staticmethod
    def values(x: Any) -> np.ndarray:
        return values(x)


def strict(x: np.ndarray) -> Any:
    """An array that can do what the array API standard says, and nothing else."""
    with warnings.catch_warnings():  # of a standard that is newer than the library
        warnings.simplefilter("ignore")
        import array_api_strict
    return array_api_strict.asarray(x.copy())


def tensor(x: np.ndarray) -> Any:
    torch = pytest.importorskip("torch")
    return torch.tensor(x)


def on_device(x: np.ndarray) -> Any:
    import cupy

    return cupy.asarray(x)


def sparse_on_device(x: np.ndarray) -> Any:
    import cupyx.scipy.sparse

    return cupyx.scipy.sparse.csr_matrix(sp.csr_matrix(x))


def has_cuda() -> bool:
    """Whether CuPy is installed and sees a device."""
    if find_spec("cupy") is None:
        return False
    import cupy

    return bool(cupy.cuda.is_available())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not has_cuda():
        pytest.skip("no CUDA device, or no CuPy (the extra `gpu`)")


def strided(x: np.ndarray) -> np.ndarray:
    """Every second column of a wider matrix: a view that owns nothing."""
    wide = np.full((x.shape[0], 2 * x.shape[1]), np.nan)
    wide[:, ::2] = x
    return wide[:, ::2]


def frozen(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def written_twice(x: np.ndarray) -> sp.csr_matrix:
    """CSR as it may come: stored zeros, rows unsorted, one entry in two parts."""
    matrix = sp.csr_matrix(x)
    values = [[0.25, x[row, -1] - 0.25, 0.0] for row in range(len(x))]
    last = x.shape[1] - 1
    places = [[last, last, 0] for _ in range(len(x))]
    data, indices, indptr = [], [], [0]
    for row in range(len(x)):
        own = slice(*matrix.indptr[row : row + 2])
        inner = matrix.indices[own] != last
        data += [*values[row], *matrix.data[own][inner][::-1]]
        indices += [*places[row], *matrix.indices[own][inner][::-1]]
        indptr.append(len(data))
    return sp.csr_matrix((data, indices, indptr), shape=x.shape)


# The one place where a kind of matrix is added.
IN_MEMORY = [
    Kind("c", np.ascontiguousarray),
    Kind("fortran", np.asfortranarray),
    Kind("float32", lambda x: x.astype(np.float32)),
    Kind("fortran32", lambda x: np.asfortranarray(x, dtype=np.float32)),
    Kind("strided", strided),
    Kind("reversed", lambda x: x[::-1].copy()[::-1]),
    Kind("readonly", frozen),
    Kind("table", pd.DataFrame),
    Kind("csr_matrix", sp.csr_matrix),
    Kind("csr32", lambda x: sp.csr_matrix(x.astype(np.float32))),
    Kind("csr_array", sp.csr_array),
    Kind("csr_unsorted", written_twice),
    Kind("csc_matrix", sp.csc_matrix),
    Kind("csc_array", sp.csc_array),
    Kind("coo_matrix", sp.coo_matrix),
]
LAZY = [
    Kind("dask", lambda x: da.from_array(x, chunks=(17, 9)), "dask"),
    Kind(
        "dask_csr",
        lambda x: da.from_array(x, chunks=(17, -1)).map_blocks(sp.csr_matrix),
        "dask",
    ),
]
FOREIGN = [
    Kind("torch", tensor, "torch"),
    Kind("torch32", lambda x: tensor(x.astype(np.float32)), "torch"),
    Kind("torch_strided", lambda x: tensor(np.ascontiguousarray(x.T)).T, "torch"),
    Kind("strict", strict, "array_api_strict"),
]
ON_DEVICE = [
    Kind("cupy", on_device, "cupy"),
    Kind("cupy32", lambda x: on_device(x.astype(np.float32)), "cupy"),
    Kind("cupy_fortran", lambda x: on_device(np.asfortranarray(x)), "cupy"),
    Kind("cupy_csr", sparse_on_device, "cupy"),
    Kind(
        "dask_cupy",
        lambda x: da.from_array(x, chunks=(17, 9)).map_blocks(on_device),
        "dask",
    ),
]
KINDS = [
    *(IN_MEMORY + LAZY + FOREIGN),
    *(pytest.param(kind, marks=pytest.mark.gpu, id=kind.name) for kind in ON_DEVICE),
]


@pytest.fixture(params=KINDS, ids=lambda kind: getattr(kind, "name", None))
def kind(request) -> Kind:
    return request.param


@pytest.fixture(params=IN_MEMORY, ids=lambda kind: kind.name)
def stored(request) -> Kind:
    """A kind of matrix that is in memory: what counts and quantiles need."""
    return request.param


@pytest.fixture(params=FOREIGN, ids=lambda kind: kind.name)
def foreign(request) -> Kind:
    """A kind of matrix of another library, on the array API standard."""
    return request.param


# -- R's results -------------------------------------------------------------------


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Read a golden file by name: arrays by name, or what a JSON file holds."""

    def read(name: str) -> Any:
        if name.endswith(".json"):
            return json.loads((GOLDEN / name).read_text(encoding="utf-8"))
        with np.load(GOLDEN / f"{name}.npz") as file:
            return dict(file)

    return read


@pytest.fixture
def threads():
    """What sets the number of threads of kernels; as many as there are to begin with."""
    import numba

    most, before = numba.config.NUMBA_NUM_THREADS, numba.get_num_threads()
    if most < 2:
        pytest.skip("one thread is all there is")
    numba.set_num_threads(most)
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.fixture
def tiny_is_large(monkeypatch):
    """Every sparse matrix that becomes dense is worth a warning."""
    monkeypatch.setattr("batchcorr.estimators.densify.SMALL", 0)
