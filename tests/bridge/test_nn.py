"""Layers: what they compute is what the package's methods compute, on tensors."""

from __future__ import annotations

import copy
import enum
import io

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import batchcorr as bc
from batchcorr.bridge import fold
from batchcorr.bridge.nn import (
    ComBatNorm1d,
    ComBatNorm2d,
    ComBatNorm3d,
    DomainBatchNorm1d,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
    at_domain,
    domains,
)
from batchcorr.errors import InputError, UnknownBatchError

DOUBLE = torch.float64
SHAPES = {1: (12, 5), 2: (12, 5, 3, 4), 3: (12, 5, 2, 3, 2)}
DAYS = ["mon", "tue", "mon", "tue"] * 3
DOMAIN_LAYERS = {1: DomainBatchNorm1d, 2: DomainBatchNorm2d, 3: DomainBatchNorm3d}
COMBAT_LAYERS = {1: ComBatNorm1d, 2: ComBatNorm2d, 3: ComBatNorm3d}

dimension = pytest.mark.parametrize("dimensions", [1, 2, 3])


def sample(shape, seed=0, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=DOUBLE)
    return (3 * x + torch.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))).to(
        dtype
    )


def batch_norm(dimensions, **options):
    return getattr(nn, f"BatchNorm{dimensions}d")(5, dtype=DOUBLE, **options)


def randomised(layer, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(5, generator=generator, dtype=DOUBLE))
        layer.bias.copy_(torch.randn(5, generator=generator, dtype=DOUBLE))
    return layer


def relative(a, b):
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max())


# -- DomainBatchNorm ---------------------------------------------------------------


@dimension
@pytest.mark.parametrize("momentum", [0.1, None])
def test_each_domain_has_a_batch_norm_of_its_own(dimensions, momentum):
    layer = randomised(
        DOMAIN_LAYERS[dimensions](5, ["mon", "tue"], momentum=momentum, dtype=DOUBLE)
    )
    apart = {
        day: randomised(batch_norm(dimensions, momentum=momentum))
        for day in ("mon", "tue")
    }
    days = np.asarray(DAYS)
    for seed in range(3):
        x = sample(SHAPES[dimensions], seed)
        y = layer(x, DAYS)
        for day, norm in apart.items():
            assert relative(y[days == day], norm(x[days == day])) < 1e-12
    for norm in (layer, *apart.values()):
        norm.eval()
    y = layer(x, DAYS)
    for code, (day, norm) in enumerate(apart.items()):
        assert relative(layer.running_mean[code], norm.running_mean) < 1e-12
        assert relative(layer.running_var[code], norm.running_var) < 1e-12
        assert relative(y[days == day], norm(x[days == day])) < 1e-12


def test_gradients_are_those_of_separate_batch_norms():
    layer = randomised(DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE))
    norm = randomised(batch_norm(1))
    days = np.asarray(DAYS)
    x = sample((12, 5)).requires_grad_()
    z = x.detach().clone().requires_grad_()
    (layer(x, DAYS) ** 3).sum().backward()
    for day in ("mon", "tue"):
        (norm(z[days == day]) ** 3).sum().backward()
    assert relative(x.grad, z.grad) < 1e-10
    assert relative(layer.weight.grad, norm.weight.grad) < 1e-12


def test_bladder_by_a_layer_in_evaluation_is_pp_standardize():
    adata = bc.datasets.bladder()[:, :200].copy()
    bc.pp.standardize(adata, "batch", target="unit", key_added="unit")
    bc.pp.standardize(adata, "batch", key_added="pooled")
    batches = adata.obs["batch"].tolist()
    x = torch.tensor(np.asarray(adata.X), dtype=DOUBLE)
    layer = DomainBatchNorm1d(
        200, sorted(set(batches)), eps=0.0, momentum=None, dtype=DOUBLE
    )
    layer(x, batches)  # one pass: the running statistics are those of the data
    layer.eval()
    unit = torch.tensor(np.asarray(adata.layers["unit"]), dtype=DOUBLE)
    exact = bc.Standardize(target="unit").fit_transform(x, batch=batches)
    assert relative(layer(x, batches), exact) < 1e-12
    assert relative(exact, unit) < 1e-5  # the data set is stored in float32
    pooled = bc.Standardize().fit(x, batch=batches)
    aim = pooled._fitted.aim
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(aim.scale))
        layer.bias.copy_(torch.from_numpy(aim.location))
    assert relative(layer(x, batches), pooled.transform(x, batch=batches)) < 1e-12


def test_labels_may_stand_around_the_model():
    model = nn.Sequential(
        nn.Linear(5, 5, dtype=DOUBLE), DomainBatchNorm1d(5, [7, 8], dtype=DOUBLE)
    )
    x = sample((12, 5))
    labels = torch.tensor([7, 8] * 6)
    with domains(labels):
        inside = model(x)
    assert torch.equal(inside, model[1](model[0](x), labels.tolist()))
    with pytest.raises(InputError, match="Which domain"):
        model(x)


def test_one_label_may_stand_for_all_samples():
    layer = DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE)
    x = sample((12, 5))
    assert torch.equal(layer(x, "tue"), layer(x, ["tue"] * 12))


def test_an_unseen_domain_falls_back_as_told():
    x, other = sample((12, 5)), sample((6, 5), seed=9) + 4
    layers = {
        unseen: DomainBatchNorm1d(
            5, ["mon", "tue"], momentum=None, unseen=unseen, dtype=DOUBLE
        )
        for unseen in ("error", "global", "shrink")
    }
    for layer in layers.values():
        layer(x, DAYS)
        layer.eval()
    with pytest.raises(UnknownBatchError, match=r"'wed'.*unseen='global'"):
        layers["error"](other, "wed")
    # all domains together: the moments of all rows
    overall = (other - x.mean(0)) / torch.sqrt(x.var(0) + 1e-5)
    assert relative(layers["global"](other, "wed"), overall) < 1e-12
    # shrunken: ComBat's batch effect of the new rows against all rows
    y = layers["shrink"](other, "wed").detach()
    own = (other - other.mean(0)) / other.std(0)
    assert float((y - own).abs().max()) < float((overall - own).abs().max())
    assert float(y.mean().abs()) < 0.1
    # and each sample of a known domain is as before
    mixed = layers["shrink"](torch.cat([x, other]), [*DAYS, *["wed"] * 6])
    assert torch.equal(mixed[:12], layers["error"](x, DAYS))
    assert torch.equal(mixed[12:].detach(), y)


def test_a_domain_never_met_in_training_has_no_statistics():
    layer = DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE)
    layer(sample((12, 5)), "mon")
    layer.eval()
    with pytest.raises(UnknownBatchError, match="'tue' was never met"):
        layer(sample((12, 5)), DAYS)


def test_a_state_dict_keeps_the_domains():
    layer = randomised(DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE))
    layer(sample((12, 5)), DAYS)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE)
    again.load_state_dict(state)
    x = sample((12, 5), seed=3)
    assert torch.equal(again.eval()(x, DAYS), layer.eval()(x, DAYS))
    swapped = DomainBatchNorm1d(5, ["tue", "mon"], dtype=DOUBLE)
    with pytest.raises(InputError, match="same domains in the same order"):
        swapped.load_state_dict(state)


class Day(enum.IntEnum):
    MON = 1
    TUE = 2


@pytest.mark.parametrize(
    "given",
    [
        [np.str_("mon"), np.str_("tue")],
        np.array(["mon", "tue"]),
        pd.Index(["mon", "tue"]),
        [np.int64(3), np.int64(4)],
        torch.tensor([3, 4]),
        [np.float64(0.5), 1.5],
        [np.True_, False],
        [("mon", np.int64(1)), ("mon", 2)],
        [b"mon", b"tue"],
        [Day.MON, Day.TUE],
        [pd.Timestamp("2026-01-05"), pd.Timestamp("2026-01-06")],
    ],
    ids=[
        "str_",
        "array",
        "Index",
        "int64",
        "tensor",
        "float64",
        "bool_",
        "tuples",
        "bytes",
        "enum",
        "dates",
    ],
)
def test_labels_of_any_library_can_be_saved_and_loaded(given):
    layer = DomainBatchNorm1d(5, given, dtype=DOUBLE)
    x = sample((12, 5))
    days = [layer.domains[0]] * 6 + [layer.domains[1]] * 6
    layer(x, days)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    again = DomainBatchNorm1d(5, given, dtype=DOUBLE)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again.eval()(x, days), layer.eval()(x, days))
    one_by_one = [*[given[0]] * 6, *[given[1]] * 6]
    if not isinstance(given, torch.Tensor):
        assert torch.equal(layer(x, one_by_one), layer(x, days))


def exportable(model, x):
    return torch.export.export(model, (x,)).module()


def scriptable(model, _x):
    return torch.jit.script(model)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("deploy", [exportable, scriptable])
def test_what_is_deployed_is_a_model_of_one_domain(deploy):
    """As the notes say: at_domain, and fold, lead out of Python."""
    norm = randomised(DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE))
    combat = randomised(ComBatNorm1d(5, dtype=DOUBLE))
    model = nn.Sequential(nn.Linear(5, 5, dtype=DOUBLE), norm, nn.ReLU())
    x = sample((12, 5))
    with domains(DAYS):
        model(x)
        combat(x)
        model.eval()
    plain = at_domain(model, "tue")
    with domains("tue"):
        assert relative(deploy(plain, x)(x), model(x)) < 1e-12
        assert relative(deploy(fold(plain, x).model, x)(x), model(x)) < 1e-12
    if deploy is exportable:
        assert relative(deploy(combat.eval(), x)(x), combat(x)) < 1e-12


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
@pytest.mark.parametrize("deploy", [torch.export.export, torch.jit.trace])
def test_one_batch_s_domains_are_not_deployed(deploy):
    model = nn.Sequential(DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE))
    x = sample((12, 5))
    with domains(DAYS):
        model(x)
        model.eval()(x)
        with pytest.raises(InputError, match="at_domain"):
            deploy(model, (x,))


def test_the_default_device_does_not_matter():
    layer = DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE)
    x = sample((12, 5))
    with torch.device("meta"):  # as torch.set_default_device
        y = layer(x, DAYS)
    assert torch.equal(y, layer(x, DAYS))


def test_a_model_at_one_domain_is_ordinary():
    norm = randomised(DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE))
    model = nn.Sequential(nn.Linear(5, 5, dtype=DOUBLE), norm, nn.ReLU(), norm)
    x = sample((12, 5))
    with domains(DAYS):
        model(x)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    plain = at_domain(model, "tue")
    assert plain[1] is plain[3]
    assert isinstance(plain[1], nn.BatchNorm1d)
    with domains("tue"):
        assert relative(plain(x), model(x)) < 1e-12
    assert all(
        torch.equal(value, before[name])
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    )
    with pytest.raises(UnknownBatchError, match="'wed'"):
        at_domain(model, "wed")
    with pytest.raises(InputError, match="no DomainBatchNorm"):
        at_domain(plain, "mon")


# -- ComBatNorm --------------------------------------------------------------------


@dimension
def test_training_is_combat_against_the_running_statistics(dimensions):
    """A reference of many rows makes sva's aim the running statistics."""
    layer = randomised(COMBAT_LAYERS[dimensions](5, eps=0.0, dtype=DOUBLE))
    reference = sample((400, 5), seed=5)
    mean, variance = reference.mean(0), reference.var(0, correction=0)
    with torch.no_grad():
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    x = sample(SHAPES[dimensions], seed=6) * 1.7 + 2
    y = layer(x)
    rows = x.movedim(1, -1).reshape(-1, 5)
    combat = bc.ComBat(reference="source").fit(
        torch.cat([reference, rows]),
        batch=["source"] * 400 + ["target"] * len(rows),
    )
    corrected = combat.transform(rows, batch=["target"] * len(rows))
    expected = (corrected - mean) / torch.sqrt(variance) * layer.weight + layer.bias
    assert relative(y.movedim(1, -1).reshape(-1, 5), expected) < 1e-10


@dimension
def test_many_rows_leave_nothing_to_shrink(dimensions):
    layer, norm = COMBAT_LAYERS[dimensions](5, dtype=DOUBLE), batch_norm(dimensions)
    shape = (4000, *SHAPES[dimensions][1:])
    x = sample(shape) * torch.arange(1, 6).reshape(-1, *[1] * (len(shape) - 2))
    assert relative(layer(x), norm(x)) < 6e-3
    assert relative(layer.running_mean, norm.running_mean) < 1e-12
    assert relative(layer.running_var, norm.running_var) < 1e-12
    layer.eval()
    norm.eval()
    assert relative(layer(x), norm(x)) < 1e-12


def test_few_rows_are_drawn_together():
    """The error of the statistics of 3 samples is smaller than BatchNorm's."""
    generator = torch.Generator().manual_seed(0)
    channels, n = 64, 3
    layer = ComBatNorm1d(channels, dtype=DOUBLE)
    shift = 1 + 0.2 * torch.randn(channels, generator=generator, dtype=DOUBLE)
    x = torch.randn((n, channels), generator=generator, dtype=DOUBLE) + shift
    y = layer(x).detach()
    scale = (y[0] - y[1]) / (x[0] - x[1])
    mean = x[0] - y[0] / scale
    assert float(((mean - shift) ** 2).mean()) < 0.5 / n
    spread = torch.log(1 / scale**2)
    assert float((spread**2).mean()) < 0.5 * float((torch.log(x.var(0)) ** 2).mean())


def test_one_sample_is_enough():
    layer = ComBatNorm1d(5, dtype=DOUBLE)
    y = layer(sample((1, 5)))
    assert torch.isfinite(y).all()
    assert torch.equal(layer.running_var, torch.ones(5, dtype=DOUBLE))


def test_gradients_are_right():
    layer = randomised(ComBatNorm1d(5, dtype=DOUBLE))
    x = sample((6, 5)).requires_grad_()

    def call(x):
        fresh = copy.deepcopy(layer)
        return fresh(x)

    assert torch.autograd.gradcheck(call, (x,), eps=1e-7, atol=1e-3, rtol=1e-3)


def test_constant_channels_are_no_trouble():
    layer = ComBatNorm1d(5, dtype=DOUBLE)
    x = sample((6, 5))
    x[:, 2] = 3.0
    assert torch.isfinite(layer(x)).all()


# -- both --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """As torch's own; ComBat's shrinkage is computed in float32."""
    x = (sample((4000, 5)) / 4 + 8).to(dtype)
    layer = DomainBatchNorm1d(5, ["mon"], dtype=dtype)
    assert torch.equal(layer(x, "mon"), nn.BatchNorm1d(5, dtype=dtype)(x))
    combat = ComBatNorm1d(5, dtype=dtype)(x)
    assert combat.dtype == dtype
    exact = ComBatNorm1d(5, dtype=DOUBLE)(x.double())
    difference = combat.detach().double() - exact.detach()
    assert float(difference.abs().max()) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (["mon"] * 11, "11 domain labels for 12 samples"),
        ([*["mon"] * 11, None], "Sample 11 has no domain"),
        ([*["mon"] * 11, float("nan")], "Sample 11 has no domain"),
        ([["mon"]] * 12, "Sample 0 has no domain"),
        ([*["mon"] * 11, "wed"], "Name all domains"),
        ([*["mon"] * 11, "tue"], "'tue' has one row"),
    ],
)
def test_bad_labels_change_nothing(labels, match):
    layer = DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(InputError, match=match):
        layer(sample((12, 5)), labels)
    after = layer.state_dict()
    assert all(
        torch.equal(after[name], value)
        for name, value in before.items()
        if isinstance(value, torch.Tensor)
    )


@pytest.mark.parametrize("layer", [ComBatNorm1d(5), DomainBatchNorm1d(5, ["mon"])])
@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((12, 4), r"C = 5 channels.*\(12, 4\)"),
        ((12, 5, 2, 2), r"shape \(12, 5, 2, 2\)"),
    ],
)
def test_bad_shapes(layer, shape, match):
    call = layer if isinstance(layer, ComBatNorm1d) else lambda x: layer(x, "mon")
    with pytest.raises(InputError, match=match):
        call(torch.zeros(shape))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DomainBatchNorm1d(5, "monday"), "list of labels"),
        (lambda: DomainBatchNorm1d(5, ["mon", "mon"]), "named once"),
        (lambda: DomainBatchNorm1d(5, []), "there must be one"),
        (lambda: DomainBatchNorm1d(5, [["mon"]]), "Sample 0 has no domain"),
        (lambda: DomainBatchNorm1d(5, ["mon"], unseen="any"), "unseen must be one of"),
        (lambda: ComBatNorm1d(1), "learns from many channels"),
    ],
)
def test_bad_options(make, match):
    with pytest.raises(InputError, match=match):
        make()


# -- what engineers do with layers -------------------------------------------------------


def test_a_plain_batch_norm_starts_all_domains():
    norm = randomised(batch_norm(1))
    norm(sample((12, 5)))
    norm.eval()
    x = sample((12, 5), seed=3)
    layer = DomainBatchNorm1d.from_batch_norm(norm, ["mon", "tue"])
    assert torch.equal(layer(x, DAYS), norm(x))
    loaded = DomainBatchNorm1d(5, ["mon", "tue"], unseen="global", dtype=DOUBLE)
    loaded.load_state_dict(norm.state_dict())
    assert torch.equal(loaded.eval()(x, DAYS), norm(x))
    assert relative(loaded(x, "wed"), norm(x)) < 1e-6
    assigned = DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE)
    assigned.load_state_dict(norm.state_dict(), assign=True)
    before = norm.running_mean.clone()
    for one in (layer, assigned):
        one.train()(x, "tue")
        assert torch.equal(norm.running_mean, before)
        assert torch.equal(one.running_mean[0], before)
        assert not torch.equal(one.running_mean[1], before)


def test_a_state_dict_holds_tensors_only():
    safetensors = pytest.importorskip("safetensors.torch")
    layer = randomised(DomainBatchNorm1d(5, ["mon", 2, ("a", 1)], dtype=DOUBLE))
    layer(sample((12, 5)), "mon")
    state = safetensors.load(safetensors.save(layer.state_dict()))
    averaged = {key: 0.3 * value + 0.7 * value for key, value in state.items()}
    again = DomainBatchNorm1d(5, ["mon", 2, ("a", 1)], dtype=DOUBLE)
    again.load_state_dict(averaged)
    assert relative(again.running_mean, layer.running_mean) < 1e-12


def test_labels_of_another_type_match_where_they_are_unambiguous():
    layer = DomainBatchNorm1d(5, ["0", "1"], dtype=DOUBLE)
    x = sample((12, 5))
    assert torch.equal(layer(x, [0, 1] * 6), layer(x, ["0", "1"] * 6))
    assert torch.equal(layer(x, [0, "0", "1"] * 4), layer(x, ["0", "0", "1"] * 4))
    with pytest.raises(UnknownBatchError, match="The domain 2"):
        layer(x, 2)
    with pytest.raises(UnknownBatchError, match="'1'"):
        DomainBatchNorm1d(5, [1.0, ("1",)], dtype=DOUBLE)(x, "1")


def test_sync_batch_norm_does_not_replace_them():
    model = nn.Sequential(DomainBatchNorm1d(5, [0]), ComBatNorm1d(5), nn.BatchNorm1d(5))
    kinds = [type(m).__name__ for m in nn.SyncBatchNorm.convert_sync_batchnorm(model)]
    assert kinds == ["DomainBatchNorm1d", "ComBatNorm1d", "SyncBatchNorm"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_works_with_labels_as_arguments(reentrant):
    """Gradients are those of a plain pass."""
    x = sample((12, 5)).requires_grad_()
    layer = DomainBatchNorm1d(5, ["mon", "tue"], dtype=DOUBLE)
    (plain,) = torch.autograd.grad((layer(x, DAYS) ** 3).sum(), x)
    (checkpoint(layer, x, DAYS, use_reentrant=reentrant) ** 3).sum().backward()
    assert torch.allclose(x.grad, plain)
    with domains(DAYS):
        y = checkpoint(layer, x, use_reentrant=reentrant)
    with pytest.raises(InputError, match="checkpointing calls layers again"):
        y.sum().backward()


class NormAct(nn.BatchNorm2d):
    """As timm's: an activation in the norm."""

    def forward(self, x):
        return super().forward(x).relu()


@pytest.mark.parametrize("norm", [NormAct(3), nn.GroupNorm(1, 3)], ids=str)
def test_what_is_more_than_a_norm_or_none_is_no_start(norm):
    with pytest.raises(InputError, match=r"would be lost|must be a BatchNorm"):
        DomainBatchNorm2d.from_batch_norm(norm, ["a", "b"])


def test_gradients_pass_a_domain_never_met():
    layer = DomainBatchNorm1d(5, ["mon", "tue"], unseen="shrink", dtype=DOUBLE)
    x = sample((12, 5)).requires_grad_()
    layer(x, DAYS)
    layer.eval()(x, "wed").sum().backward()
    assert torch.isfinite(x.grad).all()
