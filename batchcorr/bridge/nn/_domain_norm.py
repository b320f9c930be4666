r"""BatchNorm with statistics of its own for every domain: standardization by batch.

    y = γ (x - x̄_d) / √(v_d + ε) + β,       d the domain of the sample

In training x̄_d and v_d are those of the domain's rows in the minibatch, in evaluation
its running statistics: one frozen correction with a batch for each domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._norms import normalizing
from batchcorr.bridge._rows import codes_of_rows, from_rows, to_rows
from batchcorr.bridge._shrink import shrunken_statistics
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._labels import read_labels
from batchcorr.bridge.nn._shape import require_shape
from batchcorr.errors import InputError, UnknownBatchError, did_you_mean
from batchcorr.models.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from torch import Tensor

    from batchcorr.bridge.nn._labels import Domains

__all__ = ["DomainBatchNorm"]

UNSEEN = ("error", "global", "shrink")


class DomainBatchNorm(nn.Module):
    """What the layers of all dimensions share."""

    dimensions: int
    running_mean: Tensor
    running_var: Tensor
    rows_seen: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        domains: Sequence[Hashable],
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        unseen: str = "error",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if unseen not in UNSEEN:
            msg = f"unseen must be one of {UNSEEN}, not {unseen!r}."
            raise InputError(msg)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.domains = _read_domains(domains)
        self.unseen = unseen
        make = {"device": device, "dtype": dtype}
        shape = (len(self.domains), num_features)
        self.weight = nn.Parameter(torch.ones(num_features, **make)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **make)) if affine else None
        self.register_buffer("running_mean", torch.zeros(shape, **make))
        self.register_buffer("running_var", torch.ones(shape, **make))
        whole = {"device": device, "dtype": torch.long}
        self.register_buffer("rows_seen", torch.zeros(shape[0], **whole))
        self.register_buffer("num_batches_tracked", torch.zeros(shape[0], **whole))

    def forward(self, x: Tensor, domain: Domains | None = None) -> Tensor:
        """Correct each sample by the statistics of its domain.

        Parameters
        ----------
        x
            Activations, samples first and channels second.
        domain
            Domain of each sample, or one for all; None: what `domains` says around.

        Returns
        -------
        Corrected activations of the same shape and dtype.
        """
        require_shape(x, self.num_features, self.dimensions)
        labels = read_labels(domain, int(x.shape[0]))
        rows = to_rows(x)
        known = {label: code for code, label in enumerate(self.domains)}
        if self.training:
            self._require_known(labels, known)
            codes = codes_of_rows(np.asarray([known[d] for d in labels]), x.shape)
            mean, variance = self._minibatch(rows, codes)
        else:
            fresh = [d for d in dict.fromkeys(labels) if not self._is_ready(known, d)]
            if fresh and self.unseen == "error":
                self._require_known(fresh, known)
            place = {label: len(known) + k for k, label in enumerate(fresh)}
            codes = codes_of_rows(
                np.asarray([place.get(d, known.get(d, 0)) for d in labels]), x.shape
            )
            mean, variance = self.running_mean, self.running_var
            if fresh:
                more = self._fallback(rows, codes, len(known), len(fresh))
                mean = torch.cat([mean, more[0].to(mean.dtype)])
                variance = torch.cat([variance, more[1].to(variance.dtype)])
        correction = normalizing(mean, variance, self.eps, self.weight, self.bias)
        return from_rows(tensor_affine(rows, correction, codes), x.shape)

    def as_batch_norm(self, domain: Hashable) -> nn.Module:
        """Return an ordinary BatchNorm with the running statistics of one domain.

        Parameters
        ----------
        domain
            One of the layer's domains.

        Returns
        -------
        A `torch.nn.BatchNorm` layer of the same dimensions, γ and β.
        """
        known = {label: code for code, label in enumerate(self.domains)}
        self._require_known([domain], known)
        plain: Any = getattr(nn, f"BatchNorm{self.dimensions}d")(
            self.num_features,
            self.eps,
            self.momentum,
            affine=self.weight is not None,
            device=self.running_mean.device,
            dtype=self.running_mean.dtype,
        )
        with torch.no_grad():
            plain.running_mean.copy_(self.running_mean[known[domain]])
            plain.running_var.copy_(self.running_var[known[domain]])
            plain.num_batches_tracked.copy_(self.num_batches_tracked[known[domain]])
            if self.weight is not None and self.bias is not None:
                plain.weight.copy_(self.weight)
                plain.bias.copy_(self.bias)
        return plain.train(self.training)  # type: ignore[no-any-return]

    def _minibatch(self, rows: Tensor, codes: Any) -> tuple[Tensor, Tensor]:
        """Return the statistics of each domain's rows, and follow them."""
        found = tensor_moments(rows, codes, len(self.domains))
        n = found.n[:, 0]
        for code in torch.nonzero(n == 1).ravel().tolist():
            msg = (
                f"Domain {self.domains[code]!r} has one row in this batch, which has "
                "no variance: give every domain in a training batch at least two "
                "samples (a sampler by domain), or train with ComBatNorm."
            )
            raise InputError(msg)
        self._follow(found)
        share = torch.where(n > 0, n, torch.ones_like(n))[:, None]
        return found.mean, found.squares / share

    @torch.no_grad()
    def _follow(self, found: Moments) -> None:
        """Move the running statistics of the domains that were met."""
        n = found.n[:, 0]
        met = n > 0
        self.num_batches_tracked += met.long()
        self.rows_seen += n.long()
        share = met.to(self.running_mean.dtype)[:, None]
        if self.momentum is None:
            share = share / torch.clamp(self.num_batches_tracked, min=1)[:, None]
        else:
            share = share * self.momentum
        variance = found.squares / torch.clamp(n - 1, min=1)[:, None]
        self.running_mean.lerp_(found.mean.to(share.dtype), share)
        self.running_var.lerp_(variance.to(share.dtype), share)

    def _fallback(
        self, rows: Tensor, codes: Any, first: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Return statistics for domains never met: codes `first` and up."""
        if not bool((self.rows_seen > 0).any()):
            msg = (
                "The layer has met no domain yet, so there is nothing to fall back "
                "on: train it, or load a state_dict."
            )
            raise InputError(msg)
        mean, variance = self._everywhere()
        if self.unseen == "global":
            shape = (count, self.num_features)
            return mean.expand(shape), variance.expand(shape)
        pick = np.flatnonzero(codes >= first)
        own = tensor_moments(rows[torch.from_numpy(pick)], codes[pick] - first, count)
        return shrunken_statistics(own, mean, variance)

    def _everywhere(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance over the domains met, each by its rows."""
        n = self.rows_seen.double()[:, None]
        mean = self.running_mean.double()
        squares = self.running_var.double() * torch.clamp(n - 1, min=0)
        none = mean.new_empty((len(n), 0, self.num_features))
        gram = mean.new_empty((len(n), 0, 0, 1))
        all_of_them = Moments(n, n, mean, squares, none[:, :, :1], none, gram).collapse(
            [0] * len(n), 1
        )
        spare = torch.clamp(all_of_them.n - 1, min=1)
        return all_of_them.mean[0], (all_of_them.squares / spare)[0]

    def _is_ready(self, known: dict[Hashable, int], domain: Hashable) -> bool:
        """Whether a domain is known and was met in training."""
        code = known.get(domain)
        return code is not None and bool(self.num_batches_tracked[code] > 0)

    def _require_known(
        self, labels: Sequence[Hashable], known: dict[Hashable, int]
    ) -> None:
        for label in labels:
            if label not in known:
                remedy = (
                    "Name all domains when the layer is made."
                    if self.training
                    else "For others, make the layer with unseen='global' or 'shrink'."
                )
                msg = (
                    f"The domain {label!r} is not one of the layer's. "
                    f"{did_you_mean(label, self.domains)} {remedy}"
                )
                raise UnknownBatchError(msg)
            if not self.training and not self._is_ready(known, label):
                msg = (
                    f"The domain {label!r} was never met in training, so it has no "
                    "statistics. Train on samples of it, or make the layer with "
                    "unseen='global' or 'shrink'."
                )
                raise UnknownBatchError(msg)

    def get_extra_state(self) -> list[Hashable]:
        """Return what state_dict holds beside arrays.

        Returns
        -------
        The domains, in their order.
        """
        return list(self.domains)

    def set_extra_state(self, state: list[Hashable]) -> None:
        """Refuse statistics of other domains, or in another order.

        Parameters
        ----------
        state
            The domains that the statistics are of.
        """
        if list(state) != self.domains:
            msg = (
                f"The state_dict is of the domains {list(state)}, and this layer of "
                f"{self.domains}: make it with the same domains in the same order."
            )
            raise InputError(msg)

    def extra_repr(self) -> str:
        """Return what torch prints in the layer's brackets.

        Returns
        -------
        Channels, domains and options.
        """
        return (
            f"{self.num_features}, domains={self.domains}, eps={self.eps}, "
            f"momentum={self.momentum}, affine={self.weight is not None}, "
            f"unseen={self.unseen!r}"
        )


def _read_domains(domains: Sequence[Hashable]) -> list[Hashable]:
    """Return the labels of all domains, each once."""
    given: Any = domains.tolist() if hasattr(domains, "tolist") else domains
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        msg = f"domains must be a list of labels, one for each domain, not {domains!r}."
        raise InputError(msg)
    labels = [_plain(label) for label in read_labels(list(given), len(list(given)))]
    if not labels or len(set(labels)) < len(labels):
        msg = f"Each domain must be named once, and there must be one: {labels!r}."
        raise InputError(msg)
    return labels


def _plain(label: Any) -> Hashable:
    """Return a label that a state_dict can hold, so that torch.load reads it again."""
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, tuple):
        return tuple(_plain(part) for part in label)
    kinds: tuple[Any, ...] = (str, bytes, bool, int, float)
    for kind in kinds:
        if isinstance(label, kind):  # of an enumeration, its value
            plain: Hashable = kind(label)
            return plain
    msg = (
        f"The domain {label!r:.60} is a {type(label).__name__}, which torch.load "
        "would refuse to read from a state_dict: use strings or numbers, for "
        "instance str(label)."
    )
    raise InputError(msg)
