"""Whole models with BatchNorm by domain: converted, led back, and given more domains."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm
from torch.nn.utils.prune import random_unstructured

from batchcorr.bridge import lint
from batchcorr.bridge.nn import (
    DomainBatchNorm1d,
    at_domain,
    convert_domain_batchnorm,
    domains,
)
from batchcorr.errors import InputError, UnknownBatchError
from tests.bridge.test_nn import DAYS, DOUBLE, NormAct, sample


class NormDropAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: dropout and activation are parts of the module."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Dropout(0.5), nn.PReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def converted(*layers):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for _ in range(3):
            model(3 * torch.randn(8, 3, 6, 6) + 1)
    return model.eval(), convert_domain_batchnorm(
        model, ["mon", "tue"], unseen="global"
    )


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4), NormDropAct(4)], ids=["plain", "act"]
)
def test_a_whole_model_is_converted_and_led_back(norm):
    x, days = torch.randn(4, 3, 6, 6), ["mon", "tue"] * 2
    model, ours = converted(norm, norm)  # one module at two places
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())
    assert ours[1] is ours[2]
    with domains(days):
        assert torch.equal(ours(x), model(x))
        before = ours.train()(x).detach()
        ours.eval()
        assert not torch.equal(ours(x), before)
    for day in days[:2]:
        with domains(day):
            assert torch.equal(at_domain(ours, day)(x), ours(x))
    assert torch.equal(model(x), model(x))
    assert torch.equal(at_domain(converted(norm)[1], "mon")(x), converted(norm)[0](x))


def test_weights_that_are_shared_stay_so():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.LayerNorm(4))
    model[1].weight = model[2].bias = model[0].weight
    ours = convert_domain_batchnorm(model, ["mon"])
    more = convert_domain_batchnorm(ours, ["mon", "tue"])
    for one in (ours, more, at_domain(more, "mon")):
        assert one[0].weight is one[1].weight is one[2].bias
        assert one[0].weight is not model[0].weight
        assert one[0].bias is not one[1].bias


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("compute", [random_unstructured, weight_norm])
def test_computed_weights_of_other_layers_are_copied(compute):
    first = compute(nn.Linear(3, 4), "weight", 1)
    model, x = nn.Sequential(first, nn.BatchNorm1d(4)), torch.randn(5, 3)
    model(x)
    model.eval()
    ours = at_domain(convert_domain_batchnorm(model, ["mon"]), "mon")
    assert torch.equal(ours(x), model(x))
    y, loss = torch.arange(5) % 4, nn.functional.cross_entropy
    assert lint(model.train(), (x, y), lambda m, b: loss(m(b[0]), b[1])).findings


def test_a_label_spelled_alike_is_no_new_domain():
    layer = DomainBatchNorm1d(4, [1, 2])
    assert convert_domain_batchnorm(layer, ["1", "3"]).domains == [1, 2, "3"]


def test_a_pruned_weight_is_not_lost():
    layer = DomainBatchNorm1d(4, ["mon"])
    layer(torch.ones(2, 4), "mon")
    with pytest.raises(InputError, match="The 'weight' of a DomainBatchNorm1d is"):
        at_domain(random_unstructured(layer, "weight", 1), "mon")
    with pytest.raises(InputError, match="The 'weight' of a BatchNorm1d is computed"):
        DomainBatchNorm1d.from_batch_norm(
            random_unstructured(nn.BatchNorm1d(4), "weight", 1), ["mon"]
        )


def test_what_is_frozen_stays_frozen():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    for one in (
        ours := convert_domain_batchnorm(model, ["mon"]),
        at_domain(ours, "mon"),
    ):
        assert not any(p.requires_grad for p in one.parameters())


def test_a_domain_is_added_to_layers_that_have_been_trained():
    layer = DomainBatchNorm1d(
        5, ["mon", "tue"], momentum=None, unseen="global", dtype=DOUBLE
    )
    x = sample((12, 5))
    layer(x, DAYS)
    more = convert_domain_batchnorm(nn.Sequential(layer.eval()), ["tue", "wed"])[0]
    assert more.domains == ["mon", "tue", "wed"]
    assert torch.equal(more(x, DAYS), layer(x, DAYS))
    assert torch.equal(more(x, "wed"), layer(x, "wed"))  # of all together
    assert more.unseen == "global"
    more.train()(x, "wed")
    assert not torch.equal(more.running_mean[2], layer.running_mean[1])
    fresh = convert_domain_batchnorm(DomainBatchNorm1d(5, ["mon"]), ["tue"])
    with pytest.raises(UnknownBatchError, match="'tue' was never met"):
        fresh.eval()(x.float(), "tue")


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (nn.Linear(3, 4), "nothing to convert"),
        (nn.Sequential(nn.SyncBatchNorm(3)), "Convert before convert_sync_batchnorm"),
        (nn.Sequential(NormAct(3)), r"'0' \(NormAct\) cannot be converted"),
        (nn.BatchNorm2d(3, track_running_stats=False), "with running statistics"),
        (random_unstructured(nn.BatchNorm2d(3), "bias", 1), "The 'bias' of .*prune"),
    ],
)
def test_what_cannot_be_converted(model, match):
    with pytest.raises(InputError, match=match):
        convert_domain_batchnorm(model, ["a", "b"])
