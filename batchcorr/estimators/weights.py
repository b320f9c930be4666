"""Weights of samples or values, as a caller gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import DesignError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checked_weights"]


def checked_weights(weights: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The weights in float64, one per sample (n,) or per value (n, G).

    Raises
    ------
    InputError
        If these are not as many finite numbers.
    DesignError
        If none is positive.
    """
    try:
        values: NDArray[np.float64] = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = "weights must be numbers, one per sample or one per value."
        raise InputError(msg) from error
    if values.shape not in {shape, shape[:1]}:
        msg = (
            f"weights must be one per sample {shape[:1]} or one per value {shape}, not "
            f"of shape {values.shape}."
        )
        raise InputError(msg)
    if not np.isfinite(values).all():
        msg = (
            "weights contain NaN or infinite values: give weight 0 to samples or "
            "values that should not be used."
        )
        raise InputError(msg)
    if not (values > 0).any():
        msg = "No weight is positive, so that there is nothing to fit."
        raise DesignError(msg)
    return values
