"""All methods by name, found by looking into this folder.

`registry` imports them; `descriptions` reads what their sources say, as importing them
takes seconds that a list of methods is not worth.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from importlib.resources import files
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, NamedTuple

from batchcorr.errors import MissingKeyError, did_you_mean
from batchcorr.estimators.record import MethodRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchcorr.estimators.base import Corrector

__all__ = ["Description", "descriptions", "get", "registry"]


class Description(NamedTuple):
    """What the source of a method says of it."""

    class_name: str
    summary: str
    record: MethodRecord
    defaults: dict[str, Any]


@cache
def registry() -> dict[str, type[Corrector]]:
    """Return all methods by name.

    Examples
    --------
    >>> {"combat", "remove_batch_effect", "standardize"} <= set(registry())
    True
    """
    return {name: kind for module in _modules() for name, kind in _in(module)}


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
    own = dict(_in(name)) if name in _modules() else {}
    if name in own:  # and the files of other methods are not imported
        return own[name]
    methods = registry()
    if name not in methods:
        msg = f"There is no method {name!r}. {did_you_mean(name, methods)}"
        raise MissingKeyError(msg)
    return methods[name]


def descriptions() -> dict[str, Description]:
    """What the sources say of all methods, by name, without importing them.

    Examples
    --------
    >>> descriptions()["combat"].defaults["mean_only"]
    False
    """
    found = {}
    for module in _modules():
        source = files(__package__).joinpath(f"{module}.py").read_text("utf-8")
        for node in ast.parse(source).body:
            record = _record(node)
            if isinstance(node, ast.ClassDef) and record is not None:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                defaults = _defaults(node)
                found[record.name] = Description(node.name, summary, record, defaults)
    return found


def _in(module: str) -> Iterator[tuple[str, type[Corrector]]]:
    """The methods in a file of this folder, and their names."""
    for value in vars(import_module(f"{__package__}.{module}")).values():
        record = getattr(value, "record", None)
        if isinstance(value, type) and isinstance(record, MethodRecord):
            yield record.name, value


def _modules() -> Iterator[str]:
    """The files of methods: those of this folder without an underscore."""
    for module in iter_modules(import_module(__package__).__path__):
        if not module.name.startswith("_"):
            yield module.name


def _record(node: ast.stmt) -> MethodRecord | None:
    """The record that is written in a class."""
    for line in getattr(node, "body", ()):
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Call):
            call = line.value
            if ast.unparse(call.func) == MethodRecord.__name__:
                named = {str(each.arg): _value(each.value) for each in call.keywords}
                return MethodRecord(*map(_value, call.args), **named)
    return None


def _defaults(node: ast.ClassDef) -> dict[str, Any]:
    """The parameters of a class, all of which have a default."""
    for line in node.body:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            given = line.args
            names = [each.arg for each in (*given.args[1:], *given.kwonlyargs)]
            values = (each for each in (*given.defaults, *given.kw_defaults) if each)
            return dict(zip(names, map(_value, values), strict=True))
    return {}


def _value(node: ast.expr) -> Any:
    """A literal, or a frozenset of such."""
    if isinstance(node, ast.Call):
        return frozenset(ast.literal_eval(node.args[0]))
    return ast.literal_eval(node)
