"""The schema that sites which cannot share samples must agree on: one JSON file.

Moments can be added only if features, batches, levels and units are the same, in the
same order. Every site uses the same schema, and the fit checks this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchcorr._files.atomic import replacing
from batchcorr.design.covariates import CovariateEncoding
from batchcorr.design.labels import BatchLabels, Level
from batchcorr.design.tables import read_table
from batchcorr.design.variables import Variable
from batchcorr.errors import DesignError, FileError, InputError
from batchcorr.estimators.metadata import Labels, Metadata

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from batchcorr.design.design import Design
    from batchcorr.design.tables import Table

__all__ = ["NUMERIC", "Schema"]

VERSION = 1

NUMERIC = "numeric"
"""What stands for the levels of a covariate that holds numbers."""


@dataclass(frozen=True, init=False)
class Schema:
    """The features, batches, covariates and units that all sites must use.

    Parameters
    ----------
    features
        Names of the features, in the order of the moments.
    batches
        Labels of the batches of all sites.
    units
        Units of the values, such as ``"log2 CPM"``: free text, which must be the same
        at all sites.
    covariates
        The covariates to keep, by the names of their columns: their levels, or
        ``"numeric"``.
    batch_key
        The column of `obs` that holds the batch.

    Raises
    ------
    InputError
        If names or levels are missing or occur twice.

    Examples
    --------
    >>> import batchcorr as bc
    >>> schema = bc.Schema(
    ...     features=["TP53", "MYC"],
    ...     batches=["lyon", "oslo 1", "oslo 2"],
    ...     units="log2 CPM",
    ...     covariates={"sex": ["f", "m"], "age": "numeric"},
    ... )
    >>> schema.columns
    ('sex[m]', 'age')
    """

    features: tuple[str, ...]
    batches: tuple[Level, ...]
    units: str
    covariates: Mapping[str, tuple[Level, ...] | str]
    batch_key: str

    def __init__(
        self,
        features: Iterable[str],
        batches: Iterable[object],
        *,
        units: str,
        covariates: Mapping[str, Iterable[object] | str] | None = None,
        batch_key: str = "batch",
    ) -> None:
        covariates = {} if covariates is None else covariates
        if isinstance(features, str) or not isinstance(covariates, Mapping):
            msg = (
                "A schema needs a list of feature names, and for each covariate a list "
                f"of its levels or {NUMERIC!r}: covariates={{'sex': ['f', 'm']}}."
            )
            raise InputError(msg)
        names = tuple(map(str, features))
        if not names or len(set(names)) < len(names):
            twice = [name for name in names if names.count(name) > 1][:1]
            what = f"{twice[0]!r} occurs more than once" if twice else "there are none"
            msg = f"A schema needs features of different names: {what}."
            raise InputError(msg)
        for what, text in (("units", units), ("batch_key", batch_key)):
            if not isinstance(text, str) or not text.strip():
                msg = f'{what} must be text, such as units="log2 CPM", not {text!r}.'
                raise InputError(msg)
        if batch_key in covariates:
            msg = f"{batch_key!r} is the batch and cannot be a covariate as well."
            raise DesignError(msg)
        known = {
            str(name): _levels(given, f"covariate {name!r}")
            for name, given in covariates.items()
        }
        self.__dict__.update(
            features=names,
            batches=_levels(batches, "batch"),
            units=units.strip(),
            covariates=known,
            batch_key=batch_key,
        )

    @property
    def metadata(self) -> Metadata:
        """The encoding of labels as codes and design columns, the same at every site."""
        variables = []
        for name, levels in self.covariates.items():
            labels = None
            if not isinstance(levels, str):
                labels = BatchLabels(levels, f"covariate {name!r}")
            variables.append(Variable(name, labels))
        covariates = CovariateEncoding.of_variables(tuple(variables))
        binary = tuple(self.covariates[term] != NUMERIC for term in covariates.terms)
        nuisance = CovariateEncoding(role="nuisance")
        return Metadata(BatchLabels(self.batches), (), covariates, nuisance, binary)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the p design columns."""
        return self.metadata.names

    def design(
        self, n_rows: int, batch: object, covariates: object
    ) -> tuple[Design, Table]:
        """Return the design of some samples, and their covariates by name.

        Parameters
        ----------
        n_rows
            Number of rows.
        batch
            Batch of each row.
        covariates
            A table with the covariates of the schema.

        Returns
        -------
        The design, and the covariates' columns by name.

        Raises
        ------
        DesignError
            If a batch or level is not in the schema, or labels are missing.
        """
        table: Table = {}
        if self.covariates:
            table = read_table(covariates, n_rows, "covariate", tuple(self.covariates))
        BatchLabels.fit(batch, levels=self.batches, n_rows=n_rows)
        for name, levels in self.covariates.items():  # says what was not declared
            if not isinstance(levels, str):
                what = f"covariate {name!r}"
                BatchLabels.fit(table[name], name=what, levels=levels, n_rows=n_rows)
        labels = Labels(batch, covariates if self.covariates else None)
        return self.metadata.design(n_rows, labels), table

    @property
    def fingerprint(self) -> str:
        """A short text that differs if schemas differ."""
        text = json.dumps(self.to_json(), ensure_ascii=False)
        return sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, object]:
        """Return the schema as plain values, which `from_json` reads.

        Returns
        -------
        Values that can be written as JSON.
        """
        return {
            "batchcorr_schema": VERSION,
            "units": self.units,
            "batch_key": self.batch_key,
            "batches": list(self.batches),
            "covariates": {
                name: given if isinstance(given, str) else list(given)
                for name, given in self.covariates.items()
            },
            "features": list(self.features),
        }

    @classmethod
    def from_json(cls, saved: Any) -> Schema:
        """Make a schema from the values of `to_json`, after checking them.

        Parameters
        ----------
        saved
            The values.

        Returns
        -------
        The schema.

        Raises
        ------
        InputError
            If something is missing or of the wrong kind.
        """
        wanted = ("features", "batches", "units", "covariates", "batch_key")
        try:
            version, given = saved["batchcorr_schema"], {k: saved[k] for k in wanted}
            lists = [given["features"], given["batches"], *given["covariates"].values()]
        except (AttributeError, KeyError, TypeError) as error:
            msg = f"A schema needs {', '.join(wanted)}, and {error} is wrong."
            raise InputError(msg) from error
        if version != VERSION:
            msg = (
                f"Its version is {version!r}, but this batchcorr reads version "
                f"{VERSION}."
            )
            raise InputError(msg)
        lists_only = all(isinstance(x, list) or x == NUMERIC for x in lists)
        if not lists_only or not all(isinstance(x, str) for x in given["features"]):
            msg = f"Features, batches and levels must be lists, or {NUMERIC!r}."
            raise InputError(msg)
        return cls(**given)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the schema to a JSON file.

        Parameters
        ----------
        path
            The file, usually ``*.json``; it is replaced only when the new file is
            complete.
        """
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1)
        with replacing(path) as part:
            part.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Schema:
        """Read a schema from a JSON file.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        The schema.

        Raises
        ------
        FileError
            If there is no such file, or it is not a schema.
        """
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            msg = f"There is no file {path}."
            raise FileError(msg) from error
        except (OSError, ValueError, RecursionError) as error:
            msg = f"{path} is not a schema of batchcorr, or it is damaged: {error}"
            raise FileError(msg) from error


def _levels(given: Iterable[object] | str, name: str) -> Any:
    """Levels as plain values, each once, in the order given."""
    if isinstance(given, str) and given == NUMERIC and name != "batch":
        return NUMERIC
    if isinstance(given, str):
        known = "" if name == "batch" else f", or {NUMERIC!r}"
        msg = f"{name} must be a list of its levels{known}, not the text {given!r:.40}."
        raise InputError(msg)
    levels = list(given)
    return BatchLabels.fit(levels, name=name, levels=levels).levels
