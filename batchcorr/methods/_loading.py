"""Read corrections from disk: the header of the file names the method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.errors import InputError
from batchcorr.methods._registry import get

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from batchcorr.estimators.base import Corrector

__all__ = ["load"]


def load(path: str | PathLike[str]) -> Corrector:
    """Load a fitted correction from a file that `save` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    The fitted estimator. All its methods work except `partial_fit`, because moments are
    not saved.

    Raises
    ------
    FileError
        If the file cannot be read, is damaged, is not a correction, or was saved by a
        newer version of batchcorr.

    Examples
    --------
    >>> import tempfile, os, numpy as np, batchcorr as bc
    >>> x, batch = np.random.default_rng(0).normal(size=(8, 5)), [1, 2] * 4
    >>> path = os.path.join(tempfile.mkdtemp(), "correction.npz")
    >>> bc.Standardize().fit(x, batch=batch).save(path)
    >>> bc.load(path).batches_
    (1, 2)
    """
    from batchcorr.estimators.saving import prefix, reading

    with reading(path) as (header, arrays):
        steps = [
            _new(own).restore(own, arrays.under(prefix(k)))
            for k, own in enumerate(header.get("normalized_by", []))
        ]
        if not all(step.record.normalizes for step in steps):
            msg = "normalized_by contains a step that is not a normalization."
            raise InputError(msg)
        estimator = _new(header).restore(header, arrays)
        estimator.normalized_by_ = tuple(steps)
        return estimator


def _new(header: Mapping[str, Any]) -> Corrector:
    """The estimator that a header names, without its state."""
    return get(header["method"])(**header["parameters"])
