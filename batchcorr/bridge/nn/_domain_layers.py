"""BatchNorm by domain in one, two and three dimensions."""

from __future__ import annotations

from batchcorr.bridge.nn._domain_norm import DomainBatchNorm

__all__ = ["DomainBatchNorm1d", "DomainBatchNorm2d", "DomainBatchNorm3d"]


class DomainBatchNorm1d(DomainBatchNorm):
    r"""BatchNorm1d with statistics of its own for every domain.

    .. math:: y = \gamma (x - \bar x_d) / \sqrt{v_d + \epsilon} + \beta

    Parameters
    ----------
    num_features
        Channels C of an input (N, C) or (N, C, L).
    domains
        Labels of all domains there will be in training: strings or numbers.
    eps, momentum, affine
        As in `torch.nn.BatchNorm1d`; γ and β are shared by all domains.
    unseen
        What evaluation does with a domain never met in training: "error"; "global",
        the statistics of all domains together; or "shrink", the domain's own in this
        batch, shrunken across channels towards those of all (ComBat's prior).
    device, dtype
        As in torch.

    Raises
    ------
    InputError, UnknownBatchError
        For labels that are missing, not hashable, or of no known domain; for a domain
        with one row in a training batch.

    Notes
    -----
    In evaluation with ``eps=0`` the layer is ``batchcorr.Standardize(target="unit")``,
    scaled by γ and β. With "shrink" the output depends on what else is in the batch.

    Labels match as texts where that is unambiguous: 1 and "1". Give them on the CPU:
    those on another device are waited for. `from_batch_norm`, and loading a plain
    BatchNorm's state_dict, start all domains from its statistics;
    `convert_domain_batchnorm` does it for a model. Activation checkpointing calls a layer
    twice in a step, as torch's, and its running statistics then move twice.

    torch's `convert_sync_batchnorm` leaves the layer as it is: under
    DistributedDataParallel every process needs all domains, since the statistics of the
    first are kept. Its `update_bn` leaves it, too: average buffers as well,
    ``AveragedModel(model, use_buffers=True)``.

    Domains are read in Python: the layer cannot be scripted, traced or exported. Deploy
    `at_domain(model, domain)`.

    References
    ----------
    Li et al. (2016), arXiv 1603.04779 (AdaBN). Chang et al. (2019), domain-specific
    batch normalization, give every domain its own γ and β too.

    Examples
    --------
    >>> import torch
    >>> layer = DomainBatchNorm1d(3, domains=["monday", "tuesday"])
    >>> days = ["monday"] * 4 + ["tuesday"] * 4
    >>> x = torch.randn(8, 3) + torch.tensor([0.0] * 4 + [9.0] * 4)[:, None]
    >>> y = layer(x, days)
    >>> bool(y[:4].mean().abs() < 1e-6), bool(y[4:].mean().abs() < 1e-6)
    (True, True)
    """

    dimensions = 1


class DomainBatchNorm2d(DomainBatchNorm):
    """BatchNorm2d with statistics of its own for every domain.

    As `DomainBatchNorm1d`, for inputs (N, C, H, W).

    Parameters
    ----------
    num_features, domains, eps, momentum, affine, unseen, device, dtype
        As in `DomainBatchNorm1d`.

    Examples
    --------
    >>> import torch
    >>> layer = DomainBatchNorm2d(3, domains=[0, 1])
    >>> layer(torch.randn(4, 3, 5, 5), torch.tensor([0, 0, 1, 1])).shape
    torch.Size([4, 3, 5, 5])
    """

    dimensions = 2


class DomainBatchNorm3d(DomainBatchNorm):
    """BatchNorm3d with statistics of its own for every domain.

    As `DomainBatchNorm1d`, for inputs (N, C, D, H, W).

    Parameters
    ----------
    num_features, domains, eps, momentum, affine, unseen, device, dtype
        As in `DomainBatchNorm1d`.

    Examples
    --------
    >>> import torch
    >>> layer = DomainBatchNorm3d(3, domains=[0, 1])
    >>> layer(torch.randn(4, 3, 2, 2, 2), 1).shape  # all samples of one domain
    torch.Size([4, 3, 2, 2, 2])
    """

    dimensions = 3
