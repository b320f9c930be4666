"""Matrices in files, for Dask: its workers read the blocks, and write them too.

The workers open the files themselves: what they run on must see the same folders.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from batchcorr._files.damage import said_by
from batchcorr.errors import BatchCorrError, InputError
from batchcorr.outofcore.stored_matrix import StoredMatrix, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchcorr.models.namespace import Matrix

__all__ = ["as_dask", "scheduled", "write_array", "write_store"]


HERE = ("threads", "processes")
"""Dask's schedulers on this machine, which need no address."""


@contextmanager
def scheduled(scheduler: str | None) -> Iterator[int]:
    """Have Dask work where it is told to; give the number of its threads.

    Raises
    ------
    InputError
        If there is no Dask, or the scheduler is not there or gets lost.
    """
    try:
        dask = import_module("dask")
        distributed = None if scheduler in HERE else import_module("distributed")
    except ImportError as error:
        msg = "--scheduler needs Dask: pip install 'batchcorr[dask]'."
        raise InputError(msg) from error
    if distributed is None:
        with dask.config.set(scheduler=scheduler):
            yield int(import_module("dask.system").CPU_COUNT)
        return
    logger = logging.getLogger("distributed.client")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL + 1)  # what it says, the error below says too
        with distributed.Client(scheduler, timeout="10s") as client:
            yield max(1, sum(client.nthreads().values()))
    except (BatchCorrError, MemoryError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) is not None:  # of a file, not of Dask
            raise
        msg = (
            f"The Dask scheduler {scheduler} cannot be reached, was lost during the "
            "run, or has workers without batchcorr or without access to the files "
            f"({said_by(error)})."
        )
        raise InputError(msg) from error
    finally:
        logger.setLevel(level)


def as_dask(x: StoredMatrix, slices: list[slice]) -> Matrix:
    """Return a Dask array whose tasks read the file, wherever they run."""
    dask, da = import_module("dask"), import_module("dask.array")
    read = dask.delayed(read_rows, pure=False)
    through = dask.delayed(x.through, pure=False, traverse=False)
    path = str(x.path.resolve())
    empty = np.empty((0, 0), dtype=x.dtype)
    meta = sp.csr_matrix(empty) if x.sparse else empty
    blocks = [
        da.from_delayed(
            read(path, x.name, through, rows.start, rows.stop),
            shape=(rows.stop - rows.start, x.shape[1]),
            meta=meta,
        )
        for rows in slices
    ]
    return da.concatenate(blocks, axis=0)


def write_store(
    corrected: Matrix, slices: list[slice], target: Path, name: str
) -> None:
    """Have the workers write the blocks of a Dask array into a zarr store.

    The blocks end where chunks end, so that nobody writes to the same chunk; a block
    that is written again, because its worker was lost, is the same.
    """
    dask = import_module("dask")
    put = dask.delayed(_write_rows, pure=False)
    blocks = corrected.to_delayed().ravel()
    path = str(target.resolve())
    dask.compute(
        *(
            put(path, name, rows.start, rows.stop, block)
            for rows, block in zip(slices, blocks, strict=True)
        )
    )


def write_array(
    corrected: Matrix, slices: list[slice], made: Matrix, workers: int
) -> None:
    """Write the blocks of a Dask array here, as many at a time as there are workers."""
    dask = import_module("dask")
    blocks = corrected.to_delayed().ravel()
    for k in range(0, len(slices), workers):
        done = dask.compute(*blocks[k : k + workers])
        for rows, block in zip(slices[k : k + workers], done, strict=True):
            made[rows] = block


def _write_rows(path: str, name: str, start: int, stop: int, block: Matrix) -> None:
    zarr: Any = import_module("zarr")
    zarr.open_group(path, mode="r+")[name][start:stop] = block
