"""The moments of one site, and the file they are shared in.

Plain arrays and one JSON header with the schema; whatever is loaded is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from batchcorr._files import npz
from batchcorr.errors import FileError
from batchcorr.estimators.versions import versions
from batchcorr.models.moments import Moments
from batchcorr.sites.checks import read_sums, what_is_wrong
from batchcorr.sites.schema import Schema

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["SiteMoments"]

VERSION = 1


@dataclass(frozen=True)
class SiteMoments:
    """The moments of one site: all that it shares.

    Parameters
    ----------
    schema
        The schema that all sites use.
    moments
        Numbers of samples, means, squares and cross-products by batch and feature.

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
        """Write schema and moments to a file (plain arrays and JSON, no pickle).

        Parameters
        ----------
        path
            The file, usually ``*.npz``; it is replaced only when the new file is
            complete.
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
            If there is no such file, or it does not contain valid moments.
        """
        otherwise = (
            f"{path} does not hold the moments of a site, or it is damaged. Make it "
            "again with batchcorr.sites.moments."
        )
        with npz.reading(path, otherwise) as (header, stored):
            npz.require_version(path, "version", header["batchcorr_moments"], VERSION)
            schema = Schema.from_json(header["schema"])
            if schema.fingerprint != header["fingerprint"]:
                damage = "its schema was changed"
            else:
                moments = read_sums(stored, schema)
                damage = what_is_wrong(moments, schema, header["n_rows"])
        if damage:
            msg = (
                f"{path} is damaged: {damage}. Create it again with "
                "batchcorr.sites.moments."
            )
            raise FileError(msg)
        return cls(schema, moments)
