"""What a search for surrogate variables refuses, by its options and the known model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.errors import (
    CovariateWarning,
    DesignError,
    InputError,
    did_you_mean,
    warn,
)
from batchcorr.estimators.options import check_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchcorr.estimators.known_model import KnownModel

    Floats = NDArray[np.float64]

__all__ = ["IN_MEMORY", "check_model", "check_number", "check_options", "warn_of_fewer"]

IN_MEMORY = ("sva", "two_step", "supervised")
"""Methods that look at single values, and not at products of samples alone."""

METHODS = (*IN_MEMORY, "ruvg", "ruvs", "ruvr")


def check_options(estimator: Any, **given: Any) -> None:
    """Refuse methods there are not, and what a method needs and is not given."""
    method = estimator.method
    if method not in METHODS:
        msg = f"There is no method {method!r}. {did_you_mean(method, METHODS)}"
        raise InputError(msg)
    needs = {"supervised": "controls", "ruvg": "controls", "ruvs": "replicates"}
    name = needs.get(method)
    if name is not None and given[name] is None:
        what = {
            "controls": "controls=, features known not to follow what is of interest",
            "replicates": "replicates=, a label of each sample: those of one label "
            "should not differ",
        }[name]
        msg = f"{method} needs {what}."
        raise InputError(msg)
    takes = {"controls": METHODS[2:], "replicates": ("ruvs",)}
    for name, methods in takes.items():
        if given[name] is not None and method not in methods:
            msg = f"{method} takes no {name}: {' and '.join(methods)} do."
            raise InputError(msg)
    count = estimator.n_variables
    if count is None and method not in IN_MEMORY:
        msg = (
            f"{method} cannot choose the number of surrogate variables: give "
            "n_variables=, starting with 1 or 2, and see what more would change."
        )
        raise InputError(msg)
    for name in ("n_variables", "rounds", "permutations"):
        value = getattr(estimator, name)
        if value is not None:
            check_whole(name, value, 1)


def check_model(method: str, known: KnownModel) -> None:
    """Refuse a model without what the method needs of it."""
    if method == "sva" and known.of_interest == 0:
        msg = (
            "sva needs a variable of interest, and none is given: give it as "
            "covariates=, and as null= only the covariates that are not of interest. "
            "Without a variable of interest, use method='two_step'."
        )
        raise InputError(msg)


def check_number(count: int, known: KnownModel) -> None:
    """Refuse more columns than the samples leave room for."""
    n, p = known.full.shape
    if count > n - p - 1:
        msg = (
            f"n_variables={count} is too many: with {n} samples and {p} columns of "
            f"covariates (with the mean) at most {n - p - 1} are possible."
        )
        raise DesignError(msg)


def warn_of_fewer(found: int, asked: int | None) -> None:
    """Say that there are no columns, or fewer than were asked for."""
    if found == 0:
        msg = (
            "No surrogate variable was found: the covariates leave nothing but noise. "
            "Continue without surrogate variables, or set their number with "
            "n_variables=."
        )
        warn(msg, CovariateWarning)
    elif asked is not None and found < asked:
        msg = (
            f"Only {found} surrogate variables were found, although {asked} were asked "
            "for: there are no more."
        )
        warn(msg, CovariateWarning)
