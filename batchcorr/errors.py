"""All errors and warnings of the package.

Messages say what is wrong, with which value, what is possible, and what to do. Catch
`BatchCorrError` for all errors; each is also the built-in error that fits
(`ValueError`, `KeyError`, …), so that code which does not know this package handles it
correctly.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "AssociationWarning",
    "BatchCorrError",
    "BatchCorrWarning",
    "BatchSizeWarning",
    "CappedWarning",
    "ConvergenceWarning",
    "CountsWarning",
    "CovariateWarning",
    "DensifyWarning",
    "DesignError",
    "EmptySampleWarning",
    "FeatureWarning",
    "FileError",
    "FileWarning",
    "FoldError",
    "InputError",
    "LayerWarning",
    "LogScaleWarning",
    "MissingKeyError",
    "MissingPackageError",
    "NotFittedError",
    "RepeatWarning",
    "TooLargeError",
    "UnknownBatchError",
    "ViewWarning",
]

_PACKAGE = str(Path(__file__).parent)
LONGEST = 80
"""Characters of a name in a message."""

_collecting: ContextVar[tuple[list[str], ...]] = ContextVar("collecting", default=())
"""The lists that this context's warnings are added to; each thread has its own."""

_silent: ContextVar[bool] = ContextVar("silent", default=False)
"""Whether this context's warnings were given before, and are not to be given again."""


class BatchCorrError(Exception):
    """Base class of all errors of batchcorr."""


class InputError(BatchCorrError, ValueError):
    """An argument or the data cannot be used."""


class DesignError(InputError):
    """Batch, covariates and data do not allow the estimate."""


class UnknownBatchError(DesignError):
    """`transform` was given a batch that `fit` has not seen."""


class NotFittedError(BatchCorrError, ValueError, AttributeError):
    """An estimator was used before `fit`."""


class MissingKeyError(BatchCorrError, KeyError):
    """A column, layer, feature or method that does not exist."""

    def __str__(self) -> str:
        """Return the message as written: `KeyError` would show it in quotes."""
        return str(self.args[0]) if self.args else ""


class MissingPackageError(BatchCorrError, ImportError):
    """An optional package that is needed here is not installed."""


class TooLargeError(BatchCorrError, MemoryError):
    """The result would not fit into memory."""


class FileError(BatchCorrError, OSError):
    """A file cannot be read or written, or is damaged."""


class FoldError(BatchCorrError, ArithmeticError):
    """A folded network does not compute the same as the original one."""


class BatchCorrWarning(UserWarning):
    """Base class of all warnings of batchcorr."""


class AssociationWarning(BatchCorrWarning):
    """A covariate to keep is strongly associated with batch."""


class BatchSizeWarning(BatchCorrWarning):
    """A batch has too few samples for a reliable estimate."""


class CappedWarning(BatchCorrWarning):
    """Corrected counts were limited to their upper bound."""


class ConvergenceWarning(BatchCorrWarning):
    """An iteration stopped before it converged."""


class CountsWarning(BatchCorrWarning):
    """A method for the log scale was given values that are not on a log scale."""


class CovariateWarning(BatchCorrWarning):
    """A covariate may be used in another way than was meant, or is left out."""


class DensifyWarning(BatchCorrWarning):
    """A sparse matrix becomes a large dense one."""


class EmptySampleWarning(BatchCorrWarning):
    """Some samples have no counts."""


class FeatureWarning(BatchCorrWarning):
    """Features stay unchanged: not in the correction, or without an estimate."""


class FileWarning(BatchCorrWarning):
    """A file may be incomplete, or was left by a run that was killed."""


class LayerWarning(BatchCorrWarning):
    """Some layers of a network cannot be captured and are left out."""


class LogScaleWarning(BatchCorrWarning):
    """A method for raw counts was given values that look like logarithms."""


class RepeatWarning(BatchCorrWarning):
    """A matrix that was corrected before is corrected again."""


class ViewWarning(BatchCorrWarning):
    """The result was written to a view of an AnnData, which became a copy."""


def are(count: int) -> str:
    """The verb after "3 of 12 samples": "is" of 1, "are" of others."""
    return "is" if count == 1 else "are"


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """A sentence for the end of a message: the closest of what is `known`, and the rest.

    Examples
    --------
    >>> did_you_mean("bach", ["batch", "age"])
    "Did you mean 'batch'? Available: 'batch', 'age'."
    """
    items = list(known)
    names = list(map(str, items))
    close = get_close_matches(str(name), names, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    if close == [name] and name not in items:
        guess = (
            f"One is named {items[names.index(close[0])]!r}, which is no text: rename it, "
            "as by obs.columns = obs.columns.map(str). "
        )
    return f"{guess}Available: {some(map(repr, names), 20) or 'none'}."


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first few names of a list, and how many more there are, for a message.

    Names of more than 80 characters are cut.

    Examples
    --------
    >>> some(["a", "b"])
    'a, b'
    >>> some(range(22))
    '0, 1, 2, 3, 4 and 17 more'
    """
    texts = [str(name) for name in names]
    shown = [t if len(t) <= LONGEST else f"{t[: LONGEST - 1]}…" for t in texts[:limit]]
    more = f" and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return ", ".join(shown) + more


def _is_inner(filename: str) -> bool:
    """Whether a file is of this package, or of scikit-learn's wrappers around it."""
    return filename.startswith(_PACKAGE) or "sklearn" in Path(filename).parts


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the texts of the warnings that the package gives in this context.

    They are given to the caller as ever. Warnings of other threads, of other processes
    (Dask's workers among them) and of other packages are not collected: those reach the
    user as Python shows them. The list grows with each: ``"BatchSizeWarning: …"``.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"), collected() as texts:
    ...     warn("Mind the gap.", BatchCorrWarning)
    >>> texts
    ['BatchCorrWarning: Mind the gap.']
    """
    texts: list[str] = []
    token = _collecting.set((*_collecting.get(), texts))
    try:
        yield texts
    finally:
        _collecting.reset(token)


@contextmanager
def silenced() -> Iterator[None]:
    """Give no warnings of the package in this context: the same step is made again.

    Examples
    --------
    >>> with silenced():
    ...     warn("Said before.", BatchCorrWarning)
    """
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def warn(message: str, category: type[BatchCorrWarning]) -> None:
    """Warn at the line of the caller's code, however deep in the package this is.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("Mind the gap.", BatchCorrWarning)
    >>> caught[0].category.__name__
    'BatchCorrWarning'
    """
    if _silent.get():
        return
    for texts in _collecting.get():
        texts.append(f"{category.__name__}: {message}")
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_inner(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
