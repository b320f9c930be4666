"""What a test is given: uncorrected values, features with enough counts, and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr._anndata.records import if_made_anew, key_of
from batchcorr._anndata.weights import weights_of
from batchcorr.errors import CountsWarning, InputError, warn
from batchcorr.estimators.scale import unlogged
from batchcorr.estimators.weights import checked_weights

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from batchcorr._anndata.records import Record
    from batchcorr.estimators.voom import Voom

__all__ = ["expressed", "read_weights", "refuse_corrected", "warn_of_counts"]


def refuse_corrected(steps: list[Record], layer: str | None) -> None:
    """Refuse values that a correction made, unless its result may be tested."""
    for step in steps:
        if step["normalizes"] or step["testable"]:
            continue
        what = f"layer {layer!r}" if layer else "X"
        source = step.get("source", "X")
        instead = "" if source == (layer or "X") else f" (here {source!r})"
        msg = (
            f"{what} was corrected by {step.get('method')}, and corrected values must "
            "not be tested: p-values would be too small, because the test ignores that "
            f"batch effects were estimated. Test the uncorrected values{instead}; "
            f"batch is in the model anyway. {if_made_anew(what, key_of(layer))}"
        )
        raise InputError(msg)


def warn_of_counts(x: object) -> None:
    """Warn of values that look like counts, where logarithms are tested."""
    if unlogged(x):
        msg = (
            "The values look like counts, but this test needs logarithms: test them "
            "with voom=True; or take logarithms first (batchcorr.pp.log_normalize) and "
            "test with trend=True; or test the counts with PyDESeq2, with batch in its "
            "design."
        )
        warn(msg, CountsWarning)


def expressed(
    voom: Voom | None, min_count: float, group: pd.Series
) -> tuple[Voom, NDArray[np.intp]]:
    """The counts of the features that have enough of them, and which these are."""
    if voom is None:
        msg = "min_count= needs raw counts, which are tested with voom=True: give both."
        raise InputError(msg)
    tested = voom.expressed(min_count, group)
    if len(tested) < 2:
        msg = (
            f"{len(tested)} of {len(voom.seen):,} features have "
            f"min_count={min_count:g} counts in enough samples: give a smaller "
            "min_count."
        )
        raise InputError(msg)
    return voom.take(tested), tested


def read_weights(adata: AnnData, weights: object) -> NDArray[np.float64] | None:
    """Weights of samples (n,) or values (n, G), from a column, a layer or an array."""
    if weights is None:
        return None
    values = checked_weights(weights_of(adata, adata.var_names, weights), adata.shape)
    if (values < 0).any():
        msg = (
            f"weights must not be negative ({values.min():g}): 0 leaves a sample or a "
            "value out."
        )
        raise InputError(msg)
    return values
