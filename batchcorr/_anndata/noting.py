"""Warnings noted for the record and given on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from batchcorr.errors import BatchCorrWarning, warn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Noting"]


class Noting:
    """Call functions and note the warnings they give, then give them to the caller."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return what the function returns."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = function(*args, **options)
        for warning in caught:
            self.texts.append(f"{warning.category.__name__}: {warning.message}")
        for warning in caught:
            if issubclass(warning.category, BatchCorrWarning):
                warn(str(warning.message), warning.category)
            else:
                warnings.warn_explicit(
                    str(warning.message),
                    warning.category,
                    warning.filename,
                    warning.lineno,
                )
        return result
