"""One spelling for every array library: find the namespace an array belongs to.

The statistics in `models` are written once, on the Python array API standard, and so
run on NumPy and CuPy arrays and on torch tensors (through autograd) alike.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "Array",
    "Matrix",
    "Namespace",
    "asarray_like",
    "is_cupy",
    "is_foreign",
    "is_tensor",
    "namespace",
    "packages_of",
    "to_numpy",
]

Array: TypeAlias = Any
"""An array of any library that follows the array API standard."""

Matrix: TypeAlias = Any
"""A matrix of a kind that the passes know: NumPy, SciPy, Dask, CuPy, or on the standard."""

Namespace: TypeAlias = Any
"""The functions of such a library, as the standard names them."""


def namespace(array: Array) -> Namespace:
    """The array-API namespace of an array.

    Examples
    --------
    >>> import numpy as np
    >>> namespace(np.ones(3)) is np
    True
    """
    if is_tensor(array):
        import array_api_compat.torch

        return array_api_compat.torch
    if is_cupy(array):
        import array_api_compat.cupy

        return array_api_compat.cupy
    return array.__array_namespace__()


def is_foreign(x: object) -> bool:
    """Whether `x` is an array on the standard that is not NumPy's: a tensor, say.

    Examples
    --------
    >>> is_foreign(np.ones(3)), is_foreign([1.0])
    (False, False)
    """
    if isinstance(x, np.ndarray) or hasattr(x, "dask"):
        return False
    return hasattr(type(x), "__array_namespace__") or is_tensor(x) or is_cupy(x)


def packages_of(kind: type) -> set[str]:
    """The packages that define a type and the types it derives from.

    Examples
    --------
    >>> sorted(packages_of(np.matrix))
    ['builtins', 'numpy']
    """
    return {parent.__module__.partition(".")[0] for parent in kind.__mro__}


def is_tensor(x: object) -> bool:
    """Whether `x` is a tensor of torch, which need not be installed."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_cupy(x: object) -> bool:
    """Whether `x` is an array of CuPy, which need not be installed."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def asarray_like(array: Array, values: Any, dtype: Any = None) -> Array:
    """The values as an array of the library, and on the device, of another array.

    Examples
    --------
    >>> asarray_like(np.ones(2), [1, 2])
    array([1, 2])
    """
    if isinstance(array, np.ndarray):
        return np.asarray(values, dtype=dtype)
    from array_api_compat import device

    if isinstance(values, np.ndarray):  # torch takes no other without a warning
        values = np.require(values, requirements=["C", "W"])
    return namespace(array).asarray(values, dtype=dtype, device=device(array))


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """An array of any library and device as a NumPy array, without its history.

    Examples
    --------
    >>> to_numpy(np.ones(2))
    array([1., 1.])
    """
    if is_tensor(array):
        return np.asarray(array.detach().cpu().numpy())
    if is_cupy(array):
        return np.asarray(array.get())
    return np.asarray(array)
