"""Every family of graphs: what folds, into what, and what is kept with which reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

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
    assert result.any_batch
    assert list(result.errors) == [1, shape[0], shape[0] + 1]
    assert type(result.model[1]) is nn.Identity


@pytest.mark.parametrize(
    ("between", "shape"),
    [
        ([nn.Identity()], IMAGE),
        ([nn.Dropout(), nn.Dropout2d()], IMAGE),
        ([Multiple(lambda x: x * 0.5), Multiple(lambda x: x.div_(-3))], IMAGE),
        ([Multiple(lambda x: x.to(memory_format=torch.channels_last))], IMAGE),
        ([nn.AvgPool2d(2)], IMAGE),
        ([nn.AvgPool2d(3, 2, ceil_mode=True)], IMAGE),
        ([nn.AvgPool2d(2, padding=1, count_include_pad=False)], IMAGE),
        ([nn.AdaptiveAvgPool2d(2)], IMAGE),
        ([nn.Upsample(scale_factor=2)], IMAGE),
        ([nn.Upsample(scale_factor=2, mode="bilinear")], IMAGE),
        ([nn.ReflectionPad2d(1), nn.ReplicationPad2d(2), nn.CircularPad2d(1)], IMAGE),
    ],
)
def test_it_passes_what_lies_between(between, shape):
    model = sequence(nn.Conv2d(4, 6, 1), *between, nn.BatchNorm2d(6))
    assert checked(model, sample(*shape)).folded == {str(len(between) + 1): ("0",)}


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (nn.ReLU(), "relu"),
        (nn.AvgPool2d(2, padding=1), "averages zeros in"),
        (nn.AvgPool2d(2, divisor_override=3), "averages zeros in"),
        (nn.ZeroPad2d(1), "pads with a constant"),
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
    assert "no axis of the result" in result.kept["2"]
    model = sequence(nn.Conv2d(4, 6, 6), nn.Flatten(), nn.BatchNorm1d(6))
    assert checked(model, sample(*IMAGE)).folded == {"2": ("0",)}


# -- sums and concatenations ---------------------------------------------------------


def test_a_sum_gives_each_summand_the_scale_and_one_the_shift():
    model = Chain(
        lambda m, x: m.norm(m.a(x) + m.b(x) - m.c(x)),
        a=nn.Conv2d(4, 6, 1),
        b=nn.Conv2d(4, 6, 3, padding=1),
        c=nn.Conv2d(4, 6, 6),  # broadcast over positions
        norm=nn.BatchNorm2d(6),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert sorted(result.folded["norm"]) == ["a", "b", "c"]


SUMS = {
    "input": lambda a, x: a + x,
    "number": lambda a, _: a + 1,
    "multiple": lambda a, x: torch.add(a, x, alpha=2),
    "itself": lambda a, _: a + a,
    "one channel": lambda a, _: a + a.mean(1, keepdim=True),
    "product": lambda a, x: a * x,
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_that_keep_it(name):
    add = SUMS[name]
    model = Chain(
        lambda m, x: m.norm(add(m.conv(x), x)),
        conv=nn.Conv2d(4, 4, 1),
        norm=nn.BatchNorm2d(4),
    )
    assert checked(trained(model), sample(*IMAGE)).folded == {}


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_a_concatenation_gives_each_part_its_channels(dim):
    model = Chain(
        lambda m, x: m.norm(torch.cat([m.a(x), m.b(x)], dim)),
        a=nn.Conv2d(4, 6, 1),
        b=nn.Conv2d(4, 6, 1, groups=2),
        norm=nn.BatchNorm2d(12 if dim == 1 else 6),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert sorted(result.folded["norm"]) == ["a", "b"]


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
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), IMAGE),
        (nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), (3, 4, 9)),
        (nn.ConvTranspose2d(4, 6, 1, groups=2), IMAGE),
    ],
)
def test_it_folds_into_the_layer_after_it(layer, shape):
    norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    model = sequence(nn.ReLU(), norm[len(shape)](4), nn.Identity(), layer)
    assert checked(model, sample(*shape)).folded == {"1": ("3",)}


def test_multiples_are_passed_forwards_too():
    layers = [nn.BatchNorm1d(4), Multiple(lambda x: x * -2 / 3), nn.Linear(4, 6)]
    assert checked(sequence(*layers), sample(3, 4)).folded == {"0": ("2",)}


@pytest.mark.parametrize(
    "between",
    [lambda x: x * 0, lambda x: x * x, lambda x: x * x.mean(), lambda x: 2 / x],
    ids=["zero", "square", "by itself", "reciprocal"],
)
def test_what_is_no_multiple_is_not_passed(between):
    layers = [nn.Linear(4, 6), Multiple(between), nn.BatchNorm1d(6)]
    assert checked(sequence(*layers), sample(3, 4)).folded == {}


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), "pads with zeros"),
        (nn.Conv2d(4, 6, 3, padding="same"), "pads with zeros"),
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


def test_a_concatenation_passes_it_beside_uncorrected_channels():
    model = Chain(
        lambda m, x: m.conv(torch.cat([x, m.norm(x), x], 1)),
        norm=nn.BatchNorm2d(4),
        conv=nn.Conv2d(12, 5, 3),
    )
    assert checked(trained(model), sample(*IMAGE)).folded == {"norm": ("conv",)}


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


def test_two_in_a_row_become_one_where_no_layer_is_near():
    for affine in (True, False):
        norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=affine)]
        result = checked(sequence(nn.ReLU(), *norms, nn.ReLU()), sample(*IMAGE))
        assert result.folded == {"1": ("2",)}
        assert list(result.kept) == ["2"]


def test_a_layer_takes_one_up_on_both_sides():
    model = sequence(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    assert checked(model, sample(*IMAGE)).folded == {"0": ("1",), "2": ("1",)}


def test_a_folded_one_opens_the_way_for_another():
    model = Chain(
        lambda m, x: m.last(m.inner(m.conv(x)) + m.other(x)),
        last=nn.BatchNorm2d(5),  # tried first, and folds into `inner`
        inner=nn.BatchNorm2d(5),
        conv=nn.Conv2d(4, 5, 1),
        other=nn.Conv2d(4, 5, 1),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert set(result.folded["last"]) == {"inner", "other"}
    assert result.folded["inner"] == ("conv",)


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
