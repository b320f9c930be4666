"""A network on images, and how its statistics are compared."""

from __future__ import annotations

import copy

import torch
from numpy.testing import assert_allclose
from torch import nn


def network(seed=0, classes=3):
    """Two layers on images: convolution and dropout before BatchNorm, then another."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Dropout(0.5),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, classes),
    )
    for norm in (model[2], model[7]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return model.double().eval()


def images(n=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 1, 5, 5), generator=generator, dtype=torch.float64)


def labelled(n=240, seed=2):
    """Images whose class is how bright their left, middle or right is."""
    y = torch.arange(n) % 3
    x = images(n, seed)
    for k in range(3):
        x[y == k, :, :, k : k + 3] += 2.5
    return x, y


def state_of(model):
    return (
        copy.deepcopy(model.state_dict()),
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )


def assert_untouched(model, before):
    state, training, gradients = before
    assert [module.training for module in model.modules()] == training
    assert [p.requires_grad for p in model.parameters()] == gradients
    for name, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(7.0), state[name].nan_to_num(7.0)), name
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def statistics(model):
    return [
        (m.running_mean.clone(), m.running_var.clone())
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]


def assert_same(a, b, **tolerance):
    for one, other in zip(a, b, strict=True):
        for x, y in zip(one, other, strict=True):
            assert_allclose(x.numpy(), y.numpy(), **tolerance)
