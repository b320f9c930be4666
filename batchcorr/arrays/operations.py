"""The operations that are written for each kind of matrix, and how a kind is found.

An operation is dispatched on the type of the matrix. When the first matrix of a library
comes in, the modules of this folder whose names begin with the library's are imported,
and register their functions (`scipy_…` for SciPy); `array_api` serves all others on the
array API standard. What is absent is never imported; a new kind is one new file.
"""

from __future__ import annotations

import pkgutil
from functools import cache, singledispatch, update_wrapper
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.errors import InputError
from batchcorr.models.namespace import is_foreign, packages_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from batchcorr.arrays.cells import Cells
    from batchcorr.design.design import Design
    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Array, Matrix

__all__ = [
    "Maps",
    "Sums",
    "affine",
    "has_infinite",
    "modules_of",
    "operation",
    "sums",
    "sums_by_feature",
    "unknown_kind",
]

OTHERS = "array_api"
"""The module for arrays of libraries that have none of their own."""


@cache
def modules_of(library: str) -> tuple[str, ...]:
    """Names of the modules in this folder for the matrices of a library.

    Examples
    --------
    >>> modules_of("scipy")
    ('scipy_gram', 'scipy_passes', 'scipy_products')
    """
    library = {"cupyx": "cupy"}.get(library, library)
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(each.name for each in found if each.name.startswith(f"{library}_"))


def operation(default: Callable[..., Any]) -> Any:
    """Make an operation: dispatched on its first argument, `default` for other kinds.

    The first matrix of a type is looked up, and its function registered for the type.
    """

    def look_up(x: Matrix, *args: object, **kwargs: object) -> Any:
        packages = [parent.__module__.partition(".")[0] for parent in type(x).__mro__]
        modules = next(filter(None, map(modules_of, packages)), (OTHERS,))
        for name in modules:
            import_module(f"batchcorr.arrays.{name}")
        function = dispatcher.dispatch(type(x))
        if function is look_up:
            function = default
        dispatcher.register(type(x), function)
        return function(x, *args, **kwargs)

    update_wrapper(look_up, default)
    dispatcher = singledispatch(look_up)
    return dispatcher


def unknown_kind(x: Matrix) -> InputError:
    """The error for a matrix of a kind that an operation is not written for."""
    name = f"{type(x).__module__}.{type(x).__qualname__}"
    if is_foreign(x) or any(map(modules_of, packages_of(type(x)))):
        msg = (
            f"This is not possible for a matrix of type {name}: convert it to a NumPy "
            "array or a SciPy CSR or CSC matrix."
        )
        return InputError(msg)
    msg = (
        f"A matrix of type {name} cannot be corrected. Possible are numpy.ndarray, "
        "SciPy CSR and CSC matrices, Dask arrays of these, CuPy arrays and CSR "
        "matrices, torch tensors and other arrays that follow the array API standard; "
        "convert to one of them."
    )
    return InputError(msg)


class Sums(NamedTuple):
    """What one read of a matrix gathers.

    Attributes
    ----------
    mean, squares
        x̄ and Σ(x - x̄)² of each cell: (C, G). The second is 0 for, and only for, cells
        of one value.
    cross
        Σ slope (x - x̄) of each batch: (B, q, G).
    """

    mean: Array
    squares: Array
    cross: Array


class Maps(NamedTuple):
    """A correction as the passes apply it: scale x + shift + slopes tilt.

    Attributes
    ----------
    scale
        r of each batch: (B, G).
    shift
        s of each cell, flat columns included: (C, G).
    slopes
        The sloped columns: (n, q).
    tilt
        What a unit of each sloped column adds, by batch: (B, q, G).
    """

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    slopes: NDArray[np.float64]
    tilt: NDArray[np.float64]


@operation
def sums(x: Matrix, cells: Cells, slopes: NDArray[np.float64]) -> Sums:
    """Gather first and second moments per cell, and products with the slopes.

    Parameters
    ----------
    x
        Matrix, (n, G).
    cells
        The groups of rows.
    slopes
        Columns that vary inside cells, centred within batches: (n, q).
    """
    raise unknown_kind(x)


@operation
def sums_by_feature(
    x: Matrix, design: Design, weights: NDArray[np.float64] | None
) -> Moments:
    """Gather moments feature by feature: values may be missing or weighted."""
    raise unknown_kind(x)


@operation
def has_infinite(x: Matrix) -> bool:
    """Whether any value is infinite."""
    raise unknown_kind(x)


@operation
def affine(x: Matrix, cells: Cells, maps: Maps, out: Matrix | None) -> Matrix:
    """Write the corrected values: into `out`, which may be `x`, or a new dense matrix."""
    raise unknown_kind(x)
