"""From file to file: correct a matrix that is larger than memory, block by block.

Everything but the matrices is small and is read as it is. The matrix is read twice,
once to learn and once to write its corrected blocks into a new file; other matrices are
copied piece by piece. With a Dask scheduler its workers do the reading, the sums and
the correcting, and the writing too where a store can be written by many.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from batchcorr._anndata import records
from batchcorr._anndata.fit import fit_matrix, make_estimator
from batchcorr._anndata.labels import read_labels
from batchcorr._files.chunks import require_whole_chunks
from batchcorr._files.version import Version
from batchcorr.arrays import apply
from batchcorr.errors import (
    BatchCorrError,
    FileError,
    InputError,
    MissingKeyError,
    TooLargeError,
    collected,
    did_you_mean,
)
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.estimators.scale import warn_if_unlogged
from batchcorr.outofcore.copying import copy_element, create_dense, create_file
from batchcorr.outofcore.dask_blocks import as_dask, scheduled, write_array, write_store
from batchcorr.outofcore.log_normalize import take_logs
from batchcorr.outofcore.stored_matrix import StoredMatrix, most_bytes, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData

    from batchcorr._anndata.labels import ObsLabels
    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.location_scale import LocationScaleMethod

__all__ = ["FileCorrection", "learn"]

LARGEST = 192 << 20
"""Bytes of a block, if chunks allow: larger ones are not faster."""


@dataclass(frozen=True)
class FileCorrection:
    """A correction learned from a file, to be written with the corrected matrix.

    Attributes
    ----------
    adata
        Everything of the file but its matrices, and the record of the correction.
    """

    adata: AnnData
    _file: Any
    _version: Version
    _x: StoredMatrix
    _estimator: LocationScaleMethod
    _labels: ObsLabels
    _result: str
    _scheduler: str | None

    def write(self, target: Path, *, compress: bool = False) -> None:
        """Write a new file: the corrected matrix, and all else of the source.

        Parameters
        ----------
        target
            An empty file or folder; whoever calls puts it in place when it is whole.
        compress
            Whether an .h5ad file is written with gzip where the source has none.

        Raises
        ------
        FileError
            If the source changed since it was opened: nothing fits together then.
        """
        from anndata.io import write_elem

        self._version.require_same()

        like = None if self._x.sparse else self._x.node
        with create_file(target, self._file) as new:
            for key in self._file:
                if key not in {"obs", "uns"}:
                    copy_element(self._file[key], new, key, leave_out=self._result)
            if "layers" not in new:
                write_elem(new, "layers", {})
            write_elem(new, "obs", self.adata.obs)
            write_elem(new, "uns", dict(self.adata.uns))
            first = self._x.slices(dense=True)[0]
            made = create_dense(
                new,
                self._result,
                self._x.shape,
                self._x.dtype,
                like,
                tallest=first.stop,
                compress=compress,
            )
            chunks = getattr(made, "shards", None) or made.chunks
            slices = self._x.slices(dense=True, unit=chunks[0] if chunks else 1)
            if self._scheduler is None:
                self._write_here(made, slices)
            else:
                self._write_there(made, slices, target)
        self._version.require_same()

    def _write_here(self, made: Any, slices: list[slice]) -> None:
        x, correction = self._x, self._estimator.correction_
        design = self._estimator.design_of(x.shape[0], self._labels.given)
        for rows, block in x.blocks(slices):
            out = None if x.sparse else block
            made[rows] = apply(block, design.take(rows), correction, out=out)

    def _write_there(self, made: Any, slices: list[slice], target: Path) -> None:
        with scheduled(self._scheduler) as workers:
            corrected = self._estimator.apply(
                as_dask(self._x, slices), self._labels.given, dense=True
            )
            if target.suffix.lower() == ".zarr":
                write_store(corrected, slices, target, self._result)
            else:
                write_array(corrected, slices, made, workers)

    def close(self) -> None:
        """Close the source."""
        _close(self._file)


def learn(
    source: Path,
    batch_key: str | Sequence[str] | None,
    *,
    memory: int,
    method: str = "combat",
    covariates: Any = None,
    nuisance: Any = None,
    layer: str | None = None,
    key_added: str | None = None,
    dense: bool | None = None,
    scheduler: str | None = None,
    log_normalize: bool = False,
    **parameters: Any,
) -> FileCorrection:
    """Learn a correction from a file in one read, within a bound of memory.

    Parameters
    ----------
    source
        The file: .h5ad or .zarr.
    batch_key, method, covariates, nuisance, layer, key_added, **parameters
        As in `pp.correct`.
    memory
        Bytes that this process may take; with a scheduler, each of its workers.
    dense
        Whether a sparse matrix may be written as a dense one; None: if that would fit
        into `memory`.
    scheduler
        Address of a Dask scheduler, "threads" or "processes"; None: no Dask.
    log_normalize
        Take the logarithms of counts first, as `pp.log_normalize` does: one more read.

    Returns
    -------
    What is needed to write the corrected file.

    Raises
    ------
    FileError, TooLargeError
        If the file is damaged, if memory is too little or dense was not asked for.
    """
    with ExitStack() as stack, collected() as texts:
        version = Version.of(source)
        file = _open(source)
        stack.callback(_close, file)
        adata = _read_small(source, file)
        x = _find(source, file, layer, memory, scheduler)
        earlier = records.steps_of(adata, layer, x)
        records.warn_if_repeated(earlier, layer, kept=bool(key_added))
        labels = read_labels(adata, batch_key, covariates, nuisance)
        estimator = make_estimator(method, parameters, labels.formula)
        if not fits_moments(estimator):
            msg = f"{method} needs the whole matrix in memory: leave out --memory."
            raise InputError(msg)
        if x.sparse and not dense and (dense is False or _dense_size(x) > memory):
            _refuse_dense(x)
        if log_normalize:
            n_texts = len(texts)
            x, earlier = take_logs(
                x, adata, layer, key_added, earlier=earlier, scheduler=scheduler
            )
            del texts[n_texts:]  # they are in the record of that step
            layer = key_added or layer
        warn_if_unlogged(x.head(), type(estimator).__name__)
        _fit(x, adata, estimator, labels, scheduler)
        record = records.make(adata, estimator, labels.keys, layer, earlier)
        record = records.finish(record, texts)
        records.write(adata, records.key_of(key_added or layer), record)
        stack.pop_all()
    result = f"layers/{key_added}" if key_added else x.name
    return FileCorrection(adata, file, version, x, estimator, labels, result, scheduler)


def _find(
    source: Path, file: Any, layer: str | None, memory: int, scheduler: str | None
) -> StoredMatrix:
    """Return the matrix to correct, in blocks that suit the memory."""
    name = "X" if layer is None else f"layers/{layer}"
    if name not in file:
        names = list(file["layers"].keys()) if "layers" in file else []
        what = "There is no X" if layer is None else f"There is no layer {layer!r}"
        msg = f"{what} in {source}. {did_you_mean(layer or '', names)}"
        raise MissingKeyError(msg)
    shared = 1
    if scheduler is not None:
        with scheduled(scheduler) as workers:
            shared = workers if scheduler == "threads" else 1
    most = most_bytes(memory, shared)
    least = min(most, LARGEST)
    return StoredMatrix(source, name, file, block_bytes=least, most_bytes=most)


def _dense_size(x: StoredMatrix) -> int:
    """Bytes of the corrected matrix."""
    return int(x.shape[0] * x.shape[1] * x.dtype.itemsize)


def _refuse_dense(x: StoredMatrix) -> NoReturn:
    size = _dense_size(x) / 2**30
    msg = (
        f"The corrected matrix is dense (corrected zeros are not zero): {x.shape[0]:,} "
        f"× {x.shape[1]:,} values take {size:.1f} GiB in the file. dense=True writes it."
    )
    raise TooLargeError(msg)


def _open(source: Path) -> Any:
    with _reading(source):
        file = open_file(source)
        if source.suffix.lower() == ".zarr":
            require_whole_chunks(source, file)
    return file


def _read_small(source: Path, file: Any) -> AnnData:
    """Read everything of a file that is not a matrix."""
    from anndata import AnnData
    from anndata.io import read_elem

    with _reading(source):
        names = ["obs", "var", *(["uns"] if "uns" in file else [])]
        found = {name: read_elem(file[name]) for name in names}
        return AnnData(**found)


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    try:
        yield
    except (BatchCorrError, MemoryError):
        raise
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), "")
        msg = (
            f"{source} cannot be read: it holds no AnnData, or it is damaged or "
            f"incomplete ({type(error).__name__}: {line})."
        )
        raise FileError(msg) from error


def _close(file: Any) -> None:
    if hasattr(file, "close"):
        file.close()


def _fit(
    x: StoredMatrix,
    adata: AnnData,
    estimator: Corrector,
    labels: ObsLabels,
    scheduler: str | None,
) -> None:
    names = adata.var_names
    if scheduler is None:
        fit_matrix(x, names, estimator, labels)
        return
    with scheduled(scheduler):
        fit_matrix(as_dask(x, x.slices()), names, estimator, labels)
