r"""BatchNorm with ComBat's empirical Bayes across channels, for small batches.

In training a minibatch is corrected by statistics that were shrunken across channels,

    y = γ (x - x̄*) / √(v* + ε) + β,      x̄* = μ + σ γ*,  v* = σ² δ*²

with μ, σ² the running statistics and γ*, δ*² as in `bridge._shrink`. In evaluation the
layer is the frozen correction that every BatchNorm is, so that it folds away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.modules.batchnorm import _BatchNorm

from batchcorr.arrays.generic import tensor_affine, tensor_moments
from batchcorr.bridge._norms import normalizing
from batchcorr.bridge._rows import from_rows, to_rows
from batchcorr.bridge._shrink import shrunken_statistics
from batchcorr.bridge._torch import torch
from batchcorr.bridge.nn._shape import require_shape
from batchcorr.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ComBatNorm", "ComBatNorm1d", "ComBatNorm2d", "ComBatNorm3d"]


class ComBatNorm(_BatchNorm):
    """What the layers of all dimensions share."""

    dimensions: int

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

    def _check_input_dim(self, input: Tensor) -> None:
        require_shape(input, self.num_features, self.dimensions)

    def forward(self, input: Tensor) -> Tensor:
        """Correct a batch: by its shrunken statistics, or frozen in evaluation.

        Parameters
        ----------
        input
            Activations, samples first and channels second.

        Returns
        -------
        Corrected activations of the same shape and dtype.
        """
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        rows = to_rows(input)
        if rows.shape[0] == 0:
            msg = "The batch is empty: in training there must be at least one sample."
            raise InputError(msg)
        found = tensor_moments(rows)
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, variance = shrunken_statistics(
            found, self.running_mean.clone(), self.running_var.clone()
        )
        self._follow(found.mean[0], found.squares[0], rows.shape[0])
        correction = normalizing(mean, variance, self.eps, self.weight, self.bias)
        return from_rows(tensor_affine(rows, correction), input.shape)

    @torch.no_grad()
    def _follow(self, mean: Tensor, squares: Tensor, n: int) -> None:
        """Move the running statistics as BatchNorm does; one row moves only the mean."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        if n > 1:
            variance = squares / (n - 1)
            self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class ComBatNorm1d(ComBatNorm):
    r"""BatchNorm1d whose minibatch statistics are shrunken across channels.

    .. math:: y = \gamma (x - \bar x^*) / \sqrt{v^* + \epsilon} + \beta

    Parameters
    ----------
    num_features
        Channels C of an input (N, C) or (N, C, L).
    eps
        Added to variances.
    momentum
        Share of a minibatch in the running statistics; None: all weigh alike.
    affine, device, dtype
        As in torch.

    Raises
    ------
    InputError
        For fewer than two channels, or an input of another shape.

    Notes
    -----
    In evaluation, and in its state_dict, the layer is a `torch.nn.BatchNorm1d` with
    other training: `bridge.fold` removes it and `bridge.recalibrate` works on it.
    Half-precision input is summed in float32. The shrinkage costs about twenty rounds
    over C numbers a step, and gradients pass through it; with batches of hundreds of
    rows it does next to nothing, so that BatchNorm is the better choice there.

    torch.export takes the layer in evaluation, not in training, where the rounds depend
    on values; torch.jit.script takes it in neither. `bridge.fold` leaves a model that
    both take.

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
    num_features
        Channels C.
    eps, momentum, affine, device, dtype
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
    num_features
        Channels C.
    eps, momentum, affine, device, dtype
        As in `ComBatNorm1d`.

    Examples
    --------
    >>> import torch
    >>> ComBatNorm3d(4)(torch.randn(1, 4, 2, 3, 3)).shape
    torch.Size([1, 4, 2, 3, 3])
    """

    dimensions = 3
