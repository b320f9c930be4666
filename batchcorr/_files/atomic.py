"""Write files so that a reader finds the old one or the whole new one, never a half."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from batchcorr._files.interrupts import uninterrupted
from batchcorr._files.leftovers import OLD, clean, delete
from batchcorr.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replacing", "replacing_folder"]


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside `target` to write to; rename it to `target` when complete.

    Whatever ends the block early, an error or Ctrl-C, leaves no file behind and the
    target as it was. A link stays a link: the file it points to is replaced. A file
    that was there passes its permissions on. What is written is on the disk before it
    takes the target's name. What a killed process left there is deleted.

    Raises
    ------
    FileError
        If nothing can be written beside the target.
    """
    target = Path(target).resolve()
    if target.is_dir():
        msg = f"{target} is a folder: give the name of a file to write."
        raise FileError(msg)
    part = _beside(target)
    try:
        with _refusing(target):
            part.touch(0o600, exist_ok=False)
        yield part
        part.chmod(_mode(target, 0o666))
        _flush(part)
        part.replace(target)
        _flush(target.parent)
    finally:
        delete(part)


@contextmanager
def replacing_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill; rename it to `target` at the end.

    As `replacing`; but a folder cannot take another's place in one step. What was there
    is moved aside first, moved back if the new one does not come, and else deleted.
    """
    target = Path(target).resolve()
    part = _beside(target)
    old = part.with_name(f"{part.name}{OLD}")
    try:
        with _refusing(target):
            part.mkdir(0o700)
        yield part
        part.chmod(_mode(target, 0o777))
        for path in (*part.rglob("*"), part):
            _flush(path)
        with uninterrupted():
            if os.path.lexists(target):
                target.rename(old)
            part.rename(target)
            _flush(target.parent)
            delete(old)
    finally:
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        delete(part)
        delete(old)


def _beside(target: Path) -> Path:
    """A new name beside `target`, known before anything has it: Ctrl-C may come."""
    return target.with_name(f"{clean(target)}{token_hex(4)}{target.suffix}")


@contextmanager
def _refusing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        msg = (
            f"{target} cannot be written: {why}. Choose a folder with write permission."
        )
        raise FileError(msg) from error


def _mode(target: Path, usual: int) -> int:
    """The permissions of what is there, or else those of anything new."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return usual & ~mask


def _flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder, on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
