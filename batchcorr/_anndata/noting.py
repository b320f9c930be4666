"""Warnings noted for the record and given on; work that is not left half done."""

from __future__ import annotations

import signal
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchcorr.errors import BatchCorrWarning, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Noting", "uninterrupted"]


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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done: a matrix and its record belong together.

    Elsewhere than in the main thread Python interrupts nobody, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
