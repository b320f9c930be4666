"""Corrections on disk: plain arrays and one JSON header in an .npz file, no pickle.

The header names the schema, the method, its parameters, how labels and covariates are
read, the features, and the versions that wrote it. Whatever is loaded is checked.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr import _archive
from batchcorr.errors import FileError, InputError
from batchcorr.methods import get

if TYPE_CHECKING:
    from os import PathLike

    from batchcorr.methods.corrector import Corrector

__all__ = ["load", "save", "versions"]

SCHEMA = 1


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide on results."""
    found = {}
    for name in ("batchcorr", "numpy", "scipy", "numba"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "unknown"
    return found


def save(estimator: Corrector, path: str | PathLike[str]) -> None:
    """Write a fitted estimator; the file is complete or not there."""
    plain, arrays = estimator._pack()
    names = estimator._names
    header = plain | {
        "schema": SCHEMA,
        "method": type(estimator).method,
        "parameters": _plain(estimator.get_params(deep=False)),
        "features": None if names is None else list(names),
        "n_features": estimator._n_features,
        "n_features_in": estimator.n_features_in_,
        "columns": estimator.obs_columns_,
        "versions": versions(),
    }
    _archive.write(path, header, arrays)


def load(path: str | PathLike[str]) -> Corrector:
    """Read what `save` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    The fitted estimator: it transforms, inverts, adds batches and saves, but cannot go
    on with `partial_fit`, as the moments are not saved.

    Raises
    ------
    FileError
        If the file cannot be read, or is not a correction of this or an earlier schema.

    Examples
    --------
    >>> import tempfile, os, numpy as np, batchcorr as bc
    >>> x, batch = np.random.default_rng(0).normal(size=(8, 5)), [1, 2] * 4
    >>> path = os.path.join(tempfile.mkdtemp(), "correction.npz")
    >>> bc.Standardize().fit(x, batch=batch).save(path)
    >>> bc.load(path).batches_
    (1, 2)
    """
    header, arrays = _read(path)
    try:
        estimator = get(header["method"])(**header["parameters"])
        names = header["features"]
        estimator._names = None if names is None else tuple(names)
        estimator._n_features = header["n_features"]
        estimator.n_features_in_ = header["n_features_in"]
        estimator.obs_columns_ = header["columns"]
        if names is not None and len(names) != estimator._n_features:
            raise InputError
        estimator._unpack(header, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path} is not a complete correction. Fit and save it again."
        raise FileError(msg) from error
    return estimator


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    otherwise = (
        f"{path} is not a correction saved by batchcorr, or it is damaged. Save it "
        "again with estimator.save(path)."
    )
    with _archive.reading(path, otherwise) as (header, arrays):
        schema = int(header["schema"])
    if schema > SCHEMA:
        msg = (
            f"{path} was saved by a newer batchcorr (schema {schema}; this one reads "
            f"up to {SCHEMA}): update the package."
        )
        raise FileError(msg)
    return header, arrays


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON can hold them: NumPy scalars as Python ones."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in parameters.items()
    }
