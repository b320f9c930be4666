"""What a method says of itself: faces, command line, registry and tests read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MethodRecord", "Taken"]

Taken = Literal["batch", "batches", "covariates", "nuisance", "weights", "subject"]


@dataclass(frozen=True)
class MethodRecord:
    """A method's name, and what it takes and gives.

    Attributes
    ----------
    name
        The name it is asked for by.
    scale
        Scale of the values it expects: logarithms, raw counts, or any.
    takes
        What `fit` takes with the matrix; "batches" are several batch factors.
    normalizes
        Whether it is a step before correction, and takes no batch effect away.
    returns
        What it makes of a matrix: a corrected one, or columns to give as covariates.
    streams
        Whether it is fitted from moments, and so in blocks, on Dask, out of a file and
        from sites that share no rows.
    testable
        Whether its result may be tested for differences between groups.

    Examples
    --------
    >>> record = MethodRecord("median", takes=frozenset({"batch", "covariates"}))
    >>> record.scale, record.streams, "nuisance" in record.takes
    ('log', False, False)
    """

    name: str
    scale: Literal["log", "counts", "any"] = "log"
    takes: frozenset[Taken] = frozenset()
    normalizes: bool = False
    returns: Literal["matrix", "covariates"] = "matrix"
    streams: bool = False
    testable: bool = False
