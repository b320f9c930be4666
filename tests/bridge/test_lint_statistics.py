"""What lint says of running statistics, of many layers, and of what it is given."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from batchcorr.bridge import lint
from batchcorr.bridge.nn import ComBatNorm1d, DomainBatchNorm1d, at_domain
from batchcorr.errors import InputError
from tests.bridge.lint_networks import (
    built,
    classify,
    draw,
    frozen_amid_training,
    good_mlp,
    labelled,
    mlp,
    norm_with,
    only,
    settled_statistics,
    trained_statistics,
)

# -- statistics that are broken or move --------------------------------------------------


def broken(value):
    model, batch = settled_statistics()
    model[1].running_var[3] = value
    return model, batch


def frozen_backbone():
    model, batch = settled_statistics()
    model[:2].requires_grad_(False)
    return model, batch


def stale():
    model, batch = frozen_amid_training()
    model[0].weight.data.mul_(5)
    return model, batch


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: broken(math.nan), "1 of 16 channels are not finite"),
        (lambda: broken(math.inf), "1 of 16 channels are not finite"),
        (lambda: broken(-1.0), "a variance is negative"),
        (frozen_backbone, "running statistics still move"),
        (stale, "statistics go stale"),
        (lambda: norm_with(momentum=-0.1), "With a momentum of -0.1"),
        (lambda: norm_with(momentum=0.99), "With a momentum of 0.99"),
    ],
    ids=["nan", "inf", "negative", "backbone", "stale", "momentum", "keras"],
)
def test_statistics_that_cannot_serve_are_faults(make, words):
    model, batch = make()
    (finding,) = lint(model, batch, classify).findings
    assert (finding.rule, finding.layer) == ("running-statistics", "1")
    assert finding.severity == "fault"
    assert words in finding.message
    assert str(finding)


def test_a_norm_of_the_input_without_parameters_is_meant_to_move():
    model, batch = mlp(nn.BatchNorm1d(8, affine=False), nn.Linear(8, 3))
    assert lint(model, batch, classify).ok


def test_other_batch_norms_are_looked_at_on_one_process():
    model, batch = built("bias in mlp")
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    found = [lint(m, batch, classify) for m in (model, sync, nn.DataParallel(model))]
    assert len({str(one) for one in found}) == 1
    assert isinstance(sync[1], nn.SyncBatchNorm)


# -- many layers -------------------------------------------------------------------------


def deep(layers, *, bias=False):
    blocks = [
        part
        for _ in range(layers)
        for part in (nn.Linear(16, 16, bias=bias), nn.BatchNorm1d(16), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.Linear(16, 3)), labelled(draw(32, 16))


def test_the_same_finding_on_many_layers_is_one_entry():
    model, batch = deep(10, bias=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-4)
    found = lint(model, batch, classify, optimizer)
    assert len(found.findings) == 20
    lines = str(found).splitlines()
    assert len(lines) < 16
    assert lines[0] == "redundant-bias (fault): 0, 3, 6, 9, 12 and 5 more"
    notes = [line for line in lines if "(note)" in line]
    assert notes == [
        "decay-on-scale-invariant-weight (note): 0, 3, 6, 9, 12 and 5 more"
    ]


def test_a_model_is_run_as_often_however_many_layers_it_has():
    runs = []
    for layers in (2, 12):
        model, batch = deep(layers, bias=True)
        count = []
        lint(model, batch, lambda m, b, c=count: c.append(1) or classify(m, b))
        runs.append(len(count))
    assert runs[0] == runs[1] <= 12


def test_one_weight_among_many_that_is_not_invariant_is_told_apart():
    model, batch = deep(4)
    model[6] = nn.Linear(16, 16)  # its bias does not grow with it
    model[7] = nn.LayerNorm(16)
    nn.init.zeros_(model[6].bias)
    found = lint(model, batch, classify).scale_invariant
    assert set(found) == {"0.weight", "3.weight", "9.weight"}


# -- what is left alone ------------------------------------------------------------------


def snapshot(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: module.training for name, module in model.named_modules()},
        {name: value.requires_grad for name, value in model.named_parameters()},
        {name: value.grad for name, value in model.named_parameters()},
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        torch.get_rng_state(),
    )


def assert_same(one, other):
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1:5] == other[1:5]
    assert torch.equal(one[5], other[5])


@pytest.mark.parametrize("name", ["dropout before", "one image", "shifted data"])
def test_the_model_stays_as_it_was(name):
    model, batch = built(name)
    before = snapshot(model)
    lint(model, batch, classify)
    assert_same(before, snapshot(model))


def test_a_loss_written_for_float32_is_measured_in_float32():
    model, (x, y) = built("bias in mlp")
    weight = torch.ones(3)

    def loss(model, batch):
        return F.cross_entropy(model(batch[0].float()), batch[1], weight=weight)

    (finding,) = lint(model, (x, y), loss).findings
    assert finding.rule == "redundant-bias"
    assert 1e-12 < finding.evidence["change"] < 1e-4
    model, batch = built("residual")
    assert lint(model, batch, loss).ok


def test_a_batch_may_be_any_nesting():
    model, (x, y) = built("bias in mlp")

    def loss(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["more"][0]) * batch["weight"]

    found = lint(model, {"x": x, "more": [y], "weight": 2.0}, loss)
    assert [finding.layer for finding in found.findings] == ["0"]


def test_a_step_out_of_the_domain_is_a_change():
    class Logarithm(nn.Module):
        """A bias that must be positive, before a normalization of its logarithm."""

        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.full((8,), 3.0))
            self.norm = nn.BatchNorm1d(8)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.norm(x * 0 + self.bias.log() + x.detach()))

    # Constant over rows, so redundant where it is defined; NaN for large steps down.
    found = lint(Logarithm(), built("mlp")[1], classify)
    assert found.ok


def test_a_finding_reads_well():
    text = str(only("dropout before"))
    head = "dropout-before-batchnorm (fault): 2\n    1 changes the variance"
    assert text.startswith(head)
    assert "Remedy: Put dropout behind the last BatchNorm" in text
    with pytest.raises(AttributeError):
        only("one row").rule = "other"


# -- bad input ---------------------------------------------------------------------------


def lazy():
    return nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4))


def refused(model=None, batch=None, loss=classify, optimizer=None):
    own, x = good_mlp()
    model, batch = model or own, x if batch is None else batch
    with pytest.raises(InputError) as caught:
        lint(model, batch, loss, optimizer)
    return str(caught.value)


def test_bad_models_are_refused():
    assert "torch.nn.Module" in refused(model="resnet")
    assert "lazy layers" in refused(model=lazy())
    assert "model.train()" in refused(model=good_mlp()[0].eval())
    assert "requires_grad" in refused(model=good_mlp()[0].requires_grad_(False))
    assert "meta" in refused(model=good_mlp()[0].to("meta"))


def test_bad_batches_are_refused():
    x, y = good_mlp()[1]
    assert "no tensor" in refused(batch="file.csv")
    assert "shapes are (32, 8), (31,)" in refused(batch=(x, y[:31]))
    assert "NaN" in refused(batch=(x.index_fill(0, torch.tensor(3), math.nan), y))
    assert "shapes are (0, 8), (0,)" in refused(batch=(x[:0], y[:0]))


def test_bad_losses_are_refused():
    assert "function of the model and a batch" in refused(loss=nn.CrossEntropyLoss())
    assert "function of the model and a batch" in refused(loss=F.cross_entropy)
    assert "one number" in refused(loss=lambda model, batch: model(batch[0]))
    assert "not finite" in refused(loss=lambda m, b: m(b[0]).sum() * math.nan)
    other = good_mlp()[0]
    assert "the model it is given" in refused(
        loss=lambda _, b: classify(other, b).detach()
    )


def test_a_loss_of_another_model_is_refused():
    model, batch = good_mlp()
    other = good_mlp()[0]
    message = refused(model, batch, lambda _, b: classify(other, b))
    assert "the model it is given" in message


def test_bad_optimizers_are_refused():
    assert "Optimizer" in refused(optimizer="adam")
    other = torch.optim.SGD(good_mlp()[0].parameters())
    assert "another" in refused(optimizer=other)


@pytest.mark.parametrize("decay", [-1.0, "0.1", None, True, math.nan])
def test_a_decay_must_be_a_number(decay):
    found = lint(*good_mlp(), classify)
    with pytest.raises(InputError, match="weight_decay must be a number"):
        found.parameter_groups(weight_decay=decay)


class Ordered(nn.Module):
    """Layers called in an order, each under one name however often it is called."""

    def __init__(self, layers, order):
        super().__init__()
        self.layers, self.order = layers, order

    def forward(self, x):
        for k in self.order:
            x = self.layers[k](x)
        return x


@pytest.mark.parametrize(
    ("layers", "order"),
    [
        # a norm for two layers, one of them with a redundant bias
        (
            [
                nn.Linear(8, 8, bias=False),
                nn.BatchNorm1d(8),
                nn.Linear(8, 8),
                nn.Linear(8, 3),
            ],
            [0, 1, 2, 1, 3],
        ),
        # a dropout before a norm at its second call
        (
            [
                nn.Dropout(0.5),
                nn.Linear(8, 8, bias=False),
                nn.BatchNorm1d(8),
                nn.ReLU(),
                nn.Linear(8, 3),
            ],
            [1, 2, 3, 0, 1, 2, 4],
        ),
    ],
    ids=["norm", "dropout"],
)
def test_a_layer_may_be_registered_under_several_names(layers, order):
    batch = labelled(draw(32, 8))
    torch.manual_seed(0)
    once = Ordered(nn.ModuleList(layers), order)
    trained_statistics(once, batch)
    twice = nn.Sequential(*(once.layers[k] for k in order))
    before = snapshot(twice)
    found = [lint(model, batch, classify) for model in (once, twice)]
    assert_same(before, snapshot(twice))
    rules = [[finding.rule for finding in one.findings] for one in found]
    evidence = [[finding.evidence for finding in one.findings] for one in found]
    assert rules[0] == rules[1]
    assert evidence[0] == evidence[1]
    invariant = [len(one.scale_invariant) for one in found]
    assert invariant[0] == invariant[1]


def test_a_failing_model_leaves_no_trace_and_torch_s_words_are_the_cause():
    model, (x, y) = built("bias in mlp")
    before = snapshot(model)
    with pytest.raises(
        InputError, match=r"fails on a batch of shapes \(32, 3\), \(32"
    ) as e:
        lint(model, (x[:, :3], y), classify)
    assert isinstance(e.value.__cause__, RuntimeError)
    assert str(e.value.__cause__) in str(e.value)
    assert_same(before, snapshot(model))

    class Overwritten(nn.Linear):
        def forward(self, x):
            y = super().forward(x).sigmoid()
            y += 1  # sigmoid's gradient wants it as it was
            return y

    assert "backward() fails: one of the variables" in refused(Overwritten(8, 3))
    assert "IndexError: Target 2" in refused(
        nn.Sequential(nn.Linear(8, 2), nn.BatchNorm1d(2))
    )


def test_what_was_looked_at_is_said():
    found = lint(*good_mlp(), classify)
    assert (
        str(found)
        == "No fault found. Looked at 1 BatchNorm1d and 5 weights and biases."
    )
    model, batch = mlp(nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    found = str(lint(model, batch, classify))
    assert "Looked at no BatchNorm and 6 weights and biases" in found


# -- the package's own norms ---------------------------------------------------------------


def test_the_model_of_a_domain_is_looked_at_and_not_that_of_several():
    model, batch = built("bias in mlp")
    wanted = lint(model, batch, classify).findings
    model[1] = DomainBatchNorm1d.from_batch_norm(model[1], ["a", "b"])
    assert "at_domain(model, domain)" in refused(model, batch)
    found = lint(at_domain(model, "a"), batch, classify).findings
    assert [(f.rule, f.layer) for f in found] == [(f.rule, f.layer) for f in wanted]


def test_combat_norm_is_made_for_small_batches():
    model, (x, y) = good_mlp()
    model[1] = ComBatNorm1d(16)
    assert lint(model, (x[:4], y[:4]), classify).ok
