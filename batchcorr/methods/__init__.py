"""The correction and normalization methods, one per file.

To add a method, add a file here with a class that has a `record`: `pp.correct`, `fit`,
the command line and the contract tests find it through `registry`.
"""

from __future__ import annotations

from batchcorr.methods._loading import load
from batchcorr.methods._registry import get, registry

__all__ = ["get", "load", "registry"]
