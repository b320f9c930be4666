"""Random networks: whatever is folded, the outputs stay, and what must fold does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.bridge.fold_cases import checked, positive, sample, trained


@dataclass
class Draft:
    """A network being drawn: its layers, its steps, and the shape of each value."""

    layers: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)
    shapes: list = field(default_factory=lambda: [(4, 6)])  # channels, height = width

    def add(self, shape, run, *operands, layer=""):
        self.steps.append((run, operands, layer))
        self.shapes.append(shape)

    def called(self, layer):
        return [k for k, step in enumerate(self.steps, 1) if step[2] == layer]

    def users(self, value):
        return [step for step in self.steps if value in step[1]]


class Network(nn.Module):
    """Runs steps over all earlier values and returns the last one, and the unused."""

    def __init__(self, draft):
        super().__init__()
        self.layers = nn.ModuleDict(draft.layers)
        self.steps = draft.steps
        used = {k for _, operands, _ in draft.steps for k in operands}
        self.ends = [k for k in range(1, len(draft.shapes)) if k not in used]

    def forward(self, x):
        values = [x]
        for run, operands, layer in self.steps:
            inputs = [values[k] for k in operands]
            values.append(run(self.layers[layer] if layer else None, *inputs))
        return tuple(values[k] for k in self.ends)


def call(layer, x):
    return layer(x)


def add(_, x, y):
    return x + y


def add_in_place(_, x, y):
    z = functional.relu(x)
    z += y
    return z


def join(_, *parts):
    return torch.cat(parts, 1)


def relu(_, x):
    return functional.relu(x)


@st.composite
def drafts(draw):
    draft = Draft()
    for k in range(draw(st.integers(2, 7))):
        value = draw(recent(len(draft.shapes)))
        kind = draw(st.sampled_from(list(GRAMMAR)))
        GRAMMAR[kind](draw, draft, value, f"{kind}{k}")
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in draft.layers.values()):
        norm(draw, draft, len(draft.shapes) - 1, "norm")
    return draft


def recent(count):
    """One of the values so far, most often the last."""
    return st.one_of(
        st.just(count - 1),
        st.just(count - 1),
        st.integers(max(0, count - 3), count - 1),
    )


def convolution(draw, draft, value, name):
    channels, size = draft.shapes[value]
    out = draw(st.sampled_from([2, 4, 6]))
    groups = draw(st.sampled_from([1, 2])) if channels % 2 == 0 else 1
    kernel = draw(st.integers(1, min(3, size)))
    padding = draw(st.integers(0, 1)) if kernel > 1 else 0
    bias = draw(st.booleans())
    if draw(st.integers(0, 3)) == 0 and size < 8:
        layer = nn.ConvTranspose2d(channels, out, kernel, groups=groups, bias=bias)
        size = size + kernel - 1
    else:
        mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        layer = nn.Conv2d(
            channels, out, kernel, 1, padding, 1, groups, bias, padding_mode=mode
        )
        size = size + 2 * padding - kernel + 1
    draft.layers[name] = layer
    draft.add((out, size), call, value, layer=name)
    if draw(st.booleans()):
        norm(draw, draft, len(draft.shapes) - 1, f"{name}_norm")


def again(draw, draft, value, name):
    """Call a convolution once more: by its name, or by another one."""
    fitting = [
        (key, layer)
        for key, layer in draft.layers.items()
        if isinstance(layer, nn.Conv2d)
        and (layer.in_channels, layer.kernel_size[0] <= draft.shapes[value][1])
        == (draft.shapes[value][0], True)
    ]
    if not fitting:
        return
    key, layer = draw(st.sampled_from(fitting))
    if draw(st.booleans()):
        draft.layers[name] = layer
        key = name
    size = draft.shapes[value][1] + 2 * layer.padding[0] - layer.kernel_size[0] + 1
    draft.add((layer.out_channels, size), call, value, layer=key)


def norm(draw, draft, value, name):
    """A BatchNorm, new or one that is there already."""
    channels, _ = draft.shapes[value]
    known = [
        key
        for key, layer in draft.layers.items()
        if isinstance(layer, nn.BatchNorm2d) and layer.num_features == channels
    ]
    if known and draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(known))
    else:
        draft.layers[name] = nn.BatchNorm2d(channels, affine=draw(st.booleans()))
    draft.add(draft.shapes[value], call, value, layer=name)


def pool(draw, draft, value, name):
    channels, size = draft.shapes[value]
    layer, size = draw(
        st.sampled_from(
            [
                (nn.AvgPool2d(2, 1, 1), size + 1),
                (nn.AvgPool2d(2, 1, 1, count_include_pad=False), size + 1),
                (nn.MaxPool2d(2, 1, 1), size + 1),
                (nn.AdaptiveAvgPool2d(2), 2),
                (nn.AdaptiveMaxPool2d(3), 3),
                (nn.Dropout(), size),
                (nn.Identity(), size),
            ]
        )
    )
    draft.layers[name] = layer
    draft.add((channels, size), call, value, layer=name)


def activation(_, draft, value, name):  # noqa: ARG001
    draft.add(draft.shapes[value], relu, value)


def sum_of_two(draw, draft, value, name):  # noqa: ARG001
    other = [k for k, shape in enumerate(draft.shapes) if shape == draft.shapes[value]]
    run = draw(st.sampled_from([add, add_in_place]))
    draft.add(draft.shapes[value], run, value, draw(st.sampled_from(other)))


def branches(draw, draft, value, name):
    """Two convolutions of one value that are added or put beside each other."""
    start = len(draft.shapes)
    for side in "ab":
        channels, size = draft.shapes[value]
        draft.layers[name + side] = nn.Conv2d(channels, 4, 1)
        draft.add((4, size), call, value, layer=name + side)
        if draw(st.booleans()):
            norm(draw, draft, len(draft.shapes) - 1, f"{name}{side}_norm")
    ends = start + (1 if draft.steps[start][2].endswith("_norm") else 0)
    run, channels = draw(st.sampled_from([(add, 4), (join, 8)]))
    draft.add((channels, size), run, ends, len(draft.shapes) - 1)
    norm(draw, draft, len(draft.shapes) - 1, f"{name}_norm")


GRAMMAR = {
    "convolution": convolution,
    "again": again,
    "norm": norm,
    "pool": pool,
    "activation": activation,
    "sum": sum_of_two,
    "branches": branches,
}


def must_fold(draft):
    """The BatchNorms that any folding finds: alone behind a layer called once."""
    alone = set()
    for name, layer in draft.layers.items():
        if not isinstance(layer, nn.BatchNorm2d) or len(draft.called(name)) != 1:
            continue
        (place,) = draft.called(name)
        (value,) = draft.steps[place - 1][1]
        before = draft.steps[value - 1][2] if value else ""
        if (
            isinstance(draft.layers.get(before), nn.Conv2d | nn.ConvTranspose2d)
            and draft.called(before) == [value]
            and len(draft.users(value)) == 1
        ):
            alone.add(f"layers.{name}")
    return alone


def test_random_networks():
    count = Counter()

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drafts(), st.integers(0, 99), st.booleans())
    def check(draft, seed, no_negative_scale):
        model = trained(Network(draft), seed)
        if no_negative_scale:
            model = positive(model)
        result = checked(model, sample(2, 4, 6, 6, seed=seed))
        assert must_fold(draft) <= result.folded.keys()
        count.update(
            networks=1,
            folded=len(result.folded),
            kept=len(result.kept),
            due=len(must_fold(draft)),
        )

    check()
    assert count["networks"] == 30
    assert count["due"] >= 12
    assert count["folded"] > count["due"]  # the less obvious ones
    assert count["kept"] >= 12
