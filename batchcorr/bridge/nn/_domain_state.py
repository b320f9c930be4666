"""What a state_dict holds of domains: tensors only, and plain BatchNorms' states too."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from batchcorr.bridge._torch import torch

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import Tensor

__all__ = ["domains_as_tensor", "domains_of_state", "expand_plain_state"]

MANY = 2**20
"""Rows that each domain is taken to have seen where a plain BatchNorm did not count them."""


def domains_as_tensor(domains: list[Hashable]) -> Tensor:
    """The domains in their order, as text in bytes: (length,)."""
    return torch.tensor(list(repr(domains).encode()), dtype=torch.uint8)


def domains_of_state(state: Tensor | list[Hashable]) -> list[Hashable]:
    """The domains that `domains_as_tensor` wrote."""
    if isinstance(state, torch.Tensor):
        text = bytes(state.round().to(torch.uint8).tolist()).decode()
        return list(ast.literal_eval(text))
    return list(state)


def expand_plain_state(
    state_dict: dict[str, Any], prefix: str, count: int, domains: Tensor
) -> None:
    """Make the state of a plain BatchNorm that of `count` domains, in place."""
    mean = state_dict.get(f"{prefix}running_mean")
    if mean is None or mean.ndim != 1:
        return
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        value = state_dict.get(f"{prefix}{name}", torch.ones((), dtype=torch.long))
        state_dict[f"{prefix}{name}"] = value.expand(count, *value.shape).clone()
    tracked = state_dict[f"{prefix}num_batches_tracked"]
    state_dict[f"{prefix}rows_seen"] = MANY * (tracked > 0).long()
    state_dict[f"{prefix}_extra_state"] = domains
