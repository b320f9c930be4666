"""Networks with one planted fault or none, and what they are trained on."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from batchcorr.bridge import lint


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classify(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def labelled(x, classes=3):
    labels = torch.arange(len(x)) % classes
    return x, labels


class Residual(nn.Module):
    """Two blocks, the last γ of each zero: nothing comes through the branches yet."""

    def __init__(self, *, bias=False, dropout=0.0):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(6)
        self.first, self.second = self._block(bias), self._block(False)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(6, 3)

    @staticmethod
    def _block(bias):
        last = nn.BatchNorm2d(6)
        nn.init.zeros_(last.weight)
        return nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, 3, padding=1, bias=bias),
            last,
        )

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        x = F.relu(x + self.first(x))
        x = F.relu(x + self.second(x))
        return self.head(self.drop(x.mean((2, 3))))


class Sequence(nn.Module):
    """Linear layers over (N, L, C), BatchNorm over C after a transposition or over L."""

    def __init__(self, *, transpose):
        super().__init__()
        self.transpose = transpose
        self.embed = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6 if transpose else 5)
        self.head = nn.Linear(6, 3)

    def forward(self, x):  # (N, 5, 4)
        x = self.embed(x)
        x = self.norm(x.mT).mT if self.transpose else self.norm(x)
        return self.head(x.relu().mean(1))


class Attention(nn.Module):
    """Attention with dropout inside, LayerNorm, and no BatchNorm."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(x + self.attention(x, x, x)[0])
        return self.head(F.dropout(x.mean(1), 0.3, training=self.training))


def mlp(*layers):
    return nn.Sequential(*layers), labelled(draw(32, 8))


def cnn(*layers, n=8):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *head, nn.LazyLinear(3)), labelled(draw(n, 2, 6, 6))


def good_mlp():
    return mlp(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, 3),
    )


def trained_statistics(model, batch, steps=60):
    model.train()
    with torch.no_grad():
        for _ in range(steps):
            model(batch[0])
    return model, batch


def shifted_statistics():
    model, (x, y) = trained_statistics(*good_mlp())
    return model, (x + 3.0, y)


class InPlace(nn.Module):
    """Layers after and beside BatchNorm that overwrite what it gave and was given."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.head = nn.Linear(72, 3)

    def forward(self, x):
        before = self.first(x).relu_()
        x = self.second(before)
        x += before
        return self.head(F.dropout(x.view(len(x), -1), 0.2, training=self.training))


def settled_statistics():
    return trained_statistics(*good_mlp())


def frozen_amid_training():
    model, batch = settled_statistics()
    model[1].eval()
    return model, batch


def frozen_with_all_before():
    model, batch = settled_statistics()
    model[:2].requires_grad_(False)
    model[1].eval()
    return model, batch


def frozen_as_built():
    model, batch = good_mlp()
    model[:2].requires_grad_(False)
    model[1].eval()
    return model, batch


def norm_with(**options):
    model, batch = good_mlp()
    model[1] = nn.BatchNorm1d(16, **options)
    return model, batch


PLANTED = {
    # -- no fault ------------------------------------------------------------------
    "mlp": (good_mlp, set()),
    "relu between": (
        lambda: cnn(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)),
        set(),
    ),
    "residual": (lambda: (Residual(dropout=0.2), labelled(draw(8, 2, 6, 6))), set()),
    "norm over positions": (
        lambda: (Sequence(transpose=False), labelled(draw(16, 5, 4))),
        set(),
    ),
    "group norm": (
        lambda: cnn(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.ReLU()),
        set(),
    ),
    "layer norm": (
        lambda: mlp(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)),
        set(),
    ),
    "in place": (lambda: (InPlace(), labelled(draw(8, 2, 6, 6))), set()),
    "attention": (lambda: (Attention(), labelled(draw(16, 5, 4))), set()),
    "zero padding between": (
        lambda: cnn(
            nn.Conv2d(2, 4, 3),
            nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
            nn.BatchNorm2d(4),
        ),
        set(),
    ),
    "settled statistics": (settled_statistics, set()),
    "frozen with all before": (frozen_with_all_before, set()),
    # -- redundant biases ----------------------------------------------------------
    "bias in mlp": (
        lambda: mlp(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)),
        {("redundant-bias", "0")},
    ),
    "bias behind depthwise": (
        lambda: cnn(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.Conv2d(4, 4, 3, groups=4, bias=True),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            n=32,
        ),
        {("redundant-bias", "1")},
    ),
    "bias in residual branch": (
        lambda: (Residual(bias=True), labelled(draw(8, 2, 6, 6))),
        {("redundant-bias", "first.3")},
    ),
    "bias over sequence": (
        lambda: (Sequence(transpose=True), labelled(draw(16, 5, 4))),
        {("redundant-bias", "embed")},
    ),
    "bias of transposed convolution": (
        lambda: cnn(nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        {("redundant-bias", "0")},
    ),
    "bias before instance norm": (
        lambda: cnn(nn.Conv2d(2, 4, 3), nn.GroupNorm(4, 4), nn.ReLU()),
        {("redundant-bias", "0")},
    ),
    "shift of a norm before a norm": (
        lambda: mlp(
            nn.BatchNorm1d(8),
            nn.Linear(8, 16, bias=False),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 3),
        ),
        set(),
    ),
    # -- dropout -------------------------------------------------------------------
    "dropout before": (
        lambda: mlp(
            nn.Linear(8, 16, bias=False),
            nn.Dropout(0.5),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 3),
        ),
        {("dropout-before-batchnorm", "2")},
    ),
    "dropout between norms": (
        lambda: mlp(
            nn.Linear(8, 16, bias=False),
            nn.BatchNorm1d(16),
            nn.Dropout(0.1),
            nn.Linear(16, 16, bias=False),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 16, bias=False),
            nn.BatchNorm1d(16),
            nn.Linear(16, 3),
        ),
        {("dropout-before-batchnorm", "4")},
    ),
    "channel dropout in cnn": (
        lambda: cnn(
            nn.Conv2d(2, 6, 3),
            nn.ReLU(),
            nn.Dropout2d(0.25),
            nn.Conv2d(6, 6, 3, bias=False),
            nn.BatchNorm2d(6),
        ),
        {("dropout-before-batchnorm", "4")},
    ),
    # -- statistics ----------------------------------------------------------------
    "shifted data": (shifted_statistics, {("running-statistics", "1")}),
    "frozen amid training": (frozen_amid_training, {("running-statistics", "1")}),
    "frozen as built": (frozen_as_built, {("running-statistics", "1")}),
    "no momentum": (lambda: norm_with(momentum=0.0), {("running-statistics", "1")}),
    "not tracked": (
        lambda: norm_with(track_running_stats=False),
        {("running-statistics", "1")},
    ),
    # -- batches -------------------------------------------------------------------
    "small batch": (
        lambda: (good_mlp()[0], labelled(draw(4, 8))),
        {("small-batch", "1")},
    ),
    "one row": (
        lambda: (good_mlp()[0], labelled(draw(1, 8))),
        {("batch-of-one", "1")},
    ),
    "one image": (
        lambda: cnn(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), n=1),
        {("batch-of-one", "1")},
    ),
}


NOTES = {"frozen amid training"}
"""Findings that are no faults: these statistics still fit."""


def built(name):
    torch.manual_seed(7)
    model, batch = PLANTED[name][0]()
    if any(isinstance(module, nn.LazyLinear) for module in model.modules()):
        frozen = copy.deepcopy(model).eval()
        width = frozen[:-1](batch[0]).shape[1]
        model[-1] = nn.Linear(width, 3)
    return model, batch


def only(name):
    (finding,) = lint(*built(name), classify).findings
    return finding
