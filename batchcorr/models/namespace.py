"""One spelling for every array library: find the namespace an array belongs to.

The statistics of this floor are written once, on the Python array API standard, and so
run on NumPy and CuPy arrays and on torch tensors (through autograd) alike.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

__all__ = ["Array", "namespace"]

Array: TypeAlias = Any
"""An array of any library that follows the array API standard."""


def namespace(array: Array) -> Any:
    """Return the array-API namespace of an array.

    Examples
    --------
    >>> import numpy as np
    >>> namespace(np.ones(3)) is np
    True
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        import array_api_compat.torch

        return array_api_compat.torch
    return array.__array_namespace__()
