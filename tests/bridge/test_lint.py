"""Planted faults: each network has one or none, and lint must say just that."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from batchcorr.bridge import lint
from batchcorr.errors import InputError

torch.set_num_threads(1)


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


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["32", "64"])
def test_no_miss_and_no_false_alarm(name, dtype):
    model, (x, y) = built(name)
    found = lint(model.to(dtype), (x.to(dtype), y), classify)
    pairs = [(finding.rule, finding.layer) for finding in found.findings]
    assert set(pairs) == PLANTED[name][1], str(found)
    assert len(pairs) == len(set(pairs))
    assert found.ok == (not PLANTED[name][1] or name in NOTES)


# -- the numbers -------------------------------------------------------------------


def only(name):
    (finding,) = lint(*built(name), classify).findings
    return finding


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


# -- weight decay ------------------------------------------------------------------


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


def test_decay_on_them_is_found_only_where_an_optimizer_decays():
    model, batch = mixed()
    adam = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    found = lint(model, batch, classify, adam)
    assert found.ok  # decay is a schedule: a note, no fault
    assert {finding.severity for finding in found.findings} == {"note"}
    layers = {finding.layer for finding in found.findings}
    assert layers == {"first", "second", "third"}
    assert {finding.evidence["weight_decay"] for finding in found.findings} == {0.05}
    assert "each of its output units" in found.findings[1].message
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
    assert "each of its output units" in finding.message


# -- statistics that are broken or move ------------------------------------------------


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
        (lambda: norm_with(momentum=-0.1), "run away from the data"),
        (lambda: norm_with(momentum=0.99), "are those of the last batch"),
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


# -- many layers -----------------------------------------------------------------------


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


# -- what is left alone ------------------------------------------------------------


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


# -- bad input ---------------------------------------------------------------------


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
    assert "32, 31" in refused(batch=(x, y[:31])).replace("31, 32", "32, 31")
    assert "NaN" in refused(batch=(x.index_fill(0, torch.tensor(3), math.nan), y))
    assert "no sample" in refused(batch=(x[:0], y[:0]))


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
        # a bias that is redundant once, and once not
        (
            [nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)],
            [0, 1, 2, 0, 2, 3],
        ),
        # a layer that is tried twice, then a redundant bias
        (
            [
                nn.Linear(8, 8),
                nn.ReLU(),
                nn.Linear(8, 8),
                nn.BatchNorm1d(8),
                nn.Linear(8, 3),
            ],
            [0, 1, 0, 1, 2, 3, 4],
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
    ids=["norm", "bias", "later", "dropout"],
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


def test_a_failing_model_leaves_no_trace():
    model, (x, y) = built("bias in mlp")
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        lint(model, (x[:, :3], y), classify)
    assert_same(before, snapshot(model))
