"""The moments of one site: all that leaves it, and the file that it leaves in.

Plain arrays and one JSON header with the schema; whatever is loaded is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files import npz
from batchcorr.errors import FileError
from batchcorr.estimators.saving import versions
from batchcorr.models.moments import Moments
from batchcorr.sites.disclosure import FEWEST
from batchcorr.sites.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

__all__ = ["SiteMoments"]

VERSION = 1


@dataclass(frozen=True)
class SiteMoments:
    """The moments of one site: all that leaves it.

    Parameters
    ----------
    schema
        What the sites agreed on.
    moments
        Counts, means, squares and cross-products per batch and feature.

    Examples
    --------
    >>> import os, tempfile, numpy as np, batchcorr as bc
    >>> from batchcorr.sites.gather import gather
    >>> schema = bc.Schema(["g1", "g2"], ["a", "b"], units="log2 CPM")
    >>> site = gather(np.random.default_rng(0).normal(size=(6, 2)), schema, ["a"] * 6)
    >>> path = os.path.join(tempfile.mkdtemp(), "site.npz")
    >>> site.save(path)
    >>> bc.SiteMoments.load(path).samples
    {'a': 6}
    """

    schema: Schema
    moments: Moments

    @property
    def n_rows(self) -> int:
        """Number of samples."""
        return int(self.moments.rows.sum())

    @property
    def samples(self) -> dict[Any, int]:
        """Number of samples of each batch that the site has."""
        counts = zip(self.schema.batches, self.moments.rows[:, 0], strict=True)
        return {level: int(n) for level, n in counts if n}

    def save(self, path: str | PathLike[str]) -> None:
        """Write schema and moments to a file: plain arrays and JSON, no pickle.

        Parameters
        ----------
        path
            The file, by custom ``*.npz``; written beside and renamed when complete.
        """
        header = {
            "batchcorr_moments": VERSION,
            "schema": self.schema.to_json(),
            "fingerprint": self.schema.fingerprint,
            "n_rows": self.n_rows,
            "versions": versions(),
        }
        arrays = {f.name: getattr(self.moments, f.name) for f in fields(Moments)}
        npz.write(path, header, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SiteMoments:
        """Read the moments of a site, and check them.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        The moments.

        Raises
        ------
        FileError
            If there is no such file, or it does not hold moments that belong together.
        """
        otherwise = (
            f"{path} does not hold the moments of a site, or it is damaged. Make it "
            "again with batchcorr.moments."
        )
        with npz.reading(path, otherwise) as (header, arrays):
            version = int(header["batchcorr_moments"])
            if version > VERSION:
                msg = (
                    f"{path} was saved by a newer batchcorr (version {version}; this "
                    f"one reads up to {VERSION}): update the package."
                )
                raise FileError(msg)
            schema = Schema.from_json(header["schema"])
            if schema.fingerprint != header["fingerprint"]:
                damage = "its schema was changed"
            else:
                damage = _damage(arrays, schema, header["n_rows"])
        if damage:
            msg = f"{path} is damaged: {damage}. Make it again with batchcorr.moments."
            raise FileError(msg)
        return cls(schema, Moments(**arrays))


def _damage(arrays: Mapping[str, Any], schema: Schema, n_rows: int) -> str:
    """Say what of these arrays cannot be moments; nothing if all can be."""
    wanted = {field.name for field in fields(Moments)}
    if arrays.keys() != wanted:
        return f"it holds other arrays ({', '.join(sorted({*arrays} ^ wanted))})"
    return _misshapen(arrays, schema) or _impossible(arrays, n_rows)


def _misshapen(arrays: Mapping[str, Any], schema: Schema) -> str:
    b, g, p = len(schema.batches), len(schema.features), len(schema.columns)
    own = g if arrays["n"].shape == (b, g) else 1
    shapes = {
        "rows": (b, 1),
        "n": (b, own),
        "mean": (b, g),
        "squares": (b, g),
        "columns": (b, p, own),
        "cross": (b, p, g),
        "gram": (b, p, p, own),
    }
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float64:
            return f"{name} is {array.dtype} of shape {array.shape}, not {shape}"
        if not np.isfinite(array).all():
            return f"{name} is not finite"
    return ""


def _impossible(arrays: Mapping[str, Any], n_rows: int) -> str:
    rows, n = arrays["rows"], arrays["n"]
    few = [(x > 0) & (x < FEWEST) for x in (rows, n)]
    whole = all(np.array_equal(x, np.floor(x)) for x in (rows, n))
    if not whole or rows.min() < 0 or n.min() < 0 or (n > rows).any():
        return "its counts are not counts"
    if rows.sum() != n_rows or any(map(np.any, few)):
        return "its counts are not those of a site"
    diagonal = np.diagonal(arrays["gram"], axis1=1, axis2=2)
    if arrays["squares"].min(initial=0) < 0 or diagonal.min(initial=0) < 0:
        return "its squares are negative"
    return ""
