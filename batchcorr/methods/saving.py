"""Corrections on disk: plain arrays and one JSON header in an .npz file, no pickle.

The header names the schema, the method, its parameters, how labels and covariates are
read, the features, and the versions that wrote it. Whatever is loaded is checked.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files import replacing
from batchcorr.errors import FileError, InputError
from batchcorr.methods import get
from batchcorr.methods.estimate import Aim, Fitted
from batchcorr.methods.metadata import Metadata
from batchcorr.models.location_scale import LocationScale

if TYPE_CHECKING:
    from os import PathLike

    from batchcorr.methods.base import LocationScaleMethod

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


def save(estimator: LocationScaleMethod, path: str | PathLike[str]) -> None:
    """Write a fitted estimator; the file is complete or not there."""
    fitted = estimator._ready()
    names = estimator._names
    header = {
        "schema": SCHEMA,
        "method": estimator.method,
        "parameters": _plain(estimator.get_params(deep=False)),
        "metadata": fitted.metadata.to_json(),
        "features": None if names is None else list(names),
        "n_features_in": estimator.n_features_in_,
        "columns": getattr(estimator, "obs_columns_", None),
        "versions": versions(),
    }
    arrays = {f"aim.{f.name}": getattr(fitted.aim, f.name) for f in fields(Aim)}
    arrays |= {
        f"correction.{f.name}": getattr(fitted.correction, f.name)
        for f in fields(LocationScale)
    }
    arrays |= {f"details.{name}": value for name, value in fitted.details.items()}
    with replacing(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, header=np.array(json.dumps(header)), **arrays)


def load(path: str | PathLike[str]) -> LocationScaleMethod:
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
        fitted = Fitted(
            Metadata.from_json(header["metadata"]),
            Aim(**_part(arrays, "aim")),
            LocationScale(**_part(arrays, "correction")),
            _part(arrays, "details"),
        )
        names = header["features"]
        estimator._names = None if names is None else tuple(names)
        estimator.n_features_in_ = header["n_features_in"]
    except (KeyError, TypeError, InputError) as error:
        msg = f"{path} is not a complete correction: {error}. Fit and save it again."
        raise FileError(msg) from error
    shape = fitted.correction.scale.shape
    if shape[0] != fitted.metadata.n_batches or fitted.correction.shift.shape != shape:
        msg = f"{path} is damaged: its arrays do not fit its {shape[0]} batches."
        raise FileError(msg)
    estimator._n_features = shape[1]
    estimator._metadata, estimator._fitted = fitted.metadata, fitted
    estimator.moments_ = None
    estimator.obs_columns_ = header["columns"]
    return estimator


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        schema = int(header["schema"])
    except FileNotFoundError as error:
        msg = f"There is no file {path}."
        raise FileError(msg) from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        msg = (
            f"{path} is not a correction saved by batchcorr, or it is damaged: {error}."
        )
        raise FileError(msg) from error
    if schema > SCHEMA:
        msg = (
            f"{path} was saved by a newer batchcorr (schema {schema}; this one reads "
            f"up to {SCHEMA}): update the package."
        )
        raise FileError(msg)
    return header, arrays


def _part(arrays: dict[str, Any], name: str) -> dict[str, Any]:
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON can hold them: NumPy scalars as Python ones."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in parameters.items()
    }
