"""Where the values of a matrix came from, and where those before a step still are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batchcorr._anndata.records import RECORDS, read
from batchcorr._anndata.sampled_values import digest_of, digest_of_names

if TYPE_CHECKING:
    from anndata import AnnData

    from batchcorr._anndata.records import Record
    from batchcorr.models.namespace import Matrix

__all__ = ["copied_from", "source_of"]


def copied_from(adata: AnnData, x: Matrix) -> list[Record]:
    """The records of what a matrix was copied from: X from a layer, say."""
    now, kept = digest_of(x), adata.uns.get(RECORDS, {})
    if now is None or not isinstance(kept, Mapping):
        return []
    known = [read(adata, key) for key in kept]
    return [each for each in known if each and each.get("values_after") == now]


def source_of(adata: AnnData, made: str, step: Record) -> str | None:
    """Where the values that a step began with still are: "X" or a layer; None: nowhere.

    Parameters
    ----------
    made
        Where the step's result is: "X", a layer, or an embedding.

    Notes
    -----
    Values are looked for; where samples or features were chosen or ordered since, or values
    are not in memory, it is the matrix of the name that the record holds.
    """
    source, began_with = str(step.get("source", "X")), step.get("values_before")
    if step.get("names") not in (
        None,
        digest_of_names(adata.obs_names, adata.var_names),
    ):
        began_with = None
    others: list[str] = [key for key in adata.layers if key is not None]
    others = others if adata.X is None else ["X", *others]
    for other in sorted(others, key=lambda name: name != source):
        now = digest_of(adata.X if other == "X" else adata.layers[other])
        known = now is not None and began_with is not None
        if other != made and (now == began_with if known else other == source):
            return other
    return None
