"""What a library says of a file that it cannot read, in one sentence."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchcorr.errors import BatchCorrError, FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["reading_or", "said_by"]


@contextmanager
def reading_or(message: str) -> Iterator[None]:
    """Say `message` of a file, and what was said in the block, where that cannot read it.

    Raises
    ------
    FileError
        For every error but the package's own, and want of memory.
    """
    try:
        yield
    except (BatchCorrError, MemoryError):
        raise
    except Exception as error:
        msg = f"{message} ({said_by(error)})."
        raise FileError(msg) from error


def said_by(error: BaseException) -> str:
    """The kind of an error and its first line."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}"
