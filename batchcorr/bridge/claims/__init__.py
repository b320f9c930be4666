"""Seven claims about BatchNorm and batch effects, each measured when it is called.

Each is a function that returns a `Claim`: the statement, every number beside the one
expected, a verdict, and a figure. Each runs the package's own routine (`lint`, `fold`,
`recalibrate`, `accumulate`, `Standardize`), so that a broken routine does not pass.
`measure` runs them all, and so does `batchcorr bridge` on the command line. In float64 on
the CPU, always with the same random numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._torch import torch as _torch  # noqa: F401 - says what to install
from batchcorr.bridge.claims._claim import Claim
from batchcorr.bridge.claims._measured import Measured
from batchcorr.bridge.claims.accumulation import accumulation
from batchcorr.bridge.claims.bias import bias
from batchcorr.bridge.claims.dropout import dropout
from batchcorr.bridge.claims.few_shot import few_shot
from batchcorr.bridge.claims.folding import folding
from batchcorr.bridge.claims.scale_invariance import scale_invariance
from batchcorr.bridge.claims.unity import unity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

__all__ = [
    "Claim",
    "Measured",
    "accumulation",
    "bias",
    "dropout",
    "few_shot",
    "folding",
    "measure",
    "scale_invariance",
    "unity",
]

CLAIMS = (bias, folding, scale_invariance, dropout, accumulation, few_shot, unity)


def measure(
    matrix: ArrayLike | None = None, batch: Sequence[object] | None = None
) -> Iterator[Claim]:
    """Measure the seven claims, one after the other.

    Parameters
    ----------
    matrix, batch
        Expression beside the activations in `unity`: samples × genes on a log2 scale,
        and the batch of each sample.

    Yields
    ------
    Claim
        In the order of the numbers they go by, 1 to 7.

    Examples
    --------
    >>> next(measure()).name
    'bias'
    """
    for claim in CLAIMS:
        yield unity(matrix, batch) if claim is unity else claim()
