"""One page on a model: every part is what the function itself gives, and none is lost."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from batchcorr import bridge
from batchcorr.bridge.nn import convert_domain_batchnorm
from batchcorr.errors import InputError


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def network():
    torch.manual_seed(0)
    layers = []
    for k in range(3):
        layers += [nn.Linear(6, 6, bias=k == 1), nn.BatchNorm1d(6), nn.ReLU()]
    model = nn.Sequential(*layers, nn.BatchNorm1d(6), nn.Sigmoid(), nn.Linear(6, 3))
    with torch.no_grad():
        for _ in range(60):
            model(torch.randn(32, 6))
    return model, (torch.randn(32, 6), torch.arange(32) % 3)


def test_every_part_is_what_its_function_gives():
    model, batch = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    sites = [torch.randn(40, 6), torch.randn(40, 6) + 2]
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    found = bridge.report(
        model,
        batch,
        loss,
        optimizer,
        sites,
        domain=["a"] * 40 + ["b"] * 40,
        micro_batch_size=8,
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert found.batch_norms == {"BatchNorm1d, training": 4}
    alone = bridge.lint(model, batch, loss, optimizer).findings
    assert [(f.rule, f.layer) for f in found.findings.findings] == [
        (f.rule, f.layer) for f in alone
    ]
    assert not found.ok
    folded = bridge.fold(copy.deepcopy(model).eval(), batch[0])
    assert (
        found.folded.folded == folded.folded == {"1": ("0",), "4": ("3",), "7": ("6",)}
    )
    assert set(found.folded.kept) == {"9"}
    cost = bridge.accumulate.check(
        model, batch, loss, micro_batch_sizes=[8], partitions=5
    )
    (ours,), (own,) = found.accumulation.sizes, cost.sizes
    assert ours.micro_batch_size == 8
    assert ours.error == pytest.approx(own.error, rel=1e-4)  # threads round otherwise
    shares = bridge.capture(model, sites, ["a"] * 40 + ["b"] * 40).uns["layers"]
    assert found.layers.equals(shares)
    page = str(found)
    for text in (
        "4 BatchNorm1d, training",
        "redundant-bias (fault): 3",
        "decay-on-scale-invariant-weight (note): 0, 3, 6",
        "3 of 4 fold into a neighbour",
        "kept: 9: ",
        "Gradient accumulation",
    ):
        assert text in page
    assert len(page.splitlines()) < 50


def test_what_was_not_asked_for_is_left_out():
    model, batch = network()
    page = str(bridge.report(model, batch, loss))
    assert "Accumulation" not in page
    assert "share of variance" not in page


def test_the_default_device_does_not_matter():
    """With torch.set_default_device, what a tool makes for itself is on the CPU still."""
    model, batch = network()
    pages = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            found = bridge.report(model, batch, loss, micro_batch_size=8)
            bridge.profile(copy.deepcopy(model).eval(), [batch])
        pages.append(str(found))
    assert pages[0] == pages[1]
    assert "kept: " in pages[0]


def test_a_long_account_of_folding_is_cut():
    layers = [nn.Sequential(nn.ReLU(), nn.BatchNorm1d(6)) for _ in range(12)]
    model, (x, y) = nn.Sequential(*layers), network()[1]
    page = str(bridge.report(model, (x, y % 6), loss))
    assert page.count("kept: ") == 5
    assert "and 7 more reasons, in .folded.kept" in page
    account = repr(bridge.fold(model.eval(), x))
    assert account.count("kept: ") == 10
    assert "and 2 more, in .kept" in account


def test_a_part_that_cannot_be_measured_says_why():
    model, batch = network()

    def keywords_too(model, batch):
        return F.cross_entropy(model(batch[0], scale=2.0), batch[1])

    class Scaled(nn.Sequential):
        def forward(self, x, scale=1.0):
            return scale * super().forward(x)

    found = bridge.report(Scaled(*model), batch, keywords_too, micro_batch_size=3.5)
    assert found.folded is None
    assert "Not measured: The loss does not call the model with inputs by" in str(found)
    assert found.accumulation is None
    assert "Not measured: A micro-batch has a whole number" in str(found)


def test_a_model_without_batch_norm_and_one_in_evaluation():
    model = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    found = bridge.report(model, network()[1], loss)
    assert found.ok
    assert found.folded is None
    assert str(found).startswith("BatchNorm layers\n  none")
    with pytest.raises(InputError, match=r"model\.train\(\)"):
        bridge.report(network()[0].eval(), network()[1], loss)
    by_domain = convert_domain_batchnorm(network()[0], ["a", "b"])
    with pytest.raises(InputError, match="at_domain"):
        bridge.report(by_domain, network()[1], loss)
