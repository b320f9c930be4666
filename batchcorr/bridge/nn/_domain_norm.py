r"""BatchNorm with statistics of its own for every domain: standardization by batch.

    y = γ (x - x̄_d) / √(v_d + ε) + β,       d the domain of the sample

In training x̄_d and v_d are those of the domain's rows in the minibatch, in evaluation
its running statistics: one frozen correction with a batch for each domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch import nn
from torch.nn import functional

from batchcorr.bridge._running import wide
from batchcorr.bridge._shrink import channel_statistics, shrunken_statistics
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._domain_state import (
    MANY,
    domains_as_tensor,
    domains_of_state,
    expand_plain_state,
)
from batchcorr.bridge.nn._labels import (
    matching,
    read_labels,
    require_domains,
)
from batchcorr.bridge.nn._step import normalize_batch, places_of, require_shape
from batchcorr.errors import InputError, UnknownBatchError, did_you_mean

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
        self.domains = require_domains(domains)
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
        self._met: set[int] = set()  # domains known to have statistics, without a look

    @classmethod
    def from_batch_norm(
        cls, norm: nn.Module, domains: Sequence[Hashable], *, unseen: str = "error"
    ) -> Self:
        """Make a layer whose domains all start from the statistics of a BatchNorm.

        Parameters
        ----------
        norm
            A trained `torch.nn.BatchNorm1d`, 2d or 3d, or SyncBatchNorm.
        domains, unseen
            As for the layer.

        Returns
        -------
        The layer, in the mode of `norm`.

        Examples
        --------
        >>> norm = nn.BatchNorm1d(3).eval()
        >>> from batchcorr.bridge.nn import DomainBatchNorm1d
        >>> layer = DomainBatchNorm1d.from_batch_norm(norm, ["mon", "tue"])
        >>> x = torch.ones(2, 3)
        >>> torch.equal(layer(x, ["mon", "tue"]), norm(x))
        True
        """
        old: Any = norm
        like = old.weight if old.affine else old.running_mean
        layer = cls(
            old.num_features,
            domains,
            old.eps,
            old.momentum,
            affine=old.affine,
            unseen=unseen,
            device=like.device,
            dtype=like.dtype,
        )
        layer.load_state_dict(old.state_dict())
        layer.num_batches_tracked.clamp_(min=1)  # made from it: none is unmet
        layer.rows_seen.fill_(MANY)
        return layer.train(old.training)

    # -- the pass ------------------------------------------------------------------------

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
        rows_of: dict[Hashable, list[int]] = {}
        for row, label in enumerate(read_labels(domain, int(x.shape[0]))):
            rows_of.setdefault(label, []).append(row)
        groups = self._groups(rows_of)
        positions = x[:1, :1].numel()
        for (_, label), rows in groups.items():
            if self.training and len(rows) * positions == 1:
                msg = (
                    f"Domain {label!r} has one row in this batch, which has no variance: "
                    "give every domain in a training batch at least two samples (a "
                    "sampler by domain), or train with ComBatNorm."
                )
                raise InputError(msg)
        if len(groups) == 1:
            return self._normalized(x, next(iter(groups))[0])
        order = [row for rows in groups.values() for row in rows]
        moved = order != list(range(len(order)))
        if moved:
            x = x.index_select(0, places_of(order, x.device))
        parts = torch.split(x, [len(rows) for rows in groups.values()])
        done = [
            self._normalized(part, code)
            for part, (code, _) in zip(parts, groups, strict=True)
        ]
        y = torch.cat(done) if done else x
        if moved:
            back = sorted(range(len(order)), key=order.__getitem__)
            y = y.index_select(0, places_of(back, x.device))
        return y

    def _groups(
        self, rows_of: dict[Hashable, list[int]]
    ) -> dict[tuple[int | None, Hashable], list[int]]:
        """Rows by domain: its place and label, or None and a label that is not known.

        All is checked and counted before anything is normalized.
        """
        found: dict[int, tuple[Hashable, list[int]]] = {}
        strange: dict[tuple[int | None, Hashable], list[int]] = {}
        for label, rows in rows_of.items():
            match = matching(label, self.domains)
            code = self.domains.index(match) if match in self.domains else None
            if code is None or not (self.training or self._is_ready(code)):
                if self.training or self.unseen == "error":
                    raise UnknownBatchError(self._strange(label, code))
                strange[None, label] = rows
            else:
                found[code] = (match, sorted([*found.get(code, (match, []))[1], *rows]))
        known: dict[tuple[int | None, Hashable], list[int]] = {
            (code, label): rows for code, (label, rows) in sorted(found.items())
        }
        return known | strange

    def _normalized(self, x: Tensor, code: int | None) -> Tensor:
        """Rows of one domain, by their own statistics or by those of the domain."""
        affine = (self.weight, self.bias)
        if code is None:
            mean, variance = self._fallback(x)
        else:
            mean, variance = self.running_mean[code], self.running_var[code]
        if not self.training or code is None:
            return functional.batch_norm(x, mean, variance, *affine, eps=self.eps)
        self.num_batches_tracked[code] += 1
        self.rows_seen[code] += x.numel() // self.num_features
        self._met.add(code)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked[code])
        return normalize_batch(x, (mean, variance), affine, share, self.eps)

    # -- domains without statistics ------------------------------------------------------

    def _is_ready(self, code: int) -> bool:
        """Whether a domain was met in training; looked up on the device only once."""
        if code not in self._met and bool(self.num_batches_tracked[code] > 0):
            self._met.add(code)
        return code in self._met

    def _strange(self, label: Hashable, code: int | None) -> str:
        """What to say of a domain without statistics."""
        if code is not None:
            return (
                f"The domain {label!r} was never met in training, so it has no "
                "statistics. Train on samples of it, or make the layer with "
                "unseen='global' or 'shrink'."
            )
        remedy = (
            "Name all domains when the layer is made."
            if self.training
            else "For others, make the layer with unseen='global' or 'shrink'."
        )
        return (
            f"The domain {label!r} is not one of the layer's. "
            f"{did_you_mean(label, self.domains)} {remedy}"
        )

    def _fallback(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics for the rows of a domain never met."""
        if not bool((self.rows_seen > 0).any()):
            msg = (
                "The layer has met no domain yet, so there is nothing to fall back "
                "on: train it, or load a state_dict."
            )
            raise InputError(msg)
        mean, variance = self._everywhere()
        if self.unseen == "shrink":
            mean, variance = shrunken_statistics(*channel_statistics(x), mean, variance)
        return mean.to(self.running_mean), variance.to(self.running_var)

    def _everywhere(self) -> tuple[Tensor, Tensor]:
        """Mean and variance over the domains met, each by its rows."""
        n, means = wide(self.rows_seen)[:, None], wide(self.running_mean)
        share = n / n.sum()
        mean = (share * means).sum(0)
        squares = (
            wide(self.running_var) * (n - 1).clamp(min=0) + n * (means - mean) ** 2
        )
        return mean, squares.sum(0) / (n.sum() - 1).clamp(min=1)

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
        match = matching(domain, self.domains)
        code = self.domains.index(match) if match in self.domains else None
        if code is None or not (self.training or self._is_ready(code)):
            raise UnknownBatchError(self._strange(domain, code))
        plain: Any = getattr(nn, f"BatchNorm{self.dimensions}d")(
            self.num_features,
            self.eps,
            self.momentum,
            affine=self.weight is not None,
            device=self.running_mean.device,
            dtype=self.running_mean.dtype,
        )
        with torch.no_grad():
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                getattr(plain, name).copy_(getattr(self, name)[code])
            if self.weight is not None and self.bias is not None:
                plain.weight.copy_(self.weight)
                plain.bias.copy_(self.bias)
        layer: nn.Module = plain.train(self.training)
        return layer

    # -- state ---------------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """Return what state_dict holds beside arrays: a tensor, too.

        Returns
        -------
        The domains in their order, as text in bytes: (length,).
        """
        return domains_as_tensor(self.domains)

    def set_extra_state(self, state: Tensor | list[Hashable]) -> None:
        """Refuse statistics of other domains, or in another order.

        Parameters
        ----------
        state
            The domains that the statistics are of.
        """
        self._met.clear()
        found = domains_of_state(state)
        if found != self.domains:
            msg = (
                f"The state_dict is of the domains {found}, and this layer of "
                f"{self.domains}: make it with the same domains in the same order."
            )
            raise InputError(msg)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *more: Any, **options: Any
    ) -> None:
        """Take a plain BatchNorm's state too: every domain starts from it."""
        expand_plain_state(
            state_dict, prefix, len(self.domains), self.get_extra_state()
        )
        super()._load_from_state_dict(state_dict, prefix, *more, **options)

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
