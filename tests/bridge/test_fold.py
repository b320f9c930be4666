"""Every family of graphs: what folds, into what, and what is kept with which reason."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchcorr.bridge import fold
from tests.bridge.fold_cases import Chain, checked, positive, sample, trained

IMAGE = (3, 4, 6, 6)


class Multiple(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def sequence(*layers):
    return trained(nn.Sequential(*layers))


# -- a layer before the BatchNorm ----------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), (3, 4, 9)),
        (nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), IMAGE),
        (nn.Conv2d(4, 6, 3, padding="same", dilation=2), nn.BatchNorm2d(6), IMAGE),
        (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), (2, 4, 4, 4, 4)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), IMAGE),
        (nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), IMAGE),
        (nn.Linear(4, 6), nn.BatchNorm1d(6), (3, 4)),
        (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6, affine=False), (3, 4)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2), nn.BatchNorm1d(6), (3, 4, 5)),
        (nn.ConvTranspose2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), IMAGE),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), IMAGE),
        (nn.ConvTranspose3d(4, 8, 2, groups=4), nn.BatchNorm3d(8), (2, 4, 3, 3, 3)),
        (nn.Conv2d(4, 6, 3), nn.SyncBatchNorm(6), IMAGE),
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, momentum=None), IMAGE),
        (
            nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
            nn.BatchNorm2d(6),
            IMAGE,
        ),
    ],
)
def test_it_folds_into_the_layer_before_it(layer, norm, shape):
    result = checked(sequence(layer, norm, nn.ReLU()), sample(*shape))
    assert result.folded == {"1": ("0",)}
    assert result.kept == {}
    assert list(result.errors) == [1, shape[0], shape[0] + 1]
    assert type(result.model[1]) is nn.Identity


@pytest.mark.parametrize(
    ("between", "shape"),
    [
        ([nn.Identity()], IMAGE),
        ([nn.Dropout(), nn.Dropout2d()], IMAGE),
        ([nn.AvgPool2d(2)], IMAGE),
        ([nn.AvgPool2d(3, 2, ceil_mode=True)], IMAGE),
        ([nn.AvgPool2d(2, padding=1, count_include_pad=False)], IMAGE),
        ([nn.AdaptiveAvgPool2d(2)], IMAGE),
        ([Multiple(lambda x: x.transpose(2, 3))], IMAGE),
        ([Multiple(lambda x: x.flatten(2)[:, :, 1:, None])], IMAGE),
    ],
)
def test_it_passes_what_lies_between(between, shape):
    model = sequence(nn.Conv2d(4, 6, 1), *between, nn.BatchNorm2d(6))
    assert checked(model, sample(*shape)).folded == {str(len(between) + 1): ("0",)}


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (nn.ReLU(), "relu"),
        (nn.AvgPool2d(2, padding=1), "leaves no axis of its own"),
        (nn.AvgPool2d(2, divisor_override=3), "leaves no axis of its own"),
        (nn.ZeroPad2d(1), "pad in '1' is no step"),
        (nn.MaxPool2d(2), "some scales are negative"),
        (nn.AdaptiveMaxPool2d(2), "some scales are negative"),
        (nn.LPPool2d(2, 2), "no step"),
    ],
)
def test_it_does_not_pass_what_is_not_affine(between, reason):
    model = sequence(nn.Conv2d(4, 6, 1), between, nn.BatchNorm2d(6), nn.Sigmoid())
    result = checked(model, sample(*IMAGE))
    assert result.folded == {}
    assert reason in result.kept["2"]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(3)])
def test_it_passes_maxima_if_no_scale_is_negative(pool):
    model = positive(sequence(nn.Conv2d(4, 6, 1), pool, nn.BatchNorm2d(6)))
    with torch.no_grad():
        model[2].weight[0] = 0
    assert checked(model, sample(*IMAGE)).folded == {"2": ("0",)}


def unpooled(m, x):
    values, indices = functional.max_pool2d(m.conv(x), 2, return_indices=True)
    return functional.max_unpool2d(m.norm(values), indices, 2)


def test_indices_of_maxima_must_not_change():
    model = Chain(
        unpooled,
        conv=nn.Conv2d(4, 6, 1),
        norm=nn.BatchNorm2d(6),
    )
    result = checked(positive(trained(model)), sample(*IMAGE))
    assert result.folded == {}


def test_a_linear_layer_over_positions_has_its_channels_elsewhere():
    model = sequence(nn.Linear(4, 5), nn.BatchNorm1d(5))
    result = checked(model, sample(2, 5, 4))  # L = C: shapes do not tell
    assert "channels along another axis" in result.kept["1"]


def test_a_transpose_brings_them_back():
    model = Chain(
        lambda m, x: m.norm(m.linear(x).transpose(1, 2)).movedim(1, -1),
        linear=nn.Linear(4, 5),
        norm=nn.BatchNorm1d(5),
    )
    assert checked(trained(model), sample(2, 5, 4)).folded == {"norm": ("linear",)}


def test_rows_may_be_put_together():
    model = Chain(
        lambda m, x: m.norm(m.linear(x).flatten(0, 1)).reshape(len(x), -1, 5),
        linear=nn.Linear(4, 5),
        norm=nn.BatchNorm1d(5),
    )
    assert checked(trained(model), sample(2, 5, 4)).folded == {"norm": ("linear",)}


def test_a_flattened_channel_has_many_scales():
    model = sequence(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.BatchNorm1d(96))
    result = checked(model, sample(*IMAGE))
    assert "do not come one by one" in result.kept["2"]
    model = sequence(nn.Conv2d(4, 6, 6), nn.Flatten(), nn.BatchNorm1d(6))
    assert checked(model, sample(*IMAGE)).folded == {"2": ("0",)}


# -- steps with more than one input, or that change the numbers --------------------------

KEEPING = {
    "sum": lambda a, x: a + x,
    "number": lambda a, _: a + 1,
    "itself": lambda a, _: a + a,
    "multiple": lambda a, _: a * 2,
    "product": lambda a, x: a * x,
    "concatenation": lambda a, x: torch.cat([a, x], 2),
    "in place": lambda a, _: a.mul_(2),
    "written to": lambda a, _: a[:, :2].add_(1).new_zeros(()) + a,
    "other numbers": lambda a, _: a.float().double(),
}


@pytest.mark.parametrize("name", KEEPING)
def test_what_keeps_it(name):
    change = KEEPING[name]
    model = Chain(
        lambda m, x: m.norm(change(m.conv(x), x)),
        conv=nn.Conv2d(4, 4, 1),
        norm=nn.BatchNorm2d(4),
    )
    result = fold(trained(model), sample(*IMAGE))
    assert result.folded == {}
    assert result.error == 0


# -- a layer after the BatchNorm -----------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 6), (3, 4)),
        (nn.Linear(4, 6, bias=False), (3, 4)),
        (nn.Conv1d(4, 6, 3), (3, 4, 9)),
        (nn.Conv2d(4, 6, 3, bias=False), IMAGE),
        (nn.Conv2d(4, 6, 3, groups=2, stride=2), IMAGE),
        (nn.Conv2d(4, 6, 3, padding="valid"), IMAGE),
        (nn.Conv2d(4, 6, 1, padding="same"), IMAGE),
        (nn.Conv3d(4, 6, 2, groups=2), (2, 4, 4, 4, 4)),
        (nn.ConvTranspose2d(4, 6, 1, groups=2), IMAGE),
    ],
)
def test_it_folds_into_the_layer_after_it(layer, shape):
    norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    model = sequence(nn.ReLU(), norm[len(shape)](4), nn.Identity(), layer)
    assert checked(model, sample(*shape)).folded == {"1": ("3",)}


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), "pads with zeros"),
        (nn.Conv2d(4, 6, 3, padding="same"), "pads with zeros"),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), "pad in '1'"),
        (nn.ConvTranspose2d(4, 6, 2), "bias for each position"),
        (nn.ConvTranspose2d(4, 6, 1, stride=2), "bias for each position"),
        (nn.Linear(6, 6), "channels along another axis"),
        (nn.ReLU(), "relu"),
    ],
)
def test_it_does_not_fold_where_the_border_differs(layer, reason):
    result = checked(sequence(nn.BatchNorm2d(4), layer), sample(*IMAGE))
    assert result.folded == {}
    assert reason in result.kept["0"]


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3)])
def test_pooling_and_flattening_repeat_the_channels(pool):
    layers = [nn.BatchNorm2d(4), pool, nn.Dropout(), nn.Flatten(), nn.Linear(36, 2)]
    assert checked(sequence(*layers), sample(*IMAGE)).folded == {"0": ("4",)}


def test_the_mean_over_positions_is_pooling():
    model = Chain(
        lambda m, x: m.linear(m.norm(x).mean((2, 3))),
        norm=nn.BatchNorm2d(4),
        linear=nn.Linear(4, 2),
    )
    assert checked(trained(model), sample(*IMAGE)).folded == {"norm": ("linear",)}


def two_ways(m, x):
    y = m.norm(x)
    return m.a(y) + m.b(functional.avg_pool2d(y, 1))


def test_all_who_use_its_result_take_it_up():
    model = Chain(
        two_ways,
        norm=nn.BatchNorm2d(4),
        a=nn.Conv2d(4, 5, 1),
        b=nn.Conv2d(4, 5, 1),
    )
    assert checked(trained(model), sample(*IMAGE)).folded == {"norm": ("a", "b")}


def test_its_result_may_not_be_used_otherwise():
    model = Chain(
        lambda m, x: (m.conv(m.norm(x)), m.norm(x).relu()),
        norm=nn.BatchNorm2d(4),
        conv=nn.Conv2d(4, 5, 1),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "relu" in result.kept["norm"]


# -- several of them -----------------------------------------------------------------


def test_two_in_a_row_go_into_one_layer():
    layers = [nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6)]
    result = checked(sequence(*layers), sample(*IMAGE))
    assert result.folded == {"1": ("0",), "2": ("0",)}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_layer_takes_one_up_on_both_sides(kind, groups, bias):
    kernel = 3 if kind is nn.Conv2d else 1
    layer = kind(4, 8, kernel, groups=groups, bias=bias)
    result = checked(
        sequence(nn.BatchNorm2d(4), layer, nn.BatchNorm2d(8)), sample(*IMAGE)
    )
    assert result.folded == {"0": ("1",), "2": ("1",)}


def test_float32_weights_are_composed_in_float64():
    """They are rounded once: each is the float32 next to the exact one."""
    layers = [nn.Linear(5, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)]
    model = sequence(*layers).float()
    single = fold(model, sample(3, 5).float()).model[0]
    double = fold(copy.deepcopy(model).double(), sample(3, 5)).model[0]
    assert torch.equal(single.weight, double.weight.float())
    assert torch.equal(single.bias, double.bias.float())


def test_a_folded_one_opens_the_way_for_another():
    model = Chain(
        lambda m, x: m.last(functional.avg_pool2d(m.inner(m.conv(x)), 2)),
        last=nn.BatchNorm2d(5),  # tried first, when `inner` is still in its way
        inner=nn.BatchNorm2d(5),
        conv=nn.Conv2d(4, 5, 1),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"inner": ("conv",), "last": ("conv",)}


def test_a_residual_block_folds_whole():
    def run(m, x):
        y = functional.relu(m.norm1(m.conv1(x)))
        y = m.norm2(m.conv2(y))
        y += m.norm3(m.down(x))
        return functional.relu_(y)

    model = Chain(
        run,
        conv1=nn.Conv2d(4, 8, 3, padding=1, stride=2, bias=False),
        norm1=nn.BatchNorm2d(8),
        conv2=nn.Conv2d(8, 8, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(8),
        down=nn.Conv2d(4, 8, 1, stride=2, bias=False),
        norm3=nn.BatchNorm2d(8),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {
        "norm1": ("conv1",),
        "norm2": ("conv2",),
        "norm3": ("down",),
    }
