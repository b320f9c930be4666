r"""Fingerprints of weights: three numbers by which a parameter w is known again.

    ‖w‖,      Σ w_i / ‖w‖,      Σ cos(i) w_i / ‖w‖

The first knows the scale, the second the direction, the third also the order. They are
the same on every device, and nearly so after the weights were rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from batchcorr.bridge._batches import read_batches
from batchcorr.bridge._norms import is_batch_norm, is_frozen
from batchcorr.bridge._running import evaluating, hooked, run, wide
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["fingerprint", "fingerprints"]


def fingerprint(parameter: Tensor) -> list[float]:
    """The three numbers.

    Examples
    --------
    >>> fingerprint(torch.tensor([3.0, 4.0]))[:2]
    [5.0, 1.4]
    """
    flat = parameter.detach().cpu().flatten()
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    flat = wide(flat)
    norm = float(flat.norm())
    turning = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    unit = norm or 1.0
    return [norm, float(flat.sum()) / unit, float((turning * flat).sum()) / unit]


def fingerprints(
    model: nn.Module, loader: Iterable[Any], order: Mapping[str, _BatchNorm]
) -> dict[str, NDArray[np.float64]]:
    """Fingerprints of the parameters before each BatchNorm, after the last one.

    Parameters
    ----------
    model, loader
        The model, and what it is called on: one minibatch is run.
    order
        The BatchNorm layers.

    Returns
    -------
    One row for each parameter, in the order in which their modules are called: (P, 3).
    γ and β are not among them.
    """
    names = {norm: name for name, norm in order.items()}
    found: dict[str, NDArray[np.float64]] = {}
    rows: list[list[float]] = []
    seen: set[nn.Module] = set()

    def note(module: Any, _args: Any, _kwargs: Any) -> None:
        if module in names:
            found[names[module]] = np.array(rows).reshape(-1, 3)
            rows.clear()
        elif module not in seen and not (is_batch_norm(module) or is_frozen(module)):
            seen.add(module)
            own = module.parameters(recurse=False)
            rows.extend(fingerprint(parameter) for parameter in own)

    with hooked(model.modules(), before=note), evaluating(model):
        run(model, next(iter(read_batches(loader))).inputs)
    return found
