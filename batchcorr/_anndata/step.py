"""One step on a matrix of an AnnData: read, changed, set and recorded, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from batchcorr._anndata import matrices, records
from batchcorr._anndata.columns import obsm_columns
from batchcorr._anndata.features import matched_features
from batchcorr._files.interrupts import uninterrupted
from batchcorr.errors import InputError, MissingKeyError, did_you_mean
from batchcorr.estimators.densify import allow_dense
from batchcorr.estimators.matrix import as_matrix, is_sparse, on_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData

    from batchcorr._anndata.records import Record
    from batchcorr.estimators.base import Corrector
    from batchcorr.models.namespace import Matrix

__all__ = ["Place", "Step", "begin"]


class Place(NamedTuple):
    """Which matrix of an AnnData is read, and where and how the result is put.

    Attributes
    ----------
    layer
        The layer to read; None: X.
    key_added
        The layer for the result; None: where it was read.
    dense
        Whether a sparse matrix may become a large dense one; None: if memory allows.
    copy
        Whether a copy of the AnnData gets the result, and is returned.
    obsm
        The matrix of `obsm` to read, and where the result goes without `key_added`, which
        then names another one; None: X or the layer.
    """

    layer: str | None = None
    key_added: str | None = None
    dense: bool | None = None
    copy: bool = False
    obsm: str | None = None


@dataclass
class Step:
    """A matrix that was read, and where its successor goes.

    Attributes
    ----------
    adata
        Where the result is set: what was given, or a copy of it.
    x
        X, or the layer.
    place
        Where `x` was read, and where the result goes.
    earlier
        Records of the steps that made `x`.
    key
        Where the record of the result goes.
    names
        Names of the features of `x`.
    sparse
        Whether `x` is sparse.
    """

    adata: AnnData
    x: Matrix
    place: Place
    earlier: list[Record]
    key: str
    names: pd.Index[str]
    sparse: bool

    def allow_dense(self, estimator: Corrector) -> None:
        """Refuse, or warn of, a sparse matrix that becomes a large dense one."""
        x = self.x
        if self.sparse and not estimator.keeps_sparse_:
            itemsize = as_matrix(np.empty((0, 0), x.dtype)).dtype.itemsize
            dense = self.place.dense
            allow_dense(x.shape, itemsize, dense=dense, device=on_device(x))

    def finish(
        self,
        estimator: Corrector,
        columns: Mapping[str, object] | None,
        warned: list[str],
        change: Callable[..., Matrix],
    ) -> None:
        """Change the matrix, set the result and write the record.

        Parameters
        ----------
        columns
            The columns of `obs` that were used, by what they are.
        warned
            Texts of the warnings so far; it grows while `change` works.
        change
            Gives the result for a matrix of the estimator's features, and for `out`,
            where to write it: the matrix itself, or None.
        """
        adata, x, layer = self.adata, self.x, self.place.layer
        embedded = self.place.obsm is not None
        table = adata.obsm[self.place.obsm] if embedded else None
        table = table if isinstance(table, pd.DataFrame) else None
        positions = None if embedded else matched_features(adata, estimator)
        record = records.make(adata, estimator, columns, layer, self.earlier, x=x)
        if embedded:
            record |= {"source": f"obsm {self.place.obsm}", "n_vars": x.shape[1]}
        with uninterrupted():
            if table is not None:  # whose names the estimator compares with its own
                result = change(table.set_axis(self.names, axis=1), out=None)
            elif positions is None:
                result = change(x, out=x if self._in_place(estimator) else None)
            else:
                corrected = change(matrices.take_features(x, positions), out=None)
                result = matrices.replace_features(x, positions, corrected)
            matrices.make_actual(adata)
            if self.place.obsm is not None:
                target = self.place.key_added or self.place.obsm
                adata.obsm[target] = result
                if table is not None:
                    adata.obsm[target] = pd.DataFrame(
                        result, table.index, table.columns
                    )
            else:
                matrices.set_matrix(adata, result, layer, self.place.key_added)
            records.write(adata, self.key, record, warned, result)

    def _in_place(self, estimator: Corrector) -> bool:
        if self.place.key_added is not None or self.place.obsm is not None:
            return False
        if self.sparse and not estimator.keeps_sparse_:
            return False
        return matrices.may_overwrite(self.adata, self.x, self.place.layer)


def begin(adata: AnnData, place: Place, *, corrects: bool = False) -> Step:
    """Read a matrix of an AnnData, or of a copy of it; warn if it `corrects` once more."""
    records.require_name(place.key_added)
    if place.copy:
        adata = matrices.copied(adata)
    layer, obsm, key_added = place.layer, place.obsm, place.key_added
    if obsm is None:
        x, names = matrices.get_matrix(adata, layer), adata.var_names
        key = records.key_of(key_added or layer)
    else:
        table = _embedding(matrices.require_adata(adata), obsm, layer)
        x, names = table.to_numpy(), table.columns
        key = records.key_of(obsm=key_added or obsm)
    earlier = records.steps_of(adata, layer, x, obsm=obsm)
    if key_added is not None:
        records.read(adata, key)  # refuses what is no record
    if corrects and earlier:
        records.warn_if_repeated(earlier, layer, kept=bool(key_added), obsm=obsm)
    return Step(adata, x, place, earlier, key, names, is_sparse(x))


def _embedding(adata: AnnData, obsm: str, layer: str | None) -> pd.DataFrame:
    """A matrix of `obsm`, whose columns are features."""
    if layer is not None:
        msg = "Give layer= or obsm=, not both: only one matrix is corrected."
        raise InputError(msg)
    if obsm not in adata.obsm:
        msg = (
            f"There is no {obsm!r} in adata.obsm. "
            f"{did_you_mean(obsm, adata.obsm.keys())}"
        )
        raise MissingKeyError(msg)
    return obsm_columns(adata, obsm)
