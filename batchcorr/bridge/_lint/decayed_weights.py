r"""Weight decay on scale-invariant weights: it does not bound what the network computes.

It shrinks a length that means nothing, and by that raises the effective learning rate of
the direction, until it turns by about √(2 · learning rate · decay) in each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchcorr.bridge._lint.result import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchcorr.bridge._lint.scale_invariance import Invariance

__all__ = ["find_decayed_weights"]


def find_decayed_weights(
    invariant: Mapping[str, Invariance], decay: Mapping[str, float]
) -> list[Finding]:
    """Return the scale-invariant weights that an optimizer decays."""
    return [
        _finding(name, invariance, decay[name])
        for name, invariance in invariant.items()
        if name in decay
    ]


def _finding(name: str, invariance: Invariance, decay: float) -> Finding:
    how = "each of its output units" if invariance.by_unit else "it as a whole"
    return Finding(
        rule="decay-on-scale-invariant-weight",
        layer=name.rpartition(".")[0],
        message=(
            f"Weight decay of {decay:g} on {name}, whose length means nothing: scaling "
            f"{how} by ¼ to 4 changes loss and outputs by {invariance.change:.1e} "
            f"(relative), and the cosine of weight and gradient is "
            f"{invariance.cosine:.1e}."
        ),
        evidence={
            "weight_decay": decay,
            "change": invariance.change,
            "cosine": invariance.cosine,
        },
        remedy=(
            "Give the optimizer result.parameter_groups(weight_decay=…), where only "
            "ordinary weights decay; or keep it knowingly, as a schedule of the "
            "effective learning rate."
        ),
    )
