"""Small states on disk: plain arrays and one JSON header in an .npz file, no pickle."""

from __future__ import annotations

import json
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files.atomic import replacing
from batchcorr.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

__all__ = ["reading", "write"]

DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    AttributeError,
    RuntimeError,  # zipfile: encrypted, or compressed in an unknown way
    zipfile.BadZipFile,
    zlib.error,
)


def write(
    path: str | PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write a header and arrays; the file is complete or not there."""
    contents: dict[str, Any] = {"header": np.array(json.dumps(header)), **arrays}
    with replacing(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **contents)


@contextmanager
def reading(
    path: str | PathLike[str], otherwise: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give the header and the arrays of a file, to be made sense of in the block.

    Raises
    ------
    FileError
        If there is no such file; saying `otherwise` if it holds something else, which
        may also show in the block.
    """
    try:
        with (
            Path(path).open("rb") as stream,
            np.load(stream, allow_pickle=False) as file,
        ):
            arrays = {name: file[name] for name in file.files}
        yield json.loads(str(arrays.pop("header"))), arrays
    except FileNotFoundError as error:
        msg = f"There is no file {path}."
        raise FileError(msg) from error
    except FileError:
        raise
    except DAMAGE as error:
        raise FileError(otherwise) from error
