"""Small states on disk: plain arrays and one JSON header in an .npz file, no pickle.

A file is not trusted. Its header is read first; an array is read when it is asked for,
once the directory of the file and the array's own head say that it is what is expected,
and then its values are checked. What nobody asks for is never unpacked.
"""

from __future__ import annotations

import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite, prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.lib import format as npy

from batchcorr._files.atomic import replacing
from batchcorr.errors import FileError, InputError

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from batchcorr._files.expected import Expected

__all__ = ["Arrays", "reading", "require_version", "shape_of", "take", "write"]

LARGEST_HEADER = 1 << 28
LARGEST = 1 << 33
"""Bytes of an array at most, unless whoever reads says otherwise."""

DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    MemoryError,
    TypeError,
    EOFError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # zipfile: encrypted, or compressed in an unknown way
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class Arrays(Mapping[str, "NDArray[Any]"]):
    """The arrays of an open file by name, each read when it is asked for."""

    def __init__(self, file: zipfile.ZipFile, largest: int) -> None:
        self._file, self._largest = file, largest
        names = (name for name in file.namelist() if name.endswith(".npy"))
        self._members = {n.removesuffix(".npy"): file.getinfo(n) for n in names}
        self._members.pop("header", None)

    def under(self, prefix: str) -> Arrays:
        """The arrays whose names begin so, by the rest of their names."""
        part = Arrays(self._file, self._largest)
        part._members = {
            name.removeprefix(prefix): member
            for name, member in self._members.items()
            if name.startswith(prefix)
        }
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members  # Mapping would read it

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.read(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, which is not read."""
        with self._file.open(self._members[name]) as stream:
            return _head(stream)[0]

    def read(self, name: str, expected: Expected | None = None) -> NDArray[Any]:
        """An array, whose head is checked before it takes memory."""
        member = self._members[name]
        with self._file.open(member) as stream:
            shape, dtype = _head(stream)
            if expected is not None:
                expected.check_head(name, shape, dtype)
            size = prod(shape) * dtype.itemsize
            if size > self._largest:
                msg = f"{name} takes {size / 2**30:.1f} GiB, which is too much to read."
                raise InputError(msg)
            if stream.tell() + size != member.file_size:
                msg = f"{name} is shorter or longer than its header says."
                raise InputError(msg)
        with self._file.open(member) as stream:
            values = npy.read_array(stream, allow_pickle=False)
            stream.read(1)  # past the end, where the checksum is looked at
        return values


def shape_of(arrays: Mapping[str, NDArray[np.generic]], name: str) -> tuple[int, ...]:
    """The shape of an array; of one in a file without reading it."""
    if name not in arrays:
        msg = f"{name} is missing."
        raise InputError(msg)
    return arrays.shape(name) if isinstance(arrays, Arrays) else arrays[name].shape


def take(
    arrays: Mapping[str, NDArray[np.generic]], expected: Mapping[str, Expected]
) -> dict[str, NDArray[Any]]:
    """The arrays that are expected, each checked; others are not looked at.

    Raises
    ------
    InputError
        Names an array that is missing or damaged, and what is wrong with it.
    """
    found = {}
    for name, wanted in expected.items():
        if name not in arrays:
            msg = f"{name} is missing."
            raise InputError(msg)
        if isinstance(arrays, Arrays):
            values = arrays.read(name, wanted)
        else:
            values = arrays[name]
            wanted.check_head(name, values.shape, values.dtype)
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        wanted.check_values(name, values)
        found[name] = values.reshape(wanted.shape)
    return found


def write(
    path: str | PathLike[str],
    header: Mapping[str, object],
    arrays: Mapping[str, object],
) -> None:
    """Write a header and arrays; the file is complete or not there."""
    contents: dict[str, Any] = {"header": np.array(json.dumps(header)), **arrays}
    with replacing(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **contents)


@contextmanager
def reading(
    path: str | PathLike[str], otherwise: str, largest: int = LARGEST
) -> Iterator[tuple[dict[str, Any], Arrays]]:
    """Give the header and the arrays of a file, to be made sense of in the block.

    Parameters
    ----------
    otherwise
        What to say if it holds something else, which may also show in the block: an
        `InputError` there is added to it.

    Raises
    ------
    FileError
        If there is no such file, or it holds something else.
    """
    try:
        with Path(path).open("rb") as stream, zipfile.ZipFile(stream) as file:
            yield _header(file), Arrays(file, largest)
    except FileNotFoundError as error:
        msg = f"There is no file {path}."
        raise FileError(msg) from error
    except FileError:
        raise
    except InputError as error:
        msg = f"{otherwise} Cause: {error}"
        raise FileError(msg) from error
    except DAMAGE as error:
        raise FileError(otherwise) from error


def require_version(
    path: str | PathLike[str], what: str, found: object, newest: int
) -> None:
    """Refuse a file whose `what` is another than what this package reads.

    Raises
    ------
    FileError
        If a newer package wrote it.
    InputError
        If it is no such number.
    """
    if type(found) is int and found > newest:
        msg = (
            f"{path} was saved by a newer batchcorr ({what} {found}; this one reads up "
            f"to {newest}): update the package."
        )
        raise FileError(msg)
    if type(found) is not int or found != newest:
        msg = f"{what} is {found!r:.40}, and not {newest}."
        raise InputError(msg)


def _header(file: zipfile.ZipFile) -> dict[str, Any]:
    """The header, of numbers that are finite."""
    member = file.getinfo("header.npy")
    if member.file_size > LARGEST_HEADER:
        msg = f"its header has {member.file_size:,} bytes."
        raise InputError(msg)
    with file.open(member) as stream:
        shape, dtype = _head(stream)
        if shape != () or dtype.kind != "U" or dtype.itemsize > member.file_size:
            msg = "its header is not text."
            raise InputError(msg)
    with file.open(member) as stream:
        text = str(npy.read_array(stream, allow_pickle=False))
    header = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    if not isinstance(header, dict):
        msg = "its header is not a JSON object."
        raise InputError(msg)
    return header


def _head(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array whose values follow."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _refuse(text: str) -> NoReturn:
    msg = f"its header holds {text}."
    raise InputError(msg)


def _finite(text: str) -> float:
    value = float(text)
    return value if isfinite(value) else _refuse(text)
