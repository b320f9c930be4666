"""What arrays and numbers of a saved state must be, checked where they are read."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Expected", "number"]


class Expected(NamedTuple):
    """What an array in a file must be.

    Attributes
    ----------
    shape
        Its shape.
    kinds
        The kinds of number it may hold, as NumPy's `dtype.kind`: "f" (of 64 bits), "b",
        "i".
    finite
        Whether no value may be missing or infinite.
    positive
        Whether all values must be above 0.
    least
        No value may be under it.
    """

    shape: tuple[int, ...]
    kinds: str = "f"
    finite: bool = True
    positive: bool = False
    least: float | None = None

    def check_head(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Refuse an array of another shape or kind, before its values are read."""
        narrow = dtype.kind == "f" and dtype.itemsize != 8
        if shape != self.shape or dtype.kind not in self.kinds or narrow:
            msg = f"{name} is {dtype} of shape {shape}, and not of shape {self.shape}."
            raise InputError(msg)

    def check_values(self, name: str, values: NDArray[Any]) -> None:
        """Refuse values that cannot be."""
        if self.finite and not np.isfinite(values).all():
            msg = f"{name} holds missing or infinite values."
            raise InputError(msg)
        if self.positive and not (values > 0).all():
            msg = f"{name} holds values that are not above 0."
            raise InputError(msg)
        if self.least is not None and not (values >= self.least).all():
            msg = f"{name} holds values under {self.least:g}."
            raise InputError(msg)


def number(
    header: Mapping[str, Any], name: str, *, above: float | None = None
) -> float:
    """A finite number of a header."""
    value = header[name]
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not isfinite(value) or (above is not None and value <= above):
        more = "" if above is None else f" above {above:g}"
        msg = f"{name} is {value!r:.40}, and not a number{more}."
        raise InputError(msg)
    return float(value)
