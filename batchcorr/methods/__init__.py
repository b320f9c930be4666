"""The methods, one file each; whoever asks for all of them finds them by looking.

A new method is a file in this folder with a class that has a `record`. Faces,
command line and contract tests read `registry`, so that nothing else needs to change.
"""

from __future__ import annotations

from batchcorr.methods._loading import load
from batchcorr.methods._registry import get, registry

__all__ = ["get", "load", "registry"]
