"""Whether a file that is read more than once is the same file each time."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from batchcorr.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Version"]


class Version(NamedTuple):
    """A file, or a folder with all in it, as the system described it once.

    Attributes
    ----------
    path
        The file or folder.
    digest
        Of size, time of change and inode of each file.
    """

    path: Path
    digest: bytes

    @classmethod
    def of(cls, path: Path) -> Version:
        """The version that is there now."""
        if not path.exists():
            msg = f"There is no file {path}."
            raise FileError(msg)
        return cls(path, _digest(path))

    def require_same(self) -> None:
        """Refuse a file that was written to, replaced or deleted since."""
        if not self.path.exists() or _digest(self.path) != self.digest:
            msg = (
                f"{self.path} changed while it was read, so that the correction may "
                "not fit its values: run this again when nothing writes to the file."
            )
            raise FileError(msg)


def _digest(path: Path) -> bytes:
    digest = blake2b()
    for file in _files(path):
        try:
            found = file.stat()
        except FileNotFoundError:  # deleted since its folder was listed
            continue
        line = (str(file), found.st_size, found.st_mtime_ns, found.st_ino)
        digest.update(repr(line).encode())
    return digest.digest()


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or those of a folder in an order that stays."""
    if not path.is_dir():
        yield path
        return
    for inner in sorted(path.iterdir()):
        yield from _files(inner)
