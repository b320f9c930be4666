"""Batch normalization is batch-effect removal: this package's routines on torch models.

Samples × channels are samples × genes; a minibatch or a domain is a batch. BatchNorm in
training is per-batch standardization, BatchNorm at inference a frozen correction, and
folding it into the next layer is applying a correction without applying it. The
functions here are tools for anybody who trains or deploys a network, and `claims`
measures what they rest on. They need torch: ``pip install "batchcorr[torch]"``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "Folded",
    "Profile",
    "Recalibration",
    "Report",
    "accumulate",
    "capture",
    "claims",
    "fold",
    "lint",
    "nn",
    "profile",
    "recalibrate",
    "report",
]

_HOMES = {
    "Folded": "_fold",
    "Profile": "_profile",
    "Recalibration": "_recalibrate",
    "profile": "_profiling",
    "recalibrate": "_recalibrate",
    "fold": "_fold",
    "lint": "_lint",
    "Report": "_report",
    "report": "_report",
    "capture": "_capture",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    import_module(f"{__name__}._torch")  # says what to install
    home = import_module(f"{__name__}.{_HOMES.get(name, name)}")
    value = getattr(home, name) if name in _HOMES else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
