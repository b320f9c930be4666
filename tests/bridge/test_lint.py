"""Planted faults: each network has one or none, and lint must say just that."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from batchcorr.bridge import lint
from tests.bridge.lint_networks import (
    NOTES,
    PLANTED,
    built,
    classify,
    draw,
    good_mlp,
    labelled,
    only,
    trained_statistics,
)


@pytest.mark.parametrize("name", PLANTED)
def test_no_miss_and_no_false_alarm(name):
    found = lint(*built(name), classify)
    pairs = [(finding.rule, finding.layer) for finding in found.findings]
    assert set(pairs) == PLANTED[name][1], str(found)
    assert len(pairs) == len(set(pairs))
    assert found.ok == (not PLANTED[name][1] or name in NOTES)


def test_a_model_in_float64_is_looked_at_alike():
    model, (x, y) = built("dropout between norms")
    found = lint(model.double(), (x.double(), y), classify)
    pairs = {(finding.rule, finding.layer) for finding in found.findings}
    assert pairs == PLANTED["dropout between norms"][1]


# -- the numbers -------------------------------------------------------------------------


def test_a_redundant_bias_changes_nothing():
    evidence = only("bias in mlp").evidence
    assert evidence["change"] < 1e-12
    assert evidence["gradient"] < 1e-12


def test_dropout_s_variance_is_the_formula_s():
    # Values of mean zero, kept with probability ½: Var_eval / Var_train = ½.
    x = draw(4096, 6)
    x = x - x.mean(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 3))
    (finding,) = lint(model, labelled(x), classify).findings
    assert finding.evidence["variance"] == pytest.approx(0.5, abs=0.01)
    assert finding.message.startswith("0 changes the variance")


def test_dropout_through_weights_is_the_formula_s():
    # w'Σw / (w'Σw + (1-p)/p Σ w² E x²) per channel, with Σ that of the outputs of BN.
    model, (x, y) = built("dropout between norms")
    p = 0.9
    z = F.batch_norm(model[0](x).double(), None, None, training=True)
    w = model[3].weight.detach().double()
    signal = torch.diagonal(w @ torch.cov(z.T, correction=0) @ w.T)
    noise = (1 - p) / p * (w**2) @ (z**2).mean(0)
    expected = float((signal / (signal + noise)).detach().mean())
    (finding,) = lint(model, (x, y), classify).findings
    assert finding.evidence["variance"] == pytest.approx(expected, abs=0.01)


def test_the_inflation_of_one_over_sd_is_measured():
    evidence = only("small batch").evidence
    assert evidence["rows"] == 4
    generator = torch.Generator().manual_seed(0)
    sd = torch.randn(400_000, 4, generator=generator).std(1, correction=0)
    # Var(1/sd) is infinite at m = 4, so the median of many means is compared.
    means = (1 / sd).reshape(400, -1).mean(1)
    assert float(means.median()) == pytest.approx(1 + evidence["inflation"], rel=0.05)


def test_two_values_inflate_without_bound():
    model, _ = good_mlp()
    (finding,) = lint(model, labelled(draw(2, 8)), classify).findings
    assert finding.evidence == {"rows": 2, "inflation": math.inf}


def test_the_distance_of_statistics_is_the_data_s():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    x = draw(64, 4)
    model, batch = trained_statistics(model, labelled(x), steps=400)
    (finding,) = lint(
        model, (2 * x + 2 * x.std(0, correction=0), batch[1]), classify
    ).findings
    mean, sd = x.mean(0), x.std(0, correction=0)
    expected = (((2 * mean + 2 * sd - mean) / (2 * sd)) ** 2).mean().sqrt()
    assert finding.evidence["shift"] == pytest.approx(float(expected), rel=1e-3)
    assert finding.evidence["variance_factor"] == pytest.approx(4, rel=0.02)


def test_positions_are_no_replicates():
    # 3 images, each of its own brightness: 300 positions tell no more than 3 values.
    bright = draw(3, 1, 1, 1, seed=5).expand(3, 2, 10, 10) + 0.01 * draw(3, 2, 10, 10)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(200, 3))
    model[0].running_mean.copy_(bright.mean((0, 2, 3)) + 0.6 * bright.std())
    model[0].running_var.copy_(bright.var((0, 2, 3)))
    model[0].num_batches_tracked.fill_(100)
    assert lint(model, labelled(bright), classify).ok


# -- weight decay ------------------------------------------------------------------------


class Mixed(nn.Module):
    """Every kind of weight: by unit, as a whole, through a ReLU, and ordinary."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16, bias=False)
        self.second = nn.Linear(16, 16, bias=False)
        self.norm = nn.BatchNorm1d(16)
        self.third = nn.Linear(16, 12, bias=False)
        self.layer_norm = nn.LayerNorm(12)
        self.fourth = nn.Linear(12, 10)
        self.second_layer_norm = nn.LayerNorm(10)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.second(F.relu(self.first(x)))))
        x = F.relu(self.layer_norm(self.third(x)))
        return self.head(F.relu(self.second_layer_norm(self.fourth(x))))


def mixed():
    torch.manual_seed(3)
    return Mixed(), labelled(draw(32, 8))


def test_scale_invariant_weights_are_found_by_unit_and_as_a_whole():
    # `fourth` has a bias that does not grow with it, and so is not invariant.
    model, batch = mixed()
    nn.init.zeros_(model.fourth.bias)
    found = lint(model, batch, classify)
    assert found.ok
    assert set(found.scale_invariant) == {
        "first.weight",
        "second.weight",
        "third.weight",
    }


def test_a_length_that_the_gradient_does_not_see_is_tried():
    class Detached(nn.Sequential):
        """The length of its first weight comes back, without a gradient."""

        def forward(self, x):
            return super().forward(x) * self[0].weight.detach().norm()

    layers = nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4)
    model = nn.Sequential(Detached(*layers), nn.Linear(4, 3))
    assert lint(model, labelled(draw(32, 8)), classify).scale_invariant == ()


def test_decay_on_them_is_found_only_where_an_optimizer_decays():
    model, batch = mixed()
    adam = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    found = lint(model, batch, classify, adam)
    assert found.ok  # decay is a schedule: a note, no fault
    assert {finding.severity for finding in found.findings} == {"note"}
    layers = {finding.layer for finding in found.findings}
    assert layers == {"first", "second", "third"}
    assert {finding.evidence["weight_decay"] for finding in found.findings} == {0.05}
    assert lint(model, batch, classify, torch.optim.SGD(model.parameters())).ok


def test_the_groups_given_are_all_parameters_once_and_pass_lint():
    model, batch = mixed()
    groups = lint(model, batch, classify).parameter_groups(weight_decay=0.05)
    given = [id(value) for group in groups for value in group["params"]]
    assert sorted(given) == sorted(id(value) for value in model.parameters())
    assert len(given) == len(set(given))
    decayed = {id(value) for value in groups[0]["params"]}
    assert decayed == {id(model.fourth.weight), id(model.head.weight)}
    optimizer = torch.optim.AdamW(groups)
    assert lint(model, batch, classify, optimizer).ok


def test_frozen_parameters_are_in_no_group():
    model, batch = mixed()
    model.head.weight.requires_grad_(False)
    groups = lint(model, batch, classify).parameter_groups(weight_decay=0.1)
    held = {id(value) for group in groups for value in group["params"]}
    assert id(model.head.weight) not in held


def test_a_kernel_is_invariant_under_its_own_axis():
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(256, 3),
    )
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    (finding,) = lint(model, labelled(draw(8, 2, 6, 6)), classify, sgd).findings
    assert finding.layer == "0"
