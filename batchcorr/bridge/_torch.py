"""Torch, or a word about how to get it."""

from __future__ import annotations

from batchcorr.errors import MissingPackageError

try:
    import torch
except ImportError as error:
    msg = (
        "batchcorr.bridge works on torch models, and torch is not installed. Install "
        'it with: pip install "batchcorr[torch]"'
    )
    raise MissingPackageError(msg) from error

__all__ = ["torch"]
