"""All methods by name, found by looking into this folder."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from batchcorr.errors import MissingKeyError, did_you_mean
from batchcorr.estimators.record import MethodRecord

if TYPE_CHECKING:
    from batchcorr.estimators.base import Corrector

__all__ = ["get", "registry"]


@cache
def registry() -> dict[str, type[Corrector]]:
    """Return all methods by name.

    Examples
    --------
    >>> {"combat", "remove_batch_effect", "standardize"} <= set(registry())
    True
    """
    found = {}
    package = import_module(__package__)
    for module in iter_modules(package.__path__):
        if module.name.startswith("_"):
            continue
        for value in vars(import_module(f"{__package__}.{module.name}")).values():
            record = getattr(value, "record", None)
            if isinstance(value, type) and isinstance(record, MethodRecord):
                found[record.name] = value
    return found


def get(name: str) -> type[Corrector]:
    """Return the method of a name.

    Raises
    ------
    MissingKeyError
        If there is none; the message lists what there is.

    Examples
    --------
    >>> get("combat").__name__
    'ComBat'
    """
    methods = registry()
    if name not in methods:
        msg = f"There is no method {name!r}. {did_you_mean(name, methods)}"
        raise MissingKeyError(msg)
    return methods[name]
