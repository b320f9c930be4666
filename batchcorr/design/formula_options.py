"""The functions that a formula may call, and the options of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["INNER", "OMITTED", "OPTIONS", "STATES", "is_number"]

Check: TypeAlias = tuple[Callable[[Any], bool], str]
"""Whether a value is possible, and what is."""


def is_number(value: object) -> bool:
    """Return whether a value is a number and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(low: int, high: int) -> Check:
    return (
        lambda value: type(value) is int and low <= value <= high,
        f"a whole number from {low} to {high}",
    )


def _list_of(item: Callable[[Any], bool], what: str) -> Check:
    return lambda value: isinstance(value, list) and all(map(item, value)), what


NUMBER: Check = (is_number, "a number")
BOOLEAN: Check = (lambda value: isinstance(value, bool), "True or False")
EITHER: Check = (lambda value: isinstance(value, int | float), "a number or a boolean")
BEYOND: Check = (
    lambda value: value in ("raise", "clip", "zero", "extend"),
    "'raise', 'clip', 'zero' or 'extend'",
)
LEVELS = _list_of(
    lambda value: isinstance(value, str | int | float), "a list of levels"
)
KNOTS = _list_of(is_number, "a list of numbers")

# The options of each function, in the order in which they may be given without a name.
OPTIONS: dict[str, dict[str, Check]] = {
    "C": {"levels": LEVELS},
    "center": {},
    "log": {},
    "scale": {"center": EITHER, "scale": EITHER, "ddof": NUMBER},
    "poly": {"degree": _whole(1, 20), "raw": BOOLEAN},
    "bs": {
        "df": _whole(1, 100),
        "knots": KNOTS,
        "degree": _whole(0, 20),
        "include_intercept": BOOLEAN,
        "lower_bound": NUMBER,
        "upper_bound": NUMBER,
        "extrapolation": BEYOND,
    },
}
OMITTED = {"levels", "df", "knots", "lower_bound", "upper_bound"}
INNER = ["center", "scale", "log"]
# What each function keeps of the data.
STATES = {
    "center": {"ddof", "center", "scale"},
    "scale": {"ddof", "center", "scale"},
    "poly": {"alpha", "norms2"},
    "bs": {"lower_bound", "upper_bound", "knots"},
}
