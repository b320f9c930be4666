"""The false positive rates that an audit predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchcorr.errors import InputError
from batchcorr.estimators.audit import INFLATED
from batchcorr.pl._matplotlib import BLUE, VERMILION
from batchcorr.pl._panels import panel, thin_spines
from batchcorr.tl import Audit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["predicted_error"]

NAMES = {
    "combat": "ComBat, then test",
    "standardize": "standardize, then test",
    "remove_batch_effect": "linear removal, then test",
    "one_step": "batch in the model",
}


def predicted_error(audit: Audit, *, ax: Axes | None = None) -> Axes:
    """Draw the false positive rates that an audit predicts.

    Parameters
    ----------
    audit
        The result of `tl.audit` called with ``test=``.
    ax
        Axes to draw on; None: a new figure.

    Returns
    -------
    The axes: one bar per analysis (a correction followed by a test, or the one-step
    test), and a line at the nominal rate. Rates well above it have another colour.

    Raises
    ------
    InputError
        If `audit` is not an audit, or predicts no rates.

    Examples
    --------
    >>> import batchcorr as bc
    >>> audit = bc.tl.audit(bc.datasets.bladder(), "batch", test="cancer")
    >>> ax = bc.pl.predicted_error(audit)
    >>> len(ax.patches)
    4
    """
    if not isinstance(audit, Audit):
        msg = (
            "audit must be a result of batchcorr.tl.audit, not a "
            f"{type(audit).__name__}."
        )
        raise InputError(msg)
    rates = audit.predicted["false_positive_rate"]
    if not len(rates):
        why = (
            "a finding makes the correction impossible (see audit.findings)"
            if audit.blocks
            else "it was made without test= (use batchcorr.tl.audit(…, test=…))"
        )
        msg = f"The audit predicts no false positive rates: {why}."
        raise InputError(msg)
    ax = panel(ax, (4.4, 1.9))
    row = -np.arange(len(rates))
    values = rates.to_numpy(float)
    marked = values > INFLATED * audit.alpha
    ax.barh(row, values, 0.62, color=np.where(marked, VERMILION, BLUE))
    ax.axvline(audit.alpha, color="black", lw=1, ls="--")
    for at, value in zip(row, values, strict=True):
        ax.annotate(
            f"{value:.1%}", (max(value, audit.alpha), at), (4, 0),
            textcoords="offset points", va="center", fontsize="small",
        )  # fmt: skip
    names = [NAMES.get(str(analysis), str(analysis)) for analysis in rates.index]
    ax.set_yticks(row, names, fontsize="small")
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, max(values.max() * 1.2, audit.alpha * 2))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel(f"false positives at α = {audit.alpha:g}")
    thin_spines(ax)
    return ax
