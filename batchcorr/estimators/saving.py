"""Corrections on disk: plain arrays and one JSON header in an .npz file, no pickle.

The header names the schema, the method, its parameters, how labels and covariates are
read, the features, and the versions that wrote it. Whatever is loaded is checked.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchcorr._files import npz
from batchcorr.errors import InputError
from batchcorr.estimators.densify import free_memory
from batchcorr.estimators.features import Features
from batchcorr.estimators.plain import PlainEstimator, in_command
from batchcorr.estimators.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

    from numpy.typing import NDArray

if TYPE_CHECKING or not in_command.get():
    from batchcorr.estimators.scikit_learn import Estimator
else:
    Estimator = PlainEstimator

__all__ = ["Saved", "prefix", "reading"]

SCHEMA = 1


class Saved(Features, Estimator):
    """Base of estimators: what of them is saved, and read again.

    Attributes
    ----------
    obs_columns_ : dict or None
        Columns of `obs` that labels were read from, if it was fitted to an AnnData.
    warnings_ : tuple of str
        Texts of the warnings of `batchcorr.fit`; records contain them.
    normalized_by_ : tuple of estimators
        Fitted normalizations of the values that it was fitted to, first to last. They
        are saved with it; the command `batchcorr apply` applies them first, `transform`
        does not.
    """

    obs_columns_: dict[str, Any] | None = None
    warnings_: tuple[str, ...] = ()
    normalized_by_: tuple[Self, ...] = ()

    @abstractmethod
    def _state(self) -> tuple[dict[str, object], Mapping[str, NDArray[np.generic]]]:
        """The frozen state: values that JSON can hold, and arrays by name."""

    @abstractmethod
    def _set_state(
        self, plain: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]
    ) -> None:
        """Take a state as `_state` gives it, or raise KeyError or InputError."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write the frozen state to a file: plain arrays and JSON, no pickle.

        Parameters
        ----------
        path
            The file, usually ``*.npz``; it is replaced only when the new file is
            complete.
        """
        header, arrays = self._packed()
        steps = [step._packed() for step in self.normalized_by_]
        header["normalized_by"] = [own for own, _ in steps]
        for k, (_, more) in enumerate(steps):
            arrays |= {f"{prefix(k)}{name}": array for name, array in more.items()}
        npz.write(path, header, arrays)

    def _packed(self) -> tuple[dict[str, object], dict[str, NDArray[np.generic]]]:
        """Header and arrays, without those of normalizations."""
        self._require_fitted()
        plain, arrays = self._state()
        names = self.feature_names_
        header = plain | {
            "schema": SCHEMA,
            "method": self.record.name,
            "parameters": _plain(self.get_params(deep=False)),
            "features": None if names is None else list(names),
            "n_features": self.n_features_,
            "n_features_in": self.n_features_in_,
            "columns": self.obs_columns_,
            "warnings": list(self.warnings_),
            "versions": versions(),
        }
        return header, dict(arrays)

    def restore(self, header: Mapping[str, Any], arrays: npz.Arrays) -> Self:
        """Take the state that a file holds, all of it checked.

        Parameters
        ----------
        header, arrays
            As `reading` gives them.

        Returns
        -------
        The estimator itself, fitted.

        Raises
        ------
        KeyError, InputError
            Names what is missing or damaged.
        """
        for name, value in header["parameters"].items():
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(v, str | int | float | None) for v in values):
                msg = f"the parameter {name!r:.40} is no plain value."
                raise InputError(msg)
        names, columns = header["features"], header["columns"]
        sizes = [header["n_features"], header["n_features_in"]]
        if any(type(size) is not int or size < 1 for size in sizes):
            msg = f"n_features is {sizes[0]!r:.40}, and not a number of features."
            raise InputError(msg)
        if names is not None:
            _require_texts("features", names, sizes[0])
        if columns is not None and not isinstance(columns, dict):
            msg = "columns holds no names of columns."
            raise InputError(msg)
        self.feature_names_ = None if names is None else tuple(names)
        self.n_features_, self.n_features_in_ = sizes
        self.obs_columns_ = columns
        self.warnings_ = tuple(header.get("warnings", ()))
        if not all(isinstance(text, str) for text in self.warnings_):
            msg = "warnings are no texts."
            raise InputError(msg)
        self._set_state(header, arrays)
        return self


def prefix(k: int) -> str:
    """What the names of arrays of the k-th normalization begin with."""
    return f"normalized_by.{k}."


@contextmanager
def reading(path: str | PathLike[str]) -> Iterator[tuple[dict[str, Any], npz.Arrays]]:
    """Give header and arrays of a saved correction, to be made an estimator of.

    Raises
    ------
    FileError
        If the file holds something else, which may also show in the block.
    """
    otherwise = (
        f"{path} is not a correction saved by batchcorr, or it is damaged. Fit, and save "
        "it again with estimator.save(path)."
    )
    with npz.reading(path, otherwise, largest=free_memory() // 2) as (header, arrays):
        npz.require_version(path, "schema", header["schema"], SCHEMA)
        yield header, arrays


def _require_texts(name: str, texts: object, count: int) -> None:
    """Refuse what is not a list of so many different texts."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        msg = f"{name} is no list of names."
        raise InputError(msg)
    if len(texts) != count or len(set(texts)) < count:
        msg = f"{name} are {len(set(texts))} names, and not {count}."
        raise InputError(msg)


def _plain(parameters: Mapping[str, object]) -> dict[str, object]:
    """Parameters as JSON can hold them: NumPy scalars as Python ones."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in parameters.items()
    }
