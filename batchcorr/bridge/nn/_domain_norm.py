r"""BatchNorm with statistics of its own for every domain: standardization by batch.

    y = γ (x - x̄_d) / √(v_d + ε) + β,       d the domain of the sample

In training x̄_d and v_d are those of the domain's rows in the minibatch, in evaluation
its running statistics: one frozen correction with a batch for each domain.
"""

from __future__ import annotations

import reprlib
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from batchcorr.bridge._channels import (
    SMALLEST,
    channel_statistics,
    require_shape,
    shrunken_statistics,
)
from batchcorr.bridge._running import wide
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._labels import code_of, read_domains, read_labels
from batchcorr.errors import InputError, UnknownBatchError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from torch import Tensor

    from batchcorr.bridge.nn._labels import Domains

__all__ = ["DomainBatchNorm", "affine_of"]

UNSEEN = ("error", "global", "shrink")
MANY = 2**20
"""Rows that each domain is taken to have seen where a plain BatchNorm did not count them."""


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
        self.domains, self.unseen = read_domains(domains), unseen
        make = {"device": device, "dtype": dtype}
        shape = (len(self.domains), num_features)
        self.weight = nn.Parameter(torch.ones(num_features, **make)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **make)) if affine else None
        self.register_buffer("running_mean", torch.zeros(shape, **make))
        self.register_buffer("running_var", torch.ones(shape, **make))
        for name in ("rows_seen", "num_batches_tracked"):
            counts = torch.zeros(shape[0], device=device, dtype=torch.long)
            self.register_buffer(name, counts)
        self._met: set[int] = set()  # codes of domains that have statistics

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

        Raises
        ------
        InputError
            If `norm` is no BatchNorm, has a weight that is computed (pruning), or does
            more than normalize (timm's BatchNormAct2d): `convert_domain_batchnorm` keeps
            its activation.
        """
        old: Any = norm
        plain = type(norm).forward in {_BatchNorm.forward, nn.SyncBatchNorm.forward}
        if not plain or old.running_mean is None:
            msg = (
                "norm must be a BatchNorm with running statistics that does nothing else, "
                f"not a {type(norm).__name__}: dropout or an activation in it would be "
                "lost, which convert_domain_batchnorm(norm, domains) keeps."
            )
            raise InputError(msg)
        how = {"affine": old.affine, "unseen": unseen}
        layer = cls(old.num_features, domains, old.eps, old.momentum, **how)
        layer._parameters.update(deepcopy(affine_of(old)))
        for name, value in old.named_buffers():
            setattr(layer, name, value.repeat(len(layer.domains), *[1] * value.ndim))
        layer.num_batches_tracked.clamp_(min=1)  # made from it: none is unmet
        layer.rows_seen = torch.full_like(layer.num_batches_tracked, MANY)
        return layer.train(old.training)

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
        exporting = getattr(torch.compiler, "is_exporting", bool)  # since torch 2.7
        tracing: Any = torch.jit.is_tracing  # type: ignore[attr-defined]
        if exporting() or tracing():
            msg = (
                "An exported or traced DomainBatchNorm would take the domains that it is "
                "shown for those of all samples to come: export the model of one domain, "
                "batchcorr.bridge.nn.at_domain(model, domain)."
            )
            raise InputError(msg)
        require_shape(x, self.num_features, self.dimensions)
        labels = read_labels(domain, len(x))
        codes = {label: self._code(label, self.unseen) for label in set(labels)}
        rows_of: dict[Any, list[int]] = {}  # by code; of domains unseen, by label
        for row, label in enumerate(labels):
            code = codes[label]
            rows_of.setdefault((code, label if code is None else ""), []).append(row)
        for rows in rows_of.values() if self.training else ():
            if len(rows) * x[0, 0].numel() == 1:  # before any statistics move
                msg = (
                    f"Domain {labels[rows[0]]!r} has one row in this batch, which has "
                    "no variance: give every domain in a training batch at least two "
                    "samples (a sampler by domain), or train with ComBatNorm."
                )
                raise InputError(msg)
        if len(rows_of) <= 1:
            return self._normalized(x, *codes.values()) if codes else x
        order = [row for rows in rows_of.values() for row in rows]
        sizes = [len(rows) for rows in rows_of.values()]
        parts = torch.split(x.index_select(0, _indices(order, x)), sizes)
        pairs = zip(parts, rows_of, strict=True)
        y = torch.cat([self._normalized(part, code) for part, (code, _) in pairs])
        back = sorted(range(len(order)), key=order.__getitem__)
        return y.index_select(0, _indices(back, x))

    def _normalized(self, x: Tensor, code: int | None) -> Tensor:
        """Rows of one domain; without a code of one that was never met."""
        affine = (self.weight, self.bias)
        if code is None:
            mean, variance = self._of_all()
            if self.unseen == "shrink":
                own = channel_statistics(x.detach())
                mean, variance = shrunken_statistics(*own, mean, variance)
            mean, variance = mean.to(self.running_mean), variance.to(self.running_var)
        else:
            mean, variance = self.running_mean[code], self.running_var[code]
        if not self.training or code is None:
            return functional.batch_norm(x, mean, variance, *affine, eps=self.eps)
        self.num_batches_tracked[code] += 1
        self.rows_seen[code] += x.numel() // self.num_features
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked[code])
        eps = self.eps or SMALLEST
        return functional.batch_norm(
            x, mean, variance, *affine, training=True, momentum=share, eps=eps
        )

    def _code(self, label: Hashable, unseen: str = "error") -> int | None:
        """The place of a domain with statistics; None for one that falls back."""
        code = code_of(label, self.domains)
        if code is not None:
            if self.training:
                return code
            if code in self._met or self.num_batches_tracked[code] > 0:
                self._met.add(code)  # so that the device is asked only once
                return code
        if unseen != "error" and not self.training:
            return None
        problem = f"is not one of the layer's. {did_you_mean(label, self.domains)}"
        if code is not None:
            problem = "was never met in training, so it has no statistics."
        msg = (
            f"The domain {label!r} {problem} Name all domains when the layer is made, or "
            "add them (convert_domain_batchnorm), and train on samples of each; what "
            "evaluation does with others, unseen='global' or 'shrink' says."
        )
        raise UnknownBatchError(msg)

    def _of_all(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of all rows of all domains, in float64."""
        n, means = wide(self.rows_seen)[:, None], wide(self.running_mean)
        if not bool(n.sum() > 0):
            msg = "The layer has met no domain yet: train it, or load a state_dict."
            raise InputError(msg)
        mean = (n * means).sum(0) / n.sum()
        within = wide(self.running_var) * (n - 1).clamp(min=0)
        squares = (within + n * (means - mean) ** 2).sum(0)
        return mean, squares / (n.sum() - 1).clamp(min=1)

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
        code = self._code(domain)
        kind, affine = (
            getattr(nn, f"BatchNorm{self.dimensions}d"),
            self.weight is not None,
        )
        layer: nn.Module = kind(
            self.num_features, self.eps, self.momentum, affine=affine
        )
        layer._parameters.update(deepcopy(affine_of(self)))
        for name in layer._buffers:
            setattr(layer, name, getattr(self, name)[code].clone())
        return layer.train(self.training)

    # -- state ---------------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """Return what state_dict holds beside arrays: a tensor, too.

        Returns
        -------
        The domains in their order, as text in bytes: (length,).
        """
        return torch.tensor(list(repr(self.domains).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse statistics of other domains, or in another order.

        Parameters
        ----------
        state
            The domains that the statistics are of.
        """
        self._met.clear()
        given = bytes(state.round().to(torch.uint8).tolist()).decode()
        if given != repr(self.domains):
            msg = (
                f"The state_dict is of the domains {given:.300}, and this layer of "
                f"{self.domains!r:.300}: make it with the same domains in the same order."
            )
            raise InputError(msg)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *more: Any, **options: Any
    ) -> None:
        """Take a plain BatchNorm's state too: every domain starts from it."""
        mean = state_dict.get(f"{prefix}running_mean")
        if mean is not None and mean.ndim == 1:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                value = state_dict.get(prefix + name, torch.tensor(1))
                rows = value.repeat(len(self.domains), *[1] * value.ndim)
                state_dict[prefix + name] = rows  # not one memory, if it is assigned
            tracked = state_dict[f"{prefix}num_batches_tracked"]
            state_dict[f"{prefix}rows_seen"] = MANY * (tracked > 0).long()
            state_dict[f"{prefix}_extra_state"] = self.get_extra_state()
        super()._load_from_state_dict(state_dict, prefix, *more, **options)

    def extra_repr(self) -> str:
        """Return what torch prints in the layer's brackets.

        Returns
        -------
        Channels, domains and options.
        """
        return (
            f"{self.num_features}, domains={reprlib.repr(self.domains)}, eps={self.eps}, "
            f"momentum={self.momentum}, affine={self.weight is not None}, "
            f"unseen={self.unseen!r}"
        )


def affine_of(layer: nn.Module) -> dict[str, nn.Parameter | None]:
    """γ and β of a layer, which must be parameters, or None."""
    try:
        return {name: layer._parameters[name] for name in ("weight", "bias")}
    except KeyError as error:
        msg = (
            f"The {error} of a {type(layer).__name__} is computed from others, and would be "
            "lost: make it a parameter first, by torch.nn.utils.prune.remove or "
            "torch.nn.utils.parametrize.remove_parametrizations."
        )
        raise InputError(msg) from error


def _indices(rows: list[int], x: Tensor) -> Tensor:
    """Rows as indices on the device of x, without waiting for it."""
    places = torch.tensor(rows, device="cpu", pin_memory=x.is_cuda)
    return places.to(x.device, non_blocking=True)
