r"""BatchNorm with ComBat's empirical Bayes across channels, for small batches.

In training a minibatch is corrected by statistics that were shrunken across channels,

    y = γ (x - x̄*) / √(v* + ε) + β,      x̄* = μ + σ γ*,  v* = σ² δ*²

with μ, σ² the running statistics and γ*, δ*² as in `bridge._channels`. It is torch's
BatchNorm with other weights,

    y = a (x - x̄) / √(v + ε) + b,   a = γ √(v + ε) / √(v* + ε),   b = β + γ (x̄ - x̄*) / √(v* + ε)

In evaluation it is the frozen correction that every BatchNorm is, so that it folds away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from batchcorr.bridge._channels import (
    SMALLEST,
    channel_statistics,
    require_shape,
    shrunken_statistics,
)
from batchcorr.bridge._torch import torch
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ComBatNorm", "ComBatNorm1d", "ComBatNorm2d", "ComBatNorm3d"]


class ComBatNorm(_NormBase):
    """What the layers of all dimensions share."""

    dimensions: int
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if num_features < 2:
            msg = (
                "Empirical Bayes learns from many channels, and this layer would have "
                f"{num_features}: use torch.nn.BatchNorm{self.dimensions}d."
            )
            raise InputError(msg)
        super().__init__(
            num_features, eps, momentum, affine, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Correct a batch: by its shrunken statistics, or frozen in evaluation.

        Parameters
        ----------
        x
            Activations, samples first and channels second.

        Returns
        -------
        Corrected activations of the same shape and dtype.
        """
        require_shape(x, self.num_features, self.dimensions)
        if not self.training:
            frozen = (self.running_mean, self.running_var, self.weight, self.bias)
            return functional.batch_norm(x, *frozen, eps=self.eps)
        if not x.numel():
            msg = "The batch is empty: in training there must be at least one sample."
            raise InputError(msg)
        n, mean, variance = channel_statistics(x)
        before = (self.running_mean.clone(), self.running_var.clone())
        shrunken_mean, shrunken = shrunken_statistics(n, mean, variance, *before)
        scale = torch.rsqrt(shrunken + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = scale * (mean - shrunken_mean)
        if self.bias is not None:
            shift = shift + self.bias
        self._update_running(n, mean.detach(), variance.detach())
        if n == 1:  # torch takes no single row: x is its own mean, and has no variance
            return (0 * x + shift.reshape(1, -1, *[1] * (x.ndim - 2))).to(x.dtype)
        eps = self.eps or SMALLEST
        scale = scale * torch.sqrt(variance + eps)
        whole = x.to(mean.dtype)  # float32 of half precision
        y = functional.batch_norm(
            whole, None, None, scale, shift, training=True, eps=eps
        )
        return y.to(x.dtype)

    def _update_running(self, n: int, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics by the minibatch's own, as BatchNorm does."""
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        if n > 1:
            unbiased = variance * (n / (n - 1))
            self.running_var.lerp_(unbiased.to(self.running_var), share)


class ComBatNorm1d(ComBatNorm):
    r"""BatchNorm1d whose minibatch statistics are shrunken across channels.

    .. math:: y = \gamma (x - \bar x^*) / \sqrt{v^* + \epsilon} + \beta

    Parameters
    ----------
    num_features
        Channels C of an input (N, C) or (N, C, L).
    eps, momentum, affine, device, dtype
        As in torch: momentum is the share of a minibatch in the running statistics.

    Raises
    ------
    InputError
        For fewer than two channels, or an input of another shape.

    Notes
    -----
    In evaluation, and in its state_dict, the layer is a `torch.nn.BatchNorm1d` with
    other training: `bridge.fold` removes it and `bridge.recalibrate` works on it.
    Gradients pass through the shrinkage, which costs about twenty rounds over C numbers
    a step. With batches of hundreds of rows it does next to nothing, and on convolutional
    networks it gained nothing at batches of 1 to 8 images: use BatchNorm there.

    `convert_sync_batchnorm` leaves the layer as it is: every process then shrinks its own
    minibatch. `swa_utils.update_bn` leaves it, too: use `bridge.recalibrate` with "adabn".
    Activation checkpointing calls a layer twice in a step, as torch's.
    torch.export takes it in evaluation, torch.jit.script only what `bridge.fold` leaves.

    References
    ----------
    Johnson, Li & Rabinovic (2007), Biostatistics 8: 118-127 (R: sva::ComBat).
    Khoshsirat & Kambhamettu (2023), arXiv 2312.00313, shrink by James & Stein instead.

    Examples
    --------
    >>> import torch
    >>> layer = ComBatNorm1d(8)
    >>> layer(torch.randn(3, 8)).shape  # three samples are enough to train on
    torch.Size([3, 8])
    """

    dimensions = 1


class ComBatNorm2d(ComBatNorm):
    """BatchNorm2d whose minibatch statistics are shrunken across channels.

    As `ComBatNorm1d`, for inputs (N, C, H, W). Every position counts as a row, as in
    BatchNorm, although positions of one image are no replicates: the shrinkage is then
    weaker than the number of images would ask for.

    Parameters
    ----------
    num_features, eps, momentum, affine, device, dtype
        As in `ComBatNorm1d`.

    Examples
    --------
    >>> import torch
    >>> ComBatNorm2d(4)(torch.randn(1, 4, 5, 5)).shape
    torch.Size([1, 4, 5, 5])
    """

    dimensions = 2


class ComBatNorm3d(ComBatNorm):
    """BatchNorm3d whose minibatch statistics are shrunken across channels.

    As `ComBatNorm2d`, for inputs (N, C, D, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, device, dtype
        As in `ComBatNorm1d`.

    Examples
    --------
    >>> import torch
    >>> ComBatNorm3d(4)(torch.randn(1, 4, 2, 3, 3)).shape
    torch.Size([1, 4, 2, 3, 3])
    """

    dimensions = 3
