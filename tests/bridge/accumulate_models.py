"""Models whose gradient is accumulated, and how two of them are compared."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

torch.set_num_threads(1)


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def mean_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def sum_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


class Residual(nn.Module):
    """A stem and a block that is used twice: its two norms make four sites of five."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(5, affine=False)
        self.first = nn.Conv2d(5, 5, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(5, momentum=None)
        self.second = nn.Conv2d(5, 5, 1)
        self.second_norm = nn.BatchNorm2d(5, momentum=0.3)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        for _ in range(2):
            branch = F.relu(self.first_norm(self.first(x)))
            x = F.relu(x + self.second_norm(self.second(branch)))
        return self.head(x.view(*x.shape[:2], -1).mean(2))


def mlp(norm=nn.BatchNorm1d, dropout=0.0):
    return nn.Sequential(
        nn.Linear(6, 9),
        norm(9),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(9, 8),
        norm(8),
        nn.Tanh(),
        nn.Linear(8, 8),
        norm(8),
        nn.Linear(8, 4),
    )


def sequence():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3),
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.ReLU(inplace=True),
        nn.Conv1d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm1d(4),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def separate():
    """Two branches whose norms do not depend on each other, and one not used at all."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
            self.idle = nn.BatchNorm1d(6)
            self.head = nn.Linear(12, 4)

        def forward(self, x):
            self.idle(x * 2).view(-1)  # laid out as torch does
            return self.head(torch.cat([self.one(x).relu(), self.other(x**2)], 1))

    return Branches()


def twice():
    """A norm and a block under two names each, and weights tied across modules."""
    norm = nn.BatchNorm1d(8)
    block = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
    first, tied = nn.Linear(8, 8), nn.Linear(8, 8)
    tied.weight = first.weight
    return nn.Sequential(
        nn.Linear(6, 8),
        norm,
        nn.ReLU(),
        first,
        norm,
        block,
        tied,
        block,
        nn.Linear(8, 4),
    )


MODELS = {
    "mlp": (mlp, (6,)),
    "twice": (twice, (6,)),
    "residual": (Residual, (3, 4, 4)),
    "sequence": (sequence, (3, 6)),
    "branches": (separate, (6,)),
    "without": (lambda: mlp(nn.LayerNorm), (6,)),
}


N = 22


def built(name, n=N):
    torch.manual_seed(3)
    make, shape = MODELS[name]
    model = make().double()
    with torch.no_grad():
        for value in model.parameters():  # γ and β at no special point
            value.add_(0.2 * torch.randn_like(value))
    x = 2 + draw(n, *shape)
    return model, (x, torch.arange(n) % 4)


def gradients(model):
    return {name: value.grad for name, value in model.named_parameters()}


def difference(model, other):
    """The relative difference of two models' gradients, as one vector."""
    mine, theirs = gradients(model), gradients(other)
    assert {n for n, g in mine.items() if g is None} == {
        n for n, g in theirs.items() if g is None
    }
    pairs = [(mine[n], theirs[n]) for n in mine if mine[n] is not None]
    off = sum(float((a - b).square().sum()) for a, b in pairs)
    return math.sqrt(off / sum(float(b.square().sum()) for _, b in pairs))


def assert_same_buffers(model, other, tolerance=1e-13):
    for (name, mine), theirs in zip(
        model.named_buffers(), other.buffers(), strict=True
    ):
        torch.testing.assert_close(
            mine, theirs, rtol=tolerance, atol=tolerance, msg=name
        )
