"""Write files so that a reader finds the old one or the whole new one, never a half."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchcorr.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replacing"]


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside `target` to write to; rename it to `target` when complete.

    Whatever ends the block early, an error or Ctrl-C, leaves no file behind and the
    target as it was.

    Raises
    ------
    FileError
        If nothing can be written beside the target.
    """
    target = Path(target)
    if target.is_dir():
        msg = f"{target} is a folder: give the name of a file to write."
        raise FileError(msg)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
        )
    except OSError as error:
        why = error.strerror or str(error)
        msg = f"{target} cannot be written: {why}. Choose a folder you may write to."
        raise FileError(msg) from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        os.chmod(part, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp makes files private
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
