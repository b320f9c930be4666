"""Which columns of a model a contrast weighs, and what it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import DesignError, InputError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchcorr.estimators.contrasts import Contrast
    from batchcorr.estimators.metadata import Metadata

    Floats = NDArray[np.float64]

__all__ = ["compared", "difference", "levels_of", "weights_of"]


def weights_of(metadata: Metadata, contrast: Contrast) -> tuple[list[str], Floats]:
    """The names of the contrasts, and their weights of the design columns: (k, p).

    Raises
    ------
    DesignError
        If the column is not in the model.
    InputError
        If it has no such level.
    """
    names = metadata.names
    own = [
        place
        for place in range(metadata.kept)
        if metadata.terms[place] == contrast.column
    ]
    if not own:
        msg = (
            f"{contrast.column!r} is not among the covariates as a main effect, or does "
            f"not vary. {did_you_mean(contrast.column, metadata.terms[: metadata.kept])}"
        )
        raise DesignError(msg)
    if contrast.weights is None:
        return [_level_of(names[k], contrast.column) for k in own], np.eye(len(names))[
            own
        ]
    levels = {f"{contrast.column}[{level}]": w for level, w in contrast.weights.items()}
    row = np.zeros(len(names))
    for place in own:
        row[place] = levels.pop(names[place], 0.0)
    known = levels_of(metadata, contrast.column)
    if not known:
        msg = (
            f"{contrast.column!r} contains numbers and has no level "
            f"{next(iter(contrast.weights))!r}: give only its name to test its slope, "
            "or make it a category."
        )
        raise InputError(msg)
    unknown = [level for level in contrast.weights if level not in known]
    if unknown:
        msg = (
            f"{contrast.column!r} has no level {unknown[0]!r}. "
            f"{did_you_mean(unknown[0], known)}"
        )
        raise InputError(msg)
    name = " ".join(f"{w:+g} {level}" for level, w in contrast.weights.items() if w)
    return [name], row[None]


def levels_of(metadata: Metadata, column: str) -> list[str]:
    """The levels of a covariate, as text; none where it holds numbers."""
    for variable in metadata.covariates.variables:
        if variable.column == column:
            return [str(level) for level in variable.levels or ()]
    return []


def _level_of(name: str, column: str) -> str:
    inner = name.removeprefix(f"{column}[")
    return inner.removesuffix("]") if inner != name else column


def compared(metadata: Metadata, contrast: Contrast) -> tuple[list[str], str | None]:
    """The name of each contrast, and the level that they are measured from.

    A single level against another is called by its name, and a slope by its column; None
    where nothing is a reference.
    """
    names, _ = weights_of(metadata, contrast)
    if contrast.weights is None:
        levels = levels_of(metadata, contrast.column)
        return names, levels[0] if levels else None
    up = [level for level, weight in contrast.weights.items() if weight > 0]
    down = [level for level, weight in contrast.weights.items() if weight < 0]
    if len(up) == len(down) == 1:
        return up, down[0]
    return names, None


def difference(metadata: Metadata, contrast: Contrast) -> str:
    """What a positive coefficient means: ``treated − control``, say."""
    if contrast.weights is None and not levels_of(metadata, contrast.column):
        return f"slope of {contrast.column}"
    names, reference = compared(metadata, contrast)
    if reference is None:
        return names[0]
    return f"{names[0] if len(names) == 1 else 'level'} − {reference}"
