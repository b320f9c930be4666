"""BatchNorm statistics of a new domain: equal to the package's, and the model safe."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchcorr as bc
from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge import _layerwise, profile, recalibrate
from batchcorr.bridge._channels import channel_moments, to_rows
from batchcorr.bridge._estimators import combat, is_unbalanced
from batchcorr.bridge._norms import batch_norms
from batchcorr.errors import InputError
from tests.bridge.recalibrate_models import (
    assert_same,
    assert_untouched,
    images,
    labelled,
    network,
    state_of,
    statistics,
)

# -- adabn is the package's standardization ----------------------------------------------


def test_adabn_is_standardization_by_domain():
    """Every layer's normalized output: bc.Standardize of its inputs, to 1e-12."""
    model, x = network(), 2 * images() + 1
    for norm in (model[2], model[7]):
        norm.eps = 0.0
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    recalibrate(model, [x], "adabn")
    with torch.no_grad():
        for place in (2, 7):
            before = to_rows(model[:place](x))
            after = to_rows(model[: place + 1](x))
            n = len(before)
            unit = bc.Standardize(target="unit").fit_transform(
                before, batch=np.zeros(n, dtype=int)
            )
            assert_allclose(after, unit * np.sqrt(n / (n - 1)), atol=1e-12)
            moments = tensor_moments(before)
            assert_allclose(model[place].running_mean, moments.mean[0], atol=1e-12)


def test_adabn_is_batch_norm_in_training_without_dropout():
    model, x = network(), images() - 3
    twin = copy.deepcopy(model).train()
    twin[1].eval()
    recalibrate(model, [x[:7], x[7:]], "adabn")
    with torch.no_grad():
        assert_allclose(model(x), twin(x), atol=1e-12)


def test_neither_the_order_of_batches_nor_their_size_matters():
    model, x = network(), images()
    found = []
    for parts in ([x], [x[:9], x[9:10], x[10:]], [x[10:], x[9:10], x[:9]]):
        with recalibrate(model, parts, "adabn"):
            found.append(statistics(model))
    assert_same(found[0], found[1], rtol=1e-12, atol=1e-14)
    assert_same(found[0], found[2], rtol=1e-12, atol=1e-14)


def test_loaders_of_tensors_tuples_and_datasets_are_one():
    model, x = network(), images()
    data = TensorDataset(x, torch.arange(60))
    found = []
    for loader in ([x], [(x, torch.zeros(60))], DataLoader(data, batch_size=13)):
        with recalibrate(model, loader, "adabn"):
            found.append(statistics(model))
    assert_same(found[0], found[1], rtol=0, atol=0)
    assert_same(found[0], found[2], rtol=1e-12, atol=1e-14)


def test_dropout_is_off_unlike_in_update_bn():
    """Variance of the normalized values: 1, and with dropout on a half of that."""
    torch.manual_seed(0)
    x = torch.randn(20_000, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4, affine=False, eps=1e-12))
    ours, theirs = (copy.deepcopy(model).double().eval() for _ in range(2))
    recalibrate(ours, list(x.split(500)), "adabn")
    torch.optim.swa_utils.update_bn(list(x.split(500)), theirs)
    assert_allclose(ours(x).var(dim=0, correction=0), 1.0, atol=1e-9)
    assert_allclose(theirs(x).var(dim=0), 0.5, atol=0.02)


def test_float32_models_keep_their_dtype_and_sum_in_float64():
    model, x = network().float(), images().float() + 1000
    recalibrate(model, [x[:30], x[30:]], "adabn")
    assert model[2].running_mean.dtype == torch.float32
    with torch.no_grad():
        inputs = to_rows(model[:2](x)).double()
    assert_allclose(model[2].running_var, inputs.var(dim=0, correction=0), rtol=1e-5)


def test_one_minibatch_is_one_pass_to_the_bit_and_hooks_stay_paired():
    """The same sums in one pass as layer by layer: an image more changes nothing else."""
    model, x = network(), images()
    entered, left = [0], [0]
    model.register_forward_pre_hook(lambda *_: entered.__setitem__(0, entered[0] + 1))
    model.register_forward_hook(lambda *_: left.__setitem__(0, left[0] + 1))
    with recalibrate(model, [x], "combat"):
        once = statistics(model)
    assert entered == left == [1]
    norms = batch_norms(model)
    with recalibrate(model, [x], "mix", alpha=0.0):  # layer by layer
        for name, norm in norms.items():
            moments = _layerwise.received(model, [x], norms, name)
            new = combat(name, norm, moments, len(x))
            _layerwise.put(norms, {name: new})
        assert_same(statistics(model), once, rtol=0)
    recalibrate(model, [x[:20], x[20:]], "combat")
    assert entered == left


def test_statistics_that_do_not_fit_are_refused():
    model = nn.Sequential(nn.BatchNorm1d(4)).eval().half()
    before = state_of(model)
    x = (1000 * images().reshape(-1, 25)[:, :4]).half()
    with pytest.raises(
        InputError, match=r"torch.float16 does not hold.*model.float\(\)"
    ):
        recalibrate(model, [x], "adabn")
    assert_untouched(model, before)


def test_wrapped_and_frozen_models_are_set_too():
    model, x = network(), images()
    with recalibrate(nn.DataParallel(model), [x], "adabn") as done:
        assert done.layers.index.tolist() == ["2", "7"]
    frozen = nn.Module()
    for name in ("weight", "bias", "running_mean", "running_var"):
        frozen.register_buffer(name, torch.ones(4, dtype=torch.float64))
    frozen.forward = lambda x: (x - frozen.running_mean) / frozen.running_var.sqrt()
    rows = x.reshape(-1, 25)[:, :4]
    recalibrate(nn.Sequential(frozen).eval(), [rows], "adabn")
    assert_allclose(frozen.running_mean, rows.mean(0))


@pytest.mark.parametrize("shape", [(9, 4), (3, 4, 5), (3, 4, 2, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_moments_of_channels_are_those_of_their_rows(shape, dtype):
    x = (100 + torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    x[:, 2] = x[0, 2, ...].flatten()[0]
    found, wanted = channel_moments(x), tensor_moments(to_rows(x.double()))
    for name in ("rows", "n", "mean", "squares", "columns", "cross", "gram"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert one.shape == other.shape
        assert_allclose(one, other, rtol=1e-12)
    assert found.squares[0, 2] == 0


# -- mix and combat ----------------------------------------------------------------------


def test_mix_goes_from_the_old_statistics_to_the_domain_s():
    model, x = network(), images() + 1
    old = statistics(model)
    with recalibrate(model, [x], "adabn"):
        own = statistics(model)
    with recalibrate(model, [x], "mix", alpha=1.0):
        assert_same(statistics(model), own, rtol=1e-12)
    with recalibrate(model, [x], "mix", alpha=0.0):
        assert_same(statistics(model), old, rtol=0)
    with recalibrate(model, [x], "mix", pseudo_count=20):
        by_count = statistics(model)
    with recalibrate(model, [x], "mix", alpha=0.75):
        assert_same(statistics(model), by_count, rtol=1e-12)
    with recalibrate(model, [x], "mix") as done:
        first = statistics(model)[0]
    assert_allclose(first[0], (16 * old[0][0] + 60 * own[0][0]) / 76, rtol=1e-12)
    assert done.method == "mix"


def test_combat_is_the_package_s_combat_of_channels():
    """With the source as the reference batch, on the first layer's inputs."""
    model, x = network(), 1.5 * images() + 0.7
    source = images(seed=5)
    recalibrate(model, [source], "adabn")
    with torch.no_grad():
        rows = [to_rows(model[:2](part)).numpy() for part in (source, x)]
    batch = np.repeat(["source", "new"], [len(part) for part in rows])
    fitted = bc.ComBat(reference="source").fit(np.concatenate(rows), batch=batch)
    at = list(fitted.batches_).index("new")
    sigma2 = rows[0].var(axis=0)
    recalibrate(model, [x], "combat")
    gamma = (model[2].running_mean.numpy() - rows[0].mean(axis=0)) / np.sqrt(sigma2)
    assert_allclose(gamma, fitted.details_["gamma_star"][at], rtol=1e-6)
    delta2 = model[2].running_var.numpy() / sigma2
    assert_allclose(delta2, fitted.details_["delta_star"][at], rtol=1e-6)


# -- empirical Bayes ---------------------------------------------------------------------


def test_eb_tends_to_adabn_and_a_small_support_of_the_source_stays_near_it(trained):
    model, known = trained
    source = [(torch.as_tensor(layer.mean), torch.as_tensor(layer.variance))
              for layer in known.layers.values()]  # fmt: skip
    far = 3 * labelled(6000, seed=7)[0] - 2
    with recalibrate(model, [far], "adabn"):
        own = statistics(model)
    with recalibrate(model, [far], "eb", profile=known):
        assert_same(statistics(model), own, rtol=0.05, atol=0.05)

    def distance(found):
        return sum(float((((m - s) ** 2) / v).mean()) for (m, _), (s, v) in
                   zip(found, source, strict=True))  # fmt: skip

    few = [labelled(240, seed=8)[0][:6]]
    found = {}
    for method, how in {"adabn": {}, "eb": {"profile": known}}.items():
        with recalibrate(model, few, method, **how):
            found[method] = distance(statistics(model))
    assert found["eb"] < 0.5 * found["adabn"]


def test_eb_helps_where_the_domain_is_shifted(trained):
    model, known = trained
    x, y = labelled(600, seed=9)
    x = 0.5 * x + 2

    def right():
        with torch.no_grad():
            return float((model(x[100:]).argmax(dim=1) == y[100:]).double().mean())

    before = right()
    with recalibrate(model, [x[:6]], "eb", profile=known):
        after = right()
    assert after > before + 0.2


def test_one_row_in_all_has_a_common_scale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 30), nn.BatchNorm1d(30)).double().eval()
    source = torch.randn(200, 5, dtype=torch.float64)
    known = profile(model, [source])
    recalibrate(model, [4 * source[:1]], "eb", profile=known)
    layer = known.layers["1"]
    ratio = model[1].running_var.numpy() / layer.variance
    assert np.ptp(ratio) < 1e-12 * ratio[0]


def test_channels_without_variance_in_the_source_keep_their_statistics():
    model = nn.Sequential(nn.BatchNorm1d(4)).double().eval()
    source = images(100).reshape(-1, 25)[:, :4]
    source[:, 2] = 3
    known = profile(model, [source])
    recalibrate(model, [images().reshape(-1, 25)[:, 4:8]], "eb", profile=known)
    assert model[0].running_mean[2] == pytest.approx(3)
    assert model[0].running_var[2] == 0
    assert all(torch.isfinite(v).all() for pair in statistics(model) for v in pair)


# -- classes -----------------------------------------------------------------------------


def clusters(n, seed):
    """Six classes around centres of their own in 20 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(
        (6, 20), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    y = torch.arange(n) % 6
    noise = torch.randn((n, 20), generator=generator, dtype=torch.float64)
    return 1.5 * centres[y] + noise, y


def test_eb_cov_finds_the_classes_of_an_uneven_domain_and_auto_takes_it():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 6)
    ).double()
    x, y = clusters(480, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    known = profile(model.eval(), [(x, y)])
    x, y = clusters(480, seed=2)
    x = 1.3 * x + 0.3
    two = [x[(y == 1) | (y == 4)][:40]]
    with recalibrate(model, two, "eb_cov", profile=known) as done:
        assert sorted(done.classes.argsort()[-2:]) == [1, 4]
        assert done.classes.sum() == pytest.approx(1)
        by_hand = statistics(model)
    with recalibrate(model, two, profile=known) as chosen:
        assert chosen.method == "eb_cov"
        assert_same(statistics(model), by_hand, rtol=0)
    with recalibrate(model, [x], "adabn"):
        truth = statistics(model)[0]

    def error(method):
        with recalibrate(model, two, method, profile=known):
            mean, variance = statistics(model)[0]
        off = (mean - truth[0]) ** 2 / truth[1]
        return float((off + (variance / truth[1]).log() ** 2).mean())

    assert error("eb_cov") < 0.5 * error("eb")


def test_auto_is_eb_for_even_domains_and_combat_without_a_profile(trained):
    model, known = trained
    x = [labelled(60, seed=12)[0] + 0.5]
    with recalibrate(model, x, profile=known) as done:
        chosen = statistics(model)
    assert done.method == "eb"
    assert done.classes is None
    with recalibrate(model, x, "eb", profile=known):
        assert_same(statistics(model), chosen, rtol=0)
    assert recalibrate(model, x).method == "combat"


def test_uneven_means_more_than_chance_and_more_than_half_missing():
    even = np.full(4, 0.25)
    half = np.array([0.5, 0.5, 0.0, 0.0])
    assert not is_unbalanced(even, even, 1000)
    assert not is_unbalanced(half + np.array([-0.01, -0.01, 0.01, 0.01]), even, 1000)
    assert is_unbalanced(np.array([1.0, 0, 0, 0]), even, 4)
    assert not is_unbalanced(np.array([1.0, 0, 0, 0]), even, 3)
    assert not is_unbalanced(np.array([1.0]), np.array([1.0]), 100)
