"""New HDF5 files that tell at once that they cannot be written, and close in peace.

HDF5 keeps small writes back until an array is closed, where an error is lost, and on a
full disk a file that cannot be closed takes the process down when it ends. So nothing
is kept back here; and once writing has failed, what HDF5 still has to write goes into
a file that nobody sees.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["new_hdf5"]


@contextmanager
def new_hdf5(path: Path) -> Iterator[Any]:
    """Give a new HDF5 file; an error of writing is raised where it happens."""
    import h5py

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    access.set_sieve_buf_size(0)
    metadata, slots, _, preemption = access.get_cache()
    access.set_cache(metadata, slots, 0, preemption)  # no chunks are kept back
    made = h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, fapl=access)
    with h5py.File(made) as file:
        try:
            yield file
            file.flush()
        except BaseException:
            _divert(file)
            raise


def _divert(file: Any) -> None:
    """Have the rest of a file written elsewhere: to memory, or a nameless file."""
    if hasattr(os, "memfd_create"):
        elsewhere = os.memfd_create("rest")
    else:
        with tempfile.TemporaryFile() as nameless:
            elsewhere = os.dup(nameless.fileno())
    os.dup2(elsewhere, file.id.get_vfd_handle(), inheritable=False)
    os.close(elsewhere)
