"""Arrays and names as the page holds them: few bytes, as text that JSON can carry.

An array is cut to one or two bytes a value, deflated, and written in base64. The page
inflates it by `DecompressionStream`, which browsers have since 2023.
"""

from __future__ import annotations

import base64
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["clean", "cut", "packed_codes", "packed_names", "packed_numbers"]

LONGEST = 80
"""Characters of a name that are shown."""

CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that turn the direction of text, or are none."""

STEPS = 65534
"""Two bytes hold so many steps between the least and the largest number; and 65535."""


def clean(text: object) -> str:
    """Text without characters that would turn or break what stands beside it."""
    return CONTROLS.sub("\ufffd", str(text))


def cut(text: object) -> str:
    """The beginning of a long name."""
    whole = clean(text)
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 1]}…"


def pack(data: bytes) -> str:
    """Bytes, deflated, as text."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def packed_names(names: Iterable[object]) -> str:
    """Names, a line each."""
    lines = "\n".join(cut(name).replace("\n", " ") for name in names)
    return pack(lines.encode("utf-8"))


def packed_codes(codes: NDArray[np.integer], n_levels: int) -> dict[str, Any]:
    """Positions of levels; the largest number stands for a missing one."""
    kind = np.uint8 if n_levels < 255 else np.uint16
    missing = np.iinfo(kind).max
    values = np.where(codes < 0, kind(missing), codes.astype(kind))
    return {"bytes": values.itemsize, "data": pack(values.tobytes())}


def packed_numbers(values: ArrayLike) -> dict[str, Any]:
    """Numbers in steps from the least to the largest; what is not finite is missing."""
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    least = float(numbers[finite].min()) if finite.any() else 0.0
    largest = float(numbers[finite].max()) if finite.any() else 0.0
    width = largest - least or 1.0
    steps = np.full(len(numbers), 65535, dtype="<u2")
    steps[finite] = np.rint((numbers[finite] / width - least / width) * STEPS)
    return {"bytes": 2, "data": pack(steps.tobytes()), "min": least, "max": largest}
