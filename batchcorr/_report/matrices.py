"""Which values of an AnnData are compared: those before a correction, and those after."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import pandas as pd

from batchcorr._anndata import matrices, records
from batchcorr._anndata.normalize import normalize
from batchcorr._anndata.origins import source_of
from batchcorr._anndata.step import Place
from batchcorr._report.methods_text import SIZE_FACTORS
from batchcorr.errors import InputError, MissingKeyError, did_you_mean, some
from batchcorr.estimators.scale import unlogged
from batchcorr.methods import get
from batchcorr.methods.log_normalize import LogNormalize

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData

    from batchcorr._anndata.records import Record
    from batchcorr.estimators.base import Corrector

__all__ = ["BeforeAfter", "Counts", "Values", "compared"]

X = "X"
OBSM = "obsm "
"""What stands before the name of an embedding in records."""


NORMALIZED = "normalized"
"""Layer of what is normalized for the page."""


class Counts(NamedTuple):
    """Where counts are, how their libraries are measured, and whether that was chosen."""

    layer: str | None
    method: str
    chosen: bool


class Values(NamedTuple):
    """Values of samples × features on a log scale, as they stand in an AnnData.

    Attributes
    ----------
    adata
        What holds them; of logarithms that were taken here another one, with the counts
        in X.
    layer
        Layer; None: X.
    name
        What they are called on the page.
    counts
        What logarithms were taken of for the page; None: they were not.
    code
        Python that makes the layer in the data as given, where it was made for the page
        and is to be tested.
    """

    adata: AnnData
    layer: str | None
    name: str
    counts: Counts | None = None
    code: str = ""

    @property
    def matrix(self) -> Any:
        """The matrix itself."""
        return matrices.get_matrix(self.adata, self.layer)


class BeforeAfter(NamedTuple):
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
    adata: AnnData,
    layer: str | None = None,
    corrected: str | None = None,
    normalizations: Sequence[Corrector] = (),
) -> BeforeAfter:
    """Find the values to compare, by name or by the records of what was done.

    Parameters
    ----------
    layer
        Layer with the uncorrected values; None: as the record of the correction says.
    corrected
        Layer or key of `obsm` with the corrected values, or ``"X"``; None: what has a
        record of a correction.
    normalizations
        What the uncorrected values are to be normalized by; empty: as those that were
        corrected, and of counts that were not logarithms by their totals.

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
    steps = [] if name is None else done.get(name, [])
    before = _Before(adata, steps, normalizations)
    if name is None:
        return BeforeAfter(before.of(layer), None, {}, [])
    if name in adata.obsm and name not in _matrices(adata):
        embeddings = {"after": name}
        first = next((step for step in steps if not step["normalizes"]), {})
        start = first.get("source", X)
        if start.startswith(OBSM):
            source = start.removeprefix(OBSM)
            if source != name and source in adata.obsm:
                embeddings["before"] = source
            start = X
        values = before.of(_layer(start) if layer is None else layer)
        return BeforeAfter(values, None, embeddings, steps)
    after = _values(adata, _layer(name))
    by_records = layer is None and not normalizations
    values = before.found(name, done) if by_records else before.of(layer)
    return BeforeAfter(values, after, {}, steps)


class _Before(NamedTuple):
    """What is known of the values before a correction."""

    adata: AnnData
    steps: list[Record]
    normalizations: Sequence[Corrector]

    def of(self, layer: str | None, first: int | None = None) -> Values | None:
        """A layer, or X, normalized by the steps from `first` on; if None, only counts."""
        ways = self.normalizations
        if not ways and (first is not None or _are_counts(self.adata, layer)):
            ways = [
                get(step["method"])(**step.get("parameters", {}))
                for step in takewhile(_normalizes, self.steps[first or 0 :])
            ]
        return _values(self.adata, layer, ways)

    def found(self, name: str, done: Collection[str]) -> Values | None:
        """What was made into `name`: as the records say, else what is not corrected."""
        normalized = len(list(takewhile(_normalizes, self.steps)))
        for place in reversed(range(len(self.steps))[: normalized + 1]):
            source = source_of(self.adata, name, self.steps[place])
            if source is not None:
                return self.of(_layer(source), place)
        for layer in map(_layer, _matrices(self.adata)):
            known = layer is None or _are_counts(self.adata, layer)
            if known and (layer or X) not in {*done, name}:
                return self.of(layer)
        return None


def _normalizes(step: Record) -> bool:
    return bool(step["normalizes"])


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


def _values(
    adata: AnnData, layer: str | None, normalizations: Sequence[Corrector] = ()
) -> Values | None:
    """Values on a log scale: normalized as is said, and of counts logarithms are taken."""
    if layer is None and adata.X is None:
        return None
    name = f"layer {layer}" if layer else "X"
    chosen = bool(normalizations)
    if not chosen and _are_counts(adata, layer):
        normalizations = [LogNormalize()]
    if not normalizations:
        return Values(adata, layer, name)
    var = pd.DataFrame(index=adata.var_names.astype(str))
    own = anndata.AnnData(matrices.get_matrix(adata, layer), obs=adata.obs, var=var)
    counts, code, place = None, "", Place(key_added=NORMALIZED)
    for each in normalizations:
        normalize(own, each, place)
        place = Place(NORMALIZED, NORMALIZED)
        if isinstance(each, LogNormalize):
            counts = Counts(layer, each.method, chosen)
            name = f"logarithms of {name} divided by {SIZE_FACTORS[each.method][0]}"
            continue
        name += ", quantile-normalized"
        if counts is None:
            of = f"layer={layer!r}, " if layer else ""
            code = f"bc.pp.quantile_normalize(adata, {of}key_added={NORMALIZED!r}); "
    return Values(own, NORMALIZED, name, counts, code)


def _are_counts(adata: AnnData, layer: str | None) -> bool:
    """Whether there are raw counts in a layer or in X."""
    known = layer is not None or adata.X is not None
    return known and unlogged(matrices.get_matrix(adata, layer)) == "counts"
