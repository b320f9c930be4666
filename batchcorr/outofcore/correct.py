"""From file to file: correct a matrix that is larger than memory, block by block.

Everything but the matrices is small and is read as it is. The matrix is read twice,
once to fit and once to write its corrected blocks into a new file; other matrices are
copied piece by piece. With a Dask scheduler its workers do the reading, the sums and
the correcting, and the writing too where a store can be written by many.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from batchcorr._anndata import records
from batchcorr._anndata.fit import fit_matrix, make_estimator
from batchcorr._anndata.labels import read_labels
from batchcorr._files.version import Version
from batchcorr.arrays import apply
from batchcorr.errors import InputError, TooLargeError, collected
from batchcorr.estimators.location_scale import fits_moments
from batchcorr.estimators.scale import warn_if_unlogged
from batchcorr.outofcore.copying import copy_element, create_dense, create_file
from batchcorr.outofcore.dask_blocks import as_dask, scheduled, write_array, write_store
from batchcorr.outofcore.log_normalize import take_logs
from batchcorr.outofcore.source import Resources, find_matrix, open_source, read_small
from batchcorr.outofcore.stored_matrix import close_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from batchcorr._anndata.labels import ObsLabels
    from batchcorr._anndata.step import Place
    from batchcorr._files.chunks import Node
    from batchcorr.estimators.base import Corrector
    from batchcorr.estimators.location_scale import LocationScaleMethod
    from batchcorr.models.namespace import Matrix
    from batchcorr.outofcore.stored_matrix import StoredMatrix

__all__ = ["FileCorrection", "fit_file"]


@dataclass(frozen=True)
class FileCorrection:
    """A correction fitted to a file, which can write the corrected file.

    Attributes
    ----------
    adata
        Everything of the file but its matrices, and the record of the correction.
    """

    adata: AnnData
    _file: Node
    _version: Version
    _x: StoredMatrix
    _estimator: LocationScaleMethod
    _labels: ObsLabels
    _result: str
    _scheduler: str | None

    def write(self, target: Path, *, compress: bool = False) -> None:
        """Write a new file: the corrected matrix, and everything else of the source.

        Parameters
        ----------
        target
            An empty file or folder; the caller moves it into place when it is complete.
        compress
            Whether an .h5ad file is written with gzip where the source has none.

        Raises
        ------
        FileError
            If the source changed since it was opened.
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

    def _write_here(self, made: Matrix, slices: list[slice]) -> None:
        x, correction = self._x, self._estimator.correction_
        design = self._estimator.design_of(x.shape[0], self._labels.given)
        for rows, block in x.blocks(slices):
            out = None if x.sparse else block
            made[rows] = apply(block, design.take(rows), correction, out=out)

    def _write_there(self, made: object, slices: list[slice], target: Path) -> None:
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
        close_file(self._file)


def fit_file(
    source: Path,
    batch_key: str | Sequence[str] | None,
    resources: Resources,
    place: Place,
    *,
    method: str = "combat",
    covariates: object = None,
    nuisance: object = None,
    missing: str = "error",
    log_normalize: bool = False,
    **parameters: object,
) -> FileCorrection:
    """Fit a correction to a file in one read, with limited memory.

    Parameters
    ----------
    source
        The file: .h5ad or .zarr.
    batch_key, method, covariates, nuisance, missing, **parameters
        As in `pp.correct`.
    place
        Which matrix to read, and where to write the result; `dense`: whether a sparse
        matrix may be written as a dense one, None: if it would fit into memory.
    log_normalize
        Take the logarithms of counts first, as `pp.log_normalize` does: one more read.

    Returns
    -------
    A `FileCorrection`, which can write the corrected file.

    Raises
    ------
    FileError, TooLargeError
        If the file is damaged; if memory is too small, or a dense result needs
        ``dense=True``.
    """
    with ExitStack() as stack, collected() as texts:
        version = Version.of(source)
        file = open_source(source)
        stack.callback(close_file, file)
        adata = read_small(source, file)
        layer, key_added, dense, *_ = place
        records.require_name(key_added)
        x = find_matrix(source, file, layer, resources)
        earlier = records.steps_of(adata, layer, x)
        records.warn_if_repeated(earlier, layer, kept=bool(key_added))
        labels = read_labels(adata, batch_key, covariates, nuisance, missing=missing)
        estimator = make_estimator(method, parameters, labels.formula)
        if not fits_moments(estimator):
            msg = (
                f"{method} needs the whole matrix in memory: leave out --memory and "
                "--scheduler."
            )
            raise InputError(msg)
        if (
            x.sparse
            and not dense
            and (dense is False or _dense_size(x) > resources.memory)
        ):
            _refuse_dense(x)
        if log_normalize:
            n_texts = len(texts)
            x, earlier = take_logs(
                x,
                adata,
                layer,
                key_added,
                earlier=earlier,
                scheduler=resources.scheduler,
            )
            del texts[n_texts:]  # they are in the record of that step
            layer = key_added or layer
        warn_if_unlogged(x.head(), type(estimator).__name__)
        _fit(x, adata, estimator, labels, resources.scheduler)
        record = records.make(adata, estimator, labels.keys, layer, earlier)
        records.write(adata, records.key_of(key_added or layer), record, texts)
        stack.pop_all()
    result = f"layers/{key_added}" if key_added else x.name
    return FileCorrection(
        adata, file, version, x, estimator, labels, result, resources.scheduler
    )


def _dense_size(x: StoredMatrix) -> int:
    """Bytes of the corrected matrix."""
    return int(x.shape[0] * x.shape[1] * x.dtype.itemsize)


def _refuse_dense(x: StoredMatrix) -> NoReturn:
    size = _dense_size(x) / 2**30
    msg = (
        f"The corrected matrix is dense (corrected zeros are not zero): {x.shape[0]:,} "
        f"× {x.shape[1]:,} values take {size:.1f} GiB in the file. Give dense=True to "
        "write it."
    )
    raise TooLargeError(msg)


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
