r"""Batch normalization is batch-effect removal: the same functions, other names.

    BatchNorm in training     standardization by minibatch, ddof 0, ε
    BatchNorm in evaluation   a frozen correction
    InstanceNorm              standardization, the batch label being the sample
    per-domain BN, AdaBN      standardization by domain
    ComBat                    tends to it as batches grow: shrinkage fades as 1 / n
    logs                      turn what multiplies a batch into what is added to it

on activations of a network and on gene expression alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch
from batchcorr.bridge.claims import _limits
from batchcorr.bridge.claims._figures import BLUE, GREY, VERMILION, label, panel
from batchcorr.bridge.claims._identities import activations, arrays, identities
from batchcorr.bridge.claims._networks import normal, seeded
from batchcorr.bridge.claims._result import Claim, Measured, near, zero
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

__all__ = ["unity"]

EXACT = {
    "train": "BN(train) = standardization, ddof 0",
    "eval": "BN(eval) = frozen correction",
    "running_var": "running_var = variance, ddof 1",
    "instance": "InstanceNorm = batch is the sample",
    "domain": "per-domain BN = batch is the domain",
    "adabn": "AdaBN = Standardize by domain",
    "domain_layer": "DomainBatchNorm (eval) = Standardize",
    "combat": "ComBat, no shrinkage = Standardize",
}
SHRINKAGE = {3: 0.33, 10: 0.28, 30: 0.18, 100: 0.10, 1000: 0.011, 10_000: 0.001}


@seeded
def unity(matrix: Any = None, batch: Sequence[Any] | None = None) -> Claim:
    """Measure that normalization layers and batch correction are the same functions.

    Parameters
    ----------
    matrix
        Expression beside the activations: samples × genes, on a log scale; None: the
        activations alone.
    batch
        Batch of each sample.

    Returns
    -------
    Claim
        The largest difference of each layer of torch from the same act of this package,
        what ComBat's shrinkage adds by the size of a batch, and what logs do.

    Raises
    ------
    InputError
        If only one of matrix and batch is given.

    Examples
    --------
    >>> unity().measured["train, activations"].holds
    True
    """
    if (matrix is None) != (batch is None):
        msg = "Give the matrix and the batch of its samples, or neither."
        raise InputError(msg)
    tables = {"activations": activations()}
    if batch is not None:
        tables["arrays"] = arrays(matrix, batch)
    found = {name: identities(table) for name, table in tables.items()}
    shrinkage = {n: _limits.shrinkage(n) for n in SHRINKAGE}
    measured: dict[str, Measured] = {}
    for where, differences in found.items():
        for key, what in EXACT.items():
            measured[f"{key}, {where}"] = zero(
                f"{what}; {where}", differences[key], 1e-12
            )
    return Claim(
        name="unity",
        title="One function: BatchNorm and batch correction agree to rounding",
        statement=(
            "BatchNorm in training is standardization by batch, in evaluation a frozen "
            "correction; InstanceNorm takes the sample for the batch, per-domain BN and "
            "AdaBN the domain. ComBat tends to it as batches grow, and logs turn "
            "multiplicative effects into additive ones."
        ),
        measured={
            **measured,
            "train_float32": zero(
                "BN(train) in float32", found["activations"]["train_float32"], 1e-5
            ),
            "train_ddof_1": near(
                "BN(train) against ddof 1",
                found["activations"]["train_ddof_1"],
                1e-2,
                0.5,
            ),
            **_shrinkage(shrinkage),
            **_logs(tables["arrays"].rows if "arrays" in tables else None),
        },
        series={"found": found, "shrinkage": shrinkage},
        draw=_draw,
    )


def _shrinkage(found: Mapping[int, float]) -> dict[str, Measured]:
    measured = {
        f"shrinkage_{n}": near(
            f"ComBat against no shrinkage, rms, n = {n:,}", found[n], expected, 0.5
        )
        for n, expected in SHRINKAGE.items()
    }
    ratio = found[1000] / found[10_000]
    measured["shrinkage_rate"] = near(
        "… falls from n = 1,000 to 10,000 by the factor", ratio, 10, 0.2
    )
    return measured


def _logs(matrix: Any) -> dict[str, Measured]:
    """Measure multiplicative effects on logs; a matrix is taken to be log2."""
    positive = {"simulated": torch.exp(normal(40, 100))}
    if matrix is not None:
        positive["arrays"] = torch.exp2(matrix)
    measured = {
        f"log, {name}": zero(
            f"multiplied, then log, then linear removal: what is left; {name}",
            _limits.log_residual(x),
            1e-12,
        )
        for name, x in positive.items()
    }
    raw, log = (_limits.variance_ratio(log=log) for log in (False, True))
    return measured | {
        "log1p": near(
            "log1p: off by, means of 1 to 20", _limits.log1p_error(), 0.46, 0.05
        ),
        "variance_raw": near("batch-variance ratio left, raw", raw, 4.13, 0.05),
        "variance_log": near("batch-variance ratio left, log", log, 1.36, 0.05),
    }


def _draw(figure: Figure, series: Mapping[str, Any]) -> None:
    """Draw the difference of each pair, and how shrinkage fades."""
    figure.set_size_inches(figure.get_figwidth(), 4.6)
    upper, lower = figure.subplots(2, 1, height_ratios=[1.7, 1])
    panel(upper, x="largest difference")
    for row, (key, what) in enumerate(reversed(EXACT.items())):
        upper.text(1.3e-17, row + 0.2, what, va="bottom")
        upper.plot([1e-17, 1e-12], [row, row], color=GREY, linewidth=0.3)
        for colour, (where, found) in zip(
            (BLUE, VERMILION), series["found"].items(), strict=False
        ):
            marker = "o" if where == "activations" else "D"
            upper.plot(max(found[key], 1.3e-17), row, marker, color=colour)
    upper.axvline(1e-12, color=GREY, linewidth=0.6, linestyle=(0, (4, 2)))
    top = len(EXACT) + 0.1
    upper.text(1.3e-12, top, "tolerance", color=GREY)
    upper.text(1.3e-17, top, "● activations", color=BLUE)
    if "arrays" in series["found"]:
        upper.text(4e-15, top, "◆ arrays", color=VERMILION)
    upper.set(xscale="log", xlim=(1e-17, 1e-9), ylim=(-0.6, top + 0.6), yticks=[])
    upper.spines["left"].set_visible(False)
    panel(lower, x="samples in a batch", y="rms change by\nComBat's shrinkage")
    sizes, values = zip(*series["shrinkage"].items(), strict=True)
    lower.plot(sizes, values, "o-", color=BLUE)
    guide = [values[-1] * sizes[-1] / n for n in (100, 10_000)]
    lower.plot((100, 10_000), guide, color=GREY, linestyle=(0, (4, 2)), linewidth=0.8)
    label(lower, "1 / n", (1000, guide[0] / 10), GREY, xytext=(5, 5))
    lower.set(xscale="log", yscale="log")
