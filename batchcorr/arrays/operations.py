"""The few verbs a kind of matrix has to know, and where each kind's room is.

A verb is dispatched on the type of the matrix. The first matrix of a library brings
that library's room in, which registers the verbs: so nothing absent is ever imported.
A new kind of matrix is one file beside this one and its line in `ROOMS`.
"""

from __future__ import annotations

from functools import singledispatch, update_wrapper
from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchcorr.errors import InputError
from batchcorr.models.namespace import libraries

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from batchcorr.arrays.cells import Cells
    from batchcorr.models.moments import Moments

__all__ = ["affine", "has_infinite", "sums", "sums_by_feature", "verb"]

ROOMS = {
    "array_api_strict": ["generic"],
    "cupy": ["gpu"],
    "cupyx": ["gpu"],
    "dask": ["dask_passes", "dask_counts", "dask_products", "dask_differing"],
    "numpy": ["dense"],
    "scipy": ["sparse", "sparse_products"],
    "torch": ["generic"],
}
"""Library a matrix's type is defined in: the files that know it."""


def verb(default: Callable[..., Any]) -> Any:
    """Make a verb: dispatched on its first argument, rooms brought in when needed."""

    def find(x: Any, *args: Any, **kwargs: Any) -> Any:
        for parent in type(x).__mro__:
            room = ROOMS.get(parent.__module__.partition(".")[0])
            if room is not None:
                for name in room:
                    import_module(f"batchcorr.arrays.{name}")
                break
        function = dispatcher.dispatch(type(x))
        if function is find:
            return default(x, *args, **kwargs)
        return function(x, *args, **kwargs)

    update_wrapper(find, default)
    dispatcher = singledispatch(find)
    return dispatcher


def _unknown(x: Any) -> InputError:
    name = f"{type(x).__module__}.{type(x).__qualname__}"
    if libraries(type(x)) & ROOMS.keys():
        msg = (
            f"This is not done for a matrix of type {name}: convert it to a NumPy array "
            "or a SciPy CSR or CSC matrix."
        )
        return InputError(msg)
    msg = (
        f"A matrix of type {name} is not a kind "
        "that can be corrected. Known are numpy.ndarray, SciPy CSR and CSC matrices, "
        "Dask arrays of these, CuPy arrays and CSR matrices, torch tensors and other "
        "arrays that follow the array API standard; convert to one of them."
    )
    return InputError(msg)


@verb
def sums(
    x: Any, cells: Cells, slopes: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Gather first and second moments per cell, and products with the slopes.

    Parameters
    ----------
    x
        Matrix, (n, G).
    cells
        The groups of rows.
    slopes
        Columns that vary inside cells, centred within batches: (n, q).

    Returns
    -------
    mean, squares
        x̄ and Σ(x - x̄)² of each cell: (C, G). The second is 0 for, and only for, cells
        of one value.
    cross
        Σ slope (x - x̄) of each batch: (B, q, G).
    """
    raise _unknown(x)


@verb
def sums_by_feature(
    x: Any,
    codes: NDArray[Any],
    n_batches: int,
    columns: NDArray[Any],
    weights: NDArray[Any] | None,
) -> Moments:
    """Gather moments feature by feature: values may be missing or weighted."""
    raise _unknown(x)


@verb
def has_infinite(x: Any) -> bool:
    """Whether any value is infinite."""
    raise _unknown(x)


@verb
def affine(
    x: Any,
    cells: Cells,
    scale: NDArray[Any],
    shift: NDArray[Any],
    slopes: NDArray[Any],
    tilt: NDArray[Any],
    out: Any,
) -> Any:
    """Write scale x + shift + slopes tilt: shift per cell, scale and tilt per batch.

    `out` is a matrix to write to (it may be `x`), or None for a new dense one.
    """
    raise _unknown(x)
