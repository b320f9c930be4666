"""Which layers and embeddings are looked at, and what each is compared with.

What this package corrected is compared with what it was made from, as its record says, and
any other layer with the first one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchcorr._anndata import records
from batchcorr._anndata.origins import source_of
from batchcorr.errors import InputError, MissingKeyError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

__all__ = ["Chosen", "coordinates"]


class Chosen(NamedTuple):
    """Matrices by their rows in a table of scores: "X", or the name of a layer or embedding.

    Attributes
    ----------
    layers
        The layer of each row, None for X.
    embeddings
        Keys of `obsm`.
    before
        What a row is compared with, where it is with anything: "X" or a layer, which need
        not be a row.
    alone
        What was corrected, and made from values that are in the AnnData no more.
    """

    layers: dict[str, str | None]
    embeddings: list[str]
    before: dict[str, str]
    alone: tuple[str, ...]

    @property
    def sources(self) -> dict[str, str | None]:
        """The layers, None for X, of what is only compared with, and no row."""
        others = [row for row in self.before.values() if row not in self.layers]
        return {row: None if row == "X" else row for row in others}

    @classmethod
    def of(cls, adata: AnnData, layers: object, embeddings: object) -> Chosen:
        """What is asked for; None: what was corrected, and what it was made from.

        Raises
        ------
        InputError
            If there is nothing to look at, or what is given are no names.
        MissingKeyError
            If there is no such embedding.
        """
        keys = _embeddings(adata, embeddings)
        rows = {name or "X": name for name in _layers(adata, layers)}
        if not rows and not keys:
            msg = (
                "There is nothing to evaluate: give layers= or embeddings=. "
                f"{did_you_mean('', [*map(str, adata.layers), *adata.obsm])}"
            )
            raise InputError(msg)
        before: dict[str, str] = {}
        alone, first = [], next(iter(rows), "")
        for row, name in rows.items():
            made = _Origin.of(adata, row, records.key_of(name))
            if made.corrected and made.source is not None:
                before[row] = made.source
            elif row != first and (layers is not None or not made.corrected):
                before[row] = first
            elif made.is_alone:
                alone.append(row)
        for key in keys:
            made = _Origin.of(adata, key, records.key_of(obsm=key))
            if made.is_alone:
                alone.append(key)
            elif made.source or first:
                before[key] = made.source or first
        return cls(rows, keys, before, tuple(alone))


class _Origin(NamedTuple):
    """What the record of a matrix says: whether it was corrected, and where from.

    `source` is "X" or the layer where the values before it still are; None: nowhere.
    """

    corrected: bool = False
    source: str | None = None

    @classmethod
    def of(cls, adata: AnnData, made: str, key: str) -> _Origin:
        record = records.read(adata, key)
        if record is None:
            return cls()
        return cls(records.corrects(record), source_of(adata, made, record))

    @property
    def is_alone(self) -> bool:
        """Whether it was corrected, and the values before are in the AnnData no more."""
        return self.corrected and self.source is None


def _layers(adata: AnnData, layers: object) -> list[str | None]:
    """The layers to look at, None for X; each once, and what was corrected after it."""
    if layers is not None:
        given = _names(
            layers, "layers must be names of layers (None for X)", str | None
        )
        x_is_layer = "X" in adata.layers
        return [None if name == "X" and not x_is_layer else name for name in given]
    origins = {
        name: _Origin.of(adata, name or "X", records.key_of(name))
        for name in (None, *adata.layers)
    }
    made = [name for name, origin in origins.items() if origin.corrected]
    sources = [origins[name].source for name in made]
    sources += [
        _Origin.of(adata, key, records.key_of(obsm=key)).source
        for key in _embeddings(adata, None)
    ]
    first = [None if each == "X" else each for each in sources if each is not None]
    return [*dict.fromkeys([*first, *made])] or [None] * (adata.X is not None)


def _embeddings(adata: AnnData, embeddings: object) -> list[str]:
    """The keys of `obsm` to look at; each once."""
    if embeddings is None:
        return [
            key
            for key in adata.obsm
            if _Origin.of(adata, key, records.key_of(obsm=key)).corrected
        ]
    given = _names(embeddings, "embeddings must be keys of adata.obsm", str)
    for key in given:
        if key not in adata.obsm:
            msg = (
                f"There is no embedding {key!r} in adata.obsm. "
                f"{did_you_mean(key, adata.obsm)}"
            )
            raise MissingKeyError(msg)
    return given


def _names(given: Any, what: str, kind: Any) -> list[Any]:
    """A name or several of a `kind`, each once."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, kind) for name in names
    ):
        msg = f"{what}, not {given!r:.60}."
        raise InputError(msg)
    return list(dict.fromkeys(names))


def coordinates(adata: AnnData, key: str) -> NDArray[np.float64]:
    """The coordinates of an embedding: (n, k).

    Raises
    ------
    InputError
        If it is not a matrix of finite numbers.
    """
    given = adata.obsm[key]
    given = given.toarray() if hasattr(given, "toarray") else np.asarray(given)
    if given.ndim != 2 or given.dtype.kind not in "biuf" or not given.shape[1]:
        msg = (
            f"The embedding {key!r} must be a matrix of numbers, not {given.dtype} of "
            f"shape {given.shape}."
        )
        raise InputError(msg)
    points: NDArray[np.float64] = given.astype(np.float64)
    if not np.isfinite(points).all():
        msg = f"The embedding {key!r} has missing or infinite values."
        raise InputError(msg)
    return points
