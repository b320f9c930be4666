"""Which values of an AnnData are compared: those before a correction, and those after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import pandas as pd

from batchcorr import pp
from batchcorr._anndata import matrices, records
from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some
from batchcorr.estimators.scale import unlogged

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr._anndata.records import Record

__all__ = ["Compared", "Values", "compared"]

X = "X"
OBSM = "obsm "
"""What stands before the name of an embedding in records."""


class Values(NamedTuple):
    """Values of samples × features on a log scale, as they stand in an AnnData.

    Attributes
    ----------
    adata
        What holds them; not the one that was given where logarithms were taken here.
    layer
        Layer; None: X.
    name
        What they are called on the page.
    from_counts
        Whether they are logarithms that were taken for the page.
    """

    adata: AnnData
    layer: str | None
    name: str
    from_counts: bool = False

    @property
    def matrix(self) -> Any:
        """The matrix itself."""
        return matrices.get_matrix(self.adata, self.layer)


class Compared(NamedTuple):
    """Values before and after a correction, and how it was made.

    Attributes
    ----------
    before
        None where the data hold no uncorrected values.
    after
        None where nothing was corrected, or only an embedding of it is there.
    embeddings
        Keys of `obsm` that are shown instead, ``"before"`` and ``"after"``.
    steps
        Records of what led to the corrected values, oldest first.
    """

    before: Values | None
    after: Values | None
    embeddings: dict[str, str]
    steps: list[Record]

    @property
    def correction(self) -> Record | None:
        """The record of the correction; None where there is none."""
        return next((s for s in reversed(self.steps) if not s["normalizes"]), None)

    @property
    def is_corrected(self) -> bool:
        """Whether there is something corrected to show."""
        return self.after is not None or "after" in self.embeddings


def compared(
    adata: AnnData, layer: str | None = None, corrected: str | None = None
) -> Compared:
    """Find the values to compare, by name or by the records of what was done.

    Parameters
    ----------
    adata
        The data.
    layer
        Layer with the uncorrected values; None: as the record of the correction says.
    corrected
        Layer or key of `obsm` with the corrected values, or ``"X"``; None: what has a
        record of a correction.

    Raises
    ------
    MissingKeyError
        If there is no such layer or embedding.
    InputError
        If several matrices were corrected and none is named.
    """
    if layer is not None:
        matrices.get_matrix(adata, layer)  # or says which layers there are
    done = _corrections(adata)
    name = _named(adata, done, corrected)
    if name is None:
        return Compared(_values(adata, layer), None, {}, [])
    steps = done.get(name, [])
    if name in adata.obsm and name not in _matrices(adata):
        embeddings = {"after": name}
        start = _first(steps).get("source", X) if steps else X
        if start.startswith(OBSM):
            source = start.removeprefix(OBSM)
            if source != name and source in adata.obsm:
                embeddings["before"] = source
            start = X
        before = _values(adata, _layer(start) if layer is None else layer)
        return Compared(before, None, embeddings, steps)
    after, before = _values(adata, _layer(name)), None
    if layer is not None:
        before = _values(adata, layer)
    elif steps:
        source = records.source_of(adata, name, _first(steps))
        before = None if source is None else _values(adata, _layer(source))
    elif name != X and adata.X is not None:
        before = _values(adata, None)
    return Compared(before, after, {}, steps)


def _first(steps: list[Record]) -> Record:
    """The first step that is a correction."""
    return next(step for step in steps if not step["normalizes"])


def _layer(name: str) -> str | None:
    return None if name == X else name


def _matrices(adata: AnnData) -> list[str]:
    """X, if there is one, and the layers."""
    layers = [key for key in adata.layers if key is not None]
    return layers if adata.X is None else [X, *layers]


def _corrections(adata: AnnData) -> dict[str, list[Record]]:
    """What has been corrected, and by which steps."""
    found = {}
    for name in _matrices(adata):
        x = matrices.get_matrix(adata, _layer(name))
        found[name] = records.steps_of(adata, _layer(name), x)
    for name in map(str, adata.obsm):
        record = records.read(adata, records.key_of(obsm=name))
        if record is not None and name not in found:
            found[name] = [*record.pop("earlier", []), record]
    return {
        name: steps
        for name, steps in found.items()
        if any(map(records.corrects, steps))
    }


def _named(
    adata: AnnData, done: dict[str, list[Record]], corrected: str | None
) -> str | None:
    """The name of the corrected values; None if nothing was corrected."""
    if corrected is not None:
        known = [*_matrices(adata), *map(str, adata.obsm)]
        if corrected not in known:
            msg = (
                f"There is no layer or embedding {corrected!r}. "
                f"{did_you_mean(corrected, known)}"
            )
            raise MissingKeyError(msg)
        return corrected
    if len(done) > 1:
        msg = (
            f"Several corrections are in these data: {some(map(repr, done))}. Say with "
            "corrected= which one the report is of."
        )
        raise InputError(msg)
    return next(iter(done), None)


def _values(adata: AnnData, layer: str | None) -> Values | None:
    """Values on a log scale: of counts logarithms are taken."""
    if layer is None and adata.X is None:
        return None
    name = f"layer {layer}" if layer else "X"
    x = matrices.get_matrix(adata, layer)
    if unlogged(x) != "counts":
        return Values(adata, layer, name)
    own = anndata.AnnData(
        x, obs=adata.obs, var=pd.DataFrame(index=adata.var_names.astype(str))
    )
    pp.log_normalize(own, key_added="logs")
    return Values(
        own, "logs", f"log1p of {name}, normalized by totals", from_counts=True
    )
