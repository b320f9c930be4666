"""Corrections on disk: plain arrays and one JSON header in an .npz file, no pickle.

The header names the schema, the method, its parameters, how labels and covariates are
read, the features, and the versions that wrote it. Whatever is loaded is checked.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr._files import npz
from batchcorr.errors import FileError, InputError
from batchcorr.estimators.densify import free_memory
from batchcorr.estimators.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

    from batchcorr.estimators.base import Corrector

__all__ = ["prefix", "reading", "restore", "save"]

SCHEMA = 1


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
        schema = header["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            msg = (
                f"{path} was saved by a newer batchcorr (schema {schema}; this one reads "
                f"up to {SCHEMA}): update the package."
            )
            raise FileError(msg)
        if type(schema) is not int or schema != SCHEMA:
            msg = f"schema is {schema!r:.40}, and not {SCHEMA}."
            raise InputError(msg)
        yield header, arrays


def restore(
    estimator: Corrector, header: Mapping[str, Any], arrays: npz.Arrays
) -> Corrector:
    """Give an estimator of the right class the state of a file, all of it checked.

    Raises
    ------
    InputError
        Names what is damaged.
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
    estimator.feature_names_ = None if names is None else tuple(names)
    estimator.n_features_, estimator.n_features_in_ = sizes
    estimator.obs_columns_ = columns
    estimator.warnings_ = tuple(header.get("warnings", ()))
    if not all(isinstance(text, str) for text in estimator.warnings_):
        msg = "warnings are no texts."
        raise InputError(msg)
    estimator.set_state(header, arrays)
    return estimator


def _require_texts(name: str, texts: Any, count: int) -> None:
    """Refuse what is not a list of so many different texts."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        msg = f"{name} is no list of names."
        raise InputError(msg)
    if len(texts) != count or len(set(texts)) < count:
        msg = f"{name} are {len(set(texts))} names, and not {count}."
        raise InputError(msg)


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON can hold them: NumPy scalars as Python ones."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in parameters.items()
    }
