r"""Functions of torch that only move the values of channels about.

A correction of channels passes a function f if, for all x,

    f(r ∘ x + s) = r' ∘ f(x) + s'

with r', s' the same numbers, perhaps along another axis, repeated or picked out. Whether
and how is found by trying: every value is given the number of its channel as a label,
and the labels go through f. If along one axis of the result each place has one label,
and it is that of a channel, this is the axis of the channels: reshapes move labels
about, an average of equal labels is the label, and an average in which there are zeros
from the border is none. Maxima keep labels too, and corrections with r ≥ 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchcorr.bridge._batches import map_tensors
from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LIKE", "MAXIMA", "MOVES", "SHAPE_ONLY", "channels_after", "sees_border"]

MAXIMA = {f"{a}max_pool{k}d" for a in ("", "adaptive_") for k in (1, 2, 3)}
MOVES = (
    {"clone", "contiguous", "detach", "alpha_dropout", "feature_alpha_dropout"}
    | {"dropout", "dropout1d", "dropout2d", "dropout3d"}
    | {"__getitem__", "flatten", "ravel", "reshape", "reshape_as", "squeeze"}
    | {"unflatten", "unsqueeze", "view", "view_as", "permute", "transpose", "movedim"}
    | {f"{a}avg_pool{k}d" for a in ("", "adaptive_") for k in (1, 2, 3)}
    | {"mean"}
    | MAXIMA
)
"""Functions that are tried, by name."""

SHAPE_ONLY = frozenset(
    {"__len__", "dim", "element_size", "get_device", "is_complex", "is_contiguous"}
    | {"is_floating_point", "ndimension", "nelement", "numel", "size", "stride"}
    | {"new_empty", "new_full", "new_ones", "new_zeros"}
    | {"empty_like", "full_like", "ones_like", "rand_like", "randn_like", "zeros_like"}
)
"""Functions that look at the shape of a tensor and not at its values."""

LIKE = frozenset({"expand_as", "reshape_as", "type_as", "view_as"})
"""Functions that look at the shape or type of their second tensor only."""


def channels_after(
    func: Any, arguments: Any, x: Tensor, axis: int
) -> tuple[int, Tensor] | None:
    """Where the channels along an axis of x are in the result of a function of it.

    The axis of the result, and the channel of each place along it; None if there is none.
    """
    count = x.shape[axis]
    labels = torch.arange(1.0, count + 1, dtype=torch.float64, device="cpu")
    labels = labels.reshape([-1 if k == axis else 1 for k in range(x.ndim)])
    labels = labels.expand(x.shape).contiguous()
    args, kwargs = map_tensors(
        arguments, lambda t: labels if t is x else torch.empty(t.shape, device="cpu")
    )
    moved: Tensor = func(*args, **kwargs)
    whole = moved.round()
    if torch.allclose(moved, whole, rtol=0, atol=1e-9) and whole.min() >= 1:
        for k in sorted(range(moved.ndim), key=lambda k: (k == 0, k)):
            rows = whole.movedim(k, 0).reshape(moved.shape[k], -1)
            if bool((rows == rows[:, :1]).all()):
                return k, rows[:, 0].long() - 1
    return None


def sees_border(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether some results of a convolution see less than its whole kernel."""

    def ones(x: Tensor) -> Tensor:  # and a bias of zeros
        return torch.full(x.shape, float(x.ndim > 1), dtype=torch.float64, device="cpu")

    weight = ones(args[1] if len(args) > 1 else kwargs["weight"])
    args, kwargs = map_tensors((args, kwargs), ones)
    seen: Tensor = func(*args, **kwargs)
    return bool((seen != weight.numel() / seen.shape[1 - weight.ndim]).any())
