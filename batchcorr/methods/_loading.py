"""Read corrections from disk: the header names the method whose state it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.errors import FileError, InputError
from batchcorr.estimators.saving import prefix, read
from batchcorr.methods._registry import get

if TYPE_CHECKING:
    from os import PathLike

    from batchcorr.estimators.base import Corrector

__all__ = ["load"]


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
    header, arrays = read(path)
    try:
        steps = []
        for k, own in enumerate(header.get("normalized_by", [])):
            named = [name for name in arrays if name.startswith(prefix(k))]
            taken = {name.removeprefix(prefix(k)): arrays.pop(name) for name in named}
            steps.append(_made(own, taken))
            if not steps[-1].record.normalizes:
                raise InputError
        estimator = _made(header, arrays)
        estimator.normalized_by_ = tuple(steps)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path} is not a complete correction. Fit and save it again."
        raise FileError(msg) from error
    return estimator


def _made(header: dict[str, Any], arrays: dict[str, Any]) -> Corrector:
    """An estimator from its header and arrays."""
    estimator = get(header["method"])(**header["parameters"])
    names = header["features"]
    estimator.feature_names_ = None if names is None else tuple(names)
    estimator.n_features_ = header["n_features"]
    estimator.n_features_in_ = header["n_features_in"]
    estimator.obs_columns_ = header["columns"]
    estimator.warnings_ = tuple(map(str, header.get("warnings", ())))
    if names is not None and len(names) != estimator.n_features_:
        raise InputError
    estimator.set_state(header, arrays)
    return estimator
