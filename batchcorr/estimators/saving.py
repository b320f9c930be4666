"""Corrections on disk: plain arrays and one JSON header in an .npz file, no pickle.

The header names the schema, the method, its parameters, how labels and covariates are
read, the features, and the versions that wrote it. Whatever is loaded is checked.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files import npz
from batchcorr.errors import FileError

if TYPE_CHECKING:
    from os import PathLike

    from batchcorr.estimators.base import Corrector

__all__ = ["prefix", "read", "save", "versions"]

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
    header, arrays = _packed(estimator)
    header["normalized_by"] = []
    for k, step in enumerate(estimator.normalized_by_):
        more, own = _packed(step)
        header["normalized_by"].append(more)
        arrays |= {f"{prefix(k)}{name}": array for name, array in own.items()}
    npz.write(path, header, arrays)


def prefix(k: int) -> str:
    """What the names of arrays of the k-th normalization begin with."""
    return f"normalized_by.{k}."


def _packed(estimator: Corrector) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and arrays of one estimator."""
    plain, arrays = estimator.state()
    names = estimator.feature_names_
    header = plain | {
        "schema": SCHEMA,
        "method": estimator.record.name,
        "parameters": _plain(estimator.get_params(deep=False)),
        "features": None if names is None else list(names),
        "n_features": estimator.n_features_,
        "n_features_in": estimator.n_features_in_,
        "columns": estimator.obs_columns_,
        "warnings": list(estimator.warnings_),
        "versions": versions(),
    }
    return header, dict(arrays)


def read(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and arrays of a saved correction, whatever its method."""
    otherwise = (
        f"{path} is not a correction saved by batchcorr, or it is damaged. Save it "
        "again with estimator.save(path)."
    )
    with npz.reading(path, otherwise) as (header, arrays):
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
