"""The sheet: a table with a row for each sample, its name, batch and covariates.

The names are in the first column, or in another one if only that has them: R's
`write.csv(sheet)` puts row numbers in front.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from batchcorr.cli.console import note
from batchcorr.cli.tables import COMMA, THOUSANDS, read_texts
from batchcorr.errors import (
    BatchCorrWarning,
    InputError,
    MissingKeyError,
    did_you_mean,
    some,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    import pandas as pd

    from batchcorr.cli.dialects import Given

__all__ = ["read_sheet"]

WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")
DECIMAL = re.compile(r"-?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)([eE][+-][0-9]+)?")
"""As R writes numbers: a well 1E5 and a number of many digits are names."""


def read_sheet(
    path: Path, given: Given, column: str | None, names: Collection[str]
) -> pd.DataFrame:
    """Read a sheet: a row for each sample, under its name.

    Parameters
    ----------
    column
        The column with the samples' names; None: the first, or the only one that has
        some of `names`.

    Raises
    ------
    FileError, InputError
        If it is no table, or a name or column is there twice.
    MissingKeyError
        If there is no such column.
    """
    table = read_texts(path, given)
    frame = table.cells
    require_unique(table.columns, "columns", path)
    if column is None and not set(table.rows) & set(names):
        column = _column_of_names(path, frame, names)
    if column is not None and column != (table.style.corner or "").strip():
        frame = _named_by(path, frame, column)
        if table.style.corner:
            frame.insert(0, table.style.corner, table.rows)
    require_unique(list(frame.index), "samples", path)
    comma = table.style.decimal == ","
    comma = comma or (given.decimal is None and table.style.separator != ",")
    labels: pd.DataFrame = frame.apply(_as_labels, comma=comma)
    return labels


def require_unique(names: list[str], what: str, path: Path) -> None:
    """Refuse names that occur twice."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        shown = some(map(repr, twice))
        msg = f"{path} has {what} of the same name: {shown}. Names must differ."
        raise InputError(msg)


def _column_of_names(
    path: Path, frame: pd.DataFrame, names: Collection[str]
) -> str | None:
    """The column that holds names of samples, if there is one."""
    known = set(names)
    fitting = [str(name) for name in frame if frame[name].isin(known).any()]
    if len(fitting) > 1:
        shown = some(map(repr, fitting))
        msg = (
            f"The first column of {path} has no sample names, but several other "
            f"columns do: {shown}. Give the column of sample names with "
            "--sample-column."
        )
        raise InputError(msg)
    if fitting:
        note(f"{path} names the samples in its column {fitting[0]!r}.")
    return fitting[0] if fitting else None


def _named_by(path: Path, frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The sheet under the names in one of its columns, which stays among them."""
    if column not in frame:
        msg = f"{column!r} is not a column of {path}. {did_you_mean(column, frame)}"
        raise MissingKeyError(msg)
    nameless = frame[column].isna().to_numpy()
    if nameless.any():
        msg = (
            f"{path} has no sample in column {column!r} of row "
            f"{int(nameless.argmax()) + 1}: name it, or delete the row."
        )
        raise InputError(msg)
    return frame.set_axis(frame[column].tolist(), axis=0)


def _as_labels(column: pd.Series, *, comma: bool) -> pd.Series:
    """A column of texts as whole numbers or decimals, if all of it is.

    Numbers that begin with a 0, such as 007, are names and stay texts. With `comma` a
    comma is a decimal mark where all the column can be read so.
    """
    import pandas as pd

    texts = {text for text in column if text is not None}
    pointed = {text: text for text in texts}
    if comma and _has_decimal_commas(texts):
        pointed = {text: text.replace(",", ".") for text in texts}
    complete = not column.isna().any()
    kind: type = str
    if all(WHOLE.fullmatch(text) for text in pointed.values()):
        kind = int if complete else float
    elif all(DECIMAL.fullmatch(text) for text in pointed.values()):
        kind = float
        _warn_of_merged(str(column.name), pointed.values())
    if kind is str:
        return column
    values = [float("nan") if text is None else kind(pointed[text]) for text in column]
    return pd.Series(values, index=column.index, name=column.name)


def _has_decimal_commas(texts: Iterable[str]) -> bool:
    marked = [text for text in texts if "," in text]
    whole = (text for text in texts if "," not in text)
    return (
        bool(marked)
        and all(map(COMMA.fullmatch, marked))
        and not all(map(THOUSANDS.fullmatch, marked))
        and all(map(WHOLE.fullmatch, whole))
    )


def _warn_of_merged(column: str, texts: Iterable[str]) -> None:
    """Warn of labels that are told apart as texts and not as numbers: 1.1 and 1.10."""
    known: dict[float, str] = {}
    for text in sorted(texts):
        same = known.setdefault(float(text), text)
        if same != text:
            msg = (
                f"{column!r} contains numbers, so that {same} and {text} are the same: "
                "if they are labels, put a letter before them."
            )
            warn(msg, BatchCorrWarning)
            return
