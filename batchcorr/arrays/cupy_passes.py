"""CuPy matrices, dense and CSR: both passes by CUDA kernels, on the device.

The kernels are `cupy_kernels.cu`, compiled for the device when first used; what they are
given is decided in `cupy_kernels`. Matrices stay on the device and results are theirs.
What is as small as (B, G) comes to the CPU as NumPy arrays, because it is tiny beside
the matrix, and so `models` estimates exactly what it does for any other matrix.

Missing or weighted values take the sums of `generic`, in CuPy's own operations: the
twins of these kernels, in which they are checked.
"""

from __future__ import annotations

from abc import ABC
from functools import cache
from typing import TYPE_CHECKING, Any

from batchcorr.arrays import cupy_kernels
from batchcorr.arrays.array_api import standard_has_infinite, standard_sums_by_feature
from batchcorr.arrays.operations import (
    Sums,
    affine,
    has_infinite,
    sums,
    sums_by_feature,
)
from batchcorr.arrays.scipy_passes import refuse_missing
from batchcorr.models.namespace import Array, packages_of, to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchcorr.models.moments import Moments
    from batchcorr.models.namespace import Matrix

__all__ = ["CupyArray", "CupyRows"]

OPTIONS = ("--std=c++11", "--fmad=false")
"""Every product is rounded before it is added, as on the CPU: the same bits."""


class CupyArray(ABC):  # noqa: B024 - only ever asked, never inherited
    """Any `cupy.ndarray`, without CuPy being there."""

    @classmethod
    def __subclasshook__(cls, kind: type) -> bool:
        """Whether a type is one."""
        return "cupy" in packages_of(kind) and hasattr(kind, "strides")


class CupyRows(ABC):  # noqa: B024 - only ever asked, never inherited
    """Any CSR matrix of `cupyx.scipy.sparse`, without CuPy being there."""

    @classmethod
    def __subclasshook__(cls, kind: type) -> bool:
        """Whether a type is one."""
        return "cupyx" in packages_of(kind) and getattr(kind, "format", "") == "csr"


@cache
def _module(real: str, index: str) -> Any:
    import cupy

    types = (f"-DREAL={real}", f"-DINDEX={index}")
    source = cupy_kernels.SOURCE.read_text("utf-8")
    return cupy.RawModule(code=source, options=(*OPTIONS, *types))


def _launch(
    name: str, types: tuple[str, str], grid: object, block: object, args: object
) -> None:
    _module(*types).get_function(name)(grid, block, args)


def _on_its_device(work: Callable[..., Any], x: Matrix, *given: object) -> Any:
    """Do the work of a pass on the device that holds x, which may be one of several."""
    import cupy

    with x.data.device:
        return work(cupy_kernels.Device(cupy, _launch), x, *given)


@sums.register(CupyArray)
def _sums(x: Array, *given: object) -> Sums:
    return Sums(*map(to_numpy, _on_its_device(cupy_kernels.dense_sums, x, *given)))


@sums.register(CupyRows)
def _csr_sums(x: Matrix, *given: object) -> Sums:
    return Sums(*map(to_numpy, _on_its_device(cupy_kernels.csr_sums, x, *given)))


@affine.register(CupyArray)
def _affine(x: Array, *given: object) -> Array:
    return _on_its_device(cupy_kernels.dense_affine, x, *given)


@affine.register(CupyRows)
def _csr_affine(x: Matrix, *given: object) -> Array:
    return _on_its_device(cupy_kernels.csr_affine, x, *given)


@sums_by_feature.register(CupyRows)
def _csr_by_feature(x: Matrix, *given: object) -> Moments:
    refuse_missing(x.data)
    found: Moments = sums_by_feature(x.toarray(), *given)
    return found


@has_infinite.register(CupyRows)
def _csr_has_infinite(x: Matrix) -> bool:
    found: bool = has_infinite(x.data[:, None])
    return found


sums_by_feature.register(CupyArray, standard_sums_by_feature)
has_infinite.register(CupyArray, standard_has_infinite)
