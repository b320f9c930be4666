"""A stand-in for CuPy where there is no device: NumPy behind CuPy's manners.

`python -m pytest -p tests.standin_cupy -m gpu` runs the tests that need a device with it:
what our code asks of CuPy is then run, though not CuPy. Like CuPy's, its arrays cannot be
mixed with NumPy's or turned into them but by `.get()`; kernels are the C++ of
`tests.emulated_cuda`.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.machinery import ModuleSpec
from operator import attrgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp

from tests.emulated_cuda import Emulated

OPERATORS = (
    "add radd sub rsub mul rmul truediv rtruediv pow rpow neg abs lt le gt ge eq ne "
    "invert and rand or ror xor matmul rmatmul floordiv mod iadd isub imul"
)
folder = tempfile.TemporaryDirectory(prefix="kernels")
emulated = Emulated(Path(folder.name))


def unwrap(value: Any) -> Any:
    """Take NumPy's arrays out of ours."""
    if isinstance(value, ndarray):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)(unwrap(item) for item in value)
    return value


def wrap(value: Any) -> Any:
    """Put NumPy's arrays and numbers into ours."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    return tuple(map(wrap, value)) if isinstance(value, tuple) else value


def refuse_numpy(values: Any) -> None:
    for value in values:
        if isinstance(value, np.ndarray) and value.ndim:
            msg = "Unsupported type <class 'numpy.ndarray'>"
            raise TypeError(msg)


class Device:
    """The only device there is."""

    id = 0

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass


class ndarray:  # noqa: N801 - its name in CuPy
    """An array of which NumPy sees nothing."""

    __hash__ = None

    def __init__(self, held, **_):
        self.held = unwrap(held)

    def __array__(self, *_, **__):
        msg = "Implicit conversion to a NumPy array is not allowed."
        raise TypeError(msg)

    def __array_ufunc__(self, ufunc, method, *given, **more):
        refuse_numpy(given)
        return wrap(getattr(ufunc, method)(*unwrap(given), **more))

    def __array_function__(self, function, _, given, more):
        return getattr(sys.modules["cupy"], function.__name__)(*given, **more)

    def __getattr__(self, name):
        if name.startswith("__") or name == "held":
            raise AttributeError(name)
        found = getattr(self.held, name)
        if callable(found):
            return lambda *given, **more: wrap(found(*unwrap(given), **more))
        return wrap(found)

    @property
    def data(self):
        return SimpleNamespace(ptr=self.held.ctypes.data, device=Device())

    @property
    def flags(self):
        found = self.held.flags
        return SimpleNamespace(
            c_contiguous=found.c_contiguous, f_contiguous=found.f_contiguous
        )

    @property
    def device(self):
        return Device()

    def get(self):
        return self.held.copy()

    def view(self, dtype=None, type=None):
        if type is None:
            return wrap(self.held.view(dtype))
        found = object.__new__(type)
        found.held = self.held.view()
        return found

    def __getitem__(self, at):
        return wrap(self.held[unwrap(at)])

    def __setitem__(self, at, value):
        refuse_numpy([value])
        self.held[unwrap(at)] = unwrap(value)

    def __len__(self):
        return len(self.held)

    def __bool__(self):
        return bool(self.held)

    def __float__(self):
        return float(self.held)

    def __int__(self):
        return int(self.held)

    def __index__(self):
        return self.held.__index__()

    def __reduce__(self):
        return ndarray, (self.held,)


def operator(name):
    def work(self, *others):
        refuse_numpy(others)
        return wrap(getattr(self.held, name)(*unwrap(others)))

    return work


for plain in ("shape", "strides", "dtype", "ndim", "size", "nbytes"):
    setattr(ndarray, plain, property(attrgetter(f"held.{plain}")))
for short in OPERATORS.split():
    setattr(ndarray, f"__{short}__", operator(f"__{short}__"))


def function(name):
    def work(*given, **more):
        refuse_numpy(given)
        return wrap(getattr(np, name)(*unwrap(given), **more))

    work.__name__ = name
    return work


def asarray(values, dtype=None, **_):
    """Put values on the device: NumPy's are copied."""
    found = np.asarray(unwrap(values), dtype=dtype)
    return ndarray(found if isinstance(values, ndarray) else found.copy())


class RawModule:
    """Kernels that are launched as C++."""

    def __init__(self, code, options):
        assert "__global__" in code
        given = dict(option.partition("=")[::2] for option in options)
        self.types = given["-DREAL"], given["-DINDEX"]

    def get_function(self, name):
        def launch(grid, block, args):
            emulated(name, self.types, grid, block, tuple(map(unwrap, args)))

        return launch


class spmatrix:  # noqa: N801
    """A sparse matrix of which SciPy sees nothing."""

    format, make, ndim = "csr", sp.csr_matrix, 2

    def __init__(self, given):
        held = given.held if isinstance(given, spmatrix) else given
        self.held = type(self).make(held)

    def __getattr__(self, name):
        if name.startswith("__") or name == "held":
            raise AttributeError(name)
        found = getattr(self.held, name)
        return wrap(found) if name in {"data", "indices", "indptr"} else found

    def copy(self):
        return type(self)(self.held.copy())

    def astype(self, dtype):
        return type(self)(self.held.astype(dtype))

    def tocsr(self):
        return csr_matrix(self.held)

    def toarray(self):
        return ndarray(self.held.toarray())

    def __getitem__(self, at):
        return type(self)(self.held[unwrap(at)])


class csr_matrix(spmatrix):  # noqa: N801
    """CSR."""


class csc_matrix(spmatrix):  # noqa: N801
    """CSC."""

    format, make = "csc", sp.csc_matrix


class coo_matrix(spmatrix):  # noqa: N801
    """COO."""

    format, make = "coo", sp.coo_matrix


def install() -> None:
    """Make the modules that are imported in CuPy's name."""
    public = [name for name in dir(np) if not name.startswith("_")]
    numpys = {name: getattr(np, name) for name in public if name != "test"}
    own = {
        name: value
        if isinstance(value, type) or not callable(value)
        else function(name)
        for name, value in numpys.items()
    }
    for name in ("ndarray", "array", "asarray", "RawModule"):
        own[name] = asarray if name.endswith("array") else RawModule
    own |= {"ndarray": ndarray, "__version__": "14.2.0"}
    own["get_default_memory_pool"] = lambda: SimpleNamespace(free_bytes=lambda: 0)
    ndarray.__module__ = "cupy"
    kinds = {
        kind.__name__: kind for kind in (csr_matrix, csc_matrix, coo_matrix, spmatrix)
    }
    for kind in kinds.values():
        kind.__module__ = "cupyx.scipy.sparse"
    runtime = SimpleNamespace(
        CUDARuntimeError=RuntimeError,
        getDeviceCount=lambda: 1,
        memGetInfo=lambda: (8 << 30, 80 << 30),
    )
    cuda = {
        "Device": Device,
        "Stream": SimpleNamespace(null=None),
        "runtime": runtime,
        "is_available": lambda: True,
    }
    modules = {
        "cupy": own,
        "cupy.cuda": cuda,
        "cupy.cuda.device": {"Device": Device},
        "cupy.linalg": vars(np.linalg),
        "cupy.fft": vars(np.fft),
        "cupyx": {},
        "cupyx.scipy": {},
        "cupyx.scipy.sparse": kinds | {"issparse": lambda x: isinstance(x, spmatrix)},
    }
    for name, holds in modules.items():
        module = ModuleType(name)
        visible = {key: v for key, v in holds.items() if not key.startswith("__")}
        vars(module).update(visible | {"__version__": "14.2.0"})
        module.__spec__, module.__path__ = ModuleSpec(name, None, is_package=True), []
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


install()
