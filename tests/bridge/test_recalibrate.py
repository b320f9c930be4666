"""BatchNorm statistics of a new domain: equal to the package's, and the model safe."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchcorr as bc
from batchcorr.arrays.generic import tensor_moments
from batchcorr.bridge import Profile, _layerwise, profile, recalibrate
from batchcorr.bridge._classes import is_unbalanced
from batchcorr.bridge._estimators import combat
from batchcorr.bridge._norms import batch_norms
from batchcorr.bridge._rows import channel_moments, to_rows
from batchcorr.bridge.nn import DomainBatchNorm1d
from batchcorr.errors import FileError, InputError, MissingKeyError


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices want one; compiled kernels of other libraries reset it."""
    torch.set_num_threads(1)


def network(seed=0, classes=3):
    """Two layers on images: convolution and dropout before BatchNorm, then another."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Dropout(0.5),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, classes),
    )
    for norm in (model[2], model[7]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return model.double().eval()


def images(n=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 1, 5, 5), generator=generator, dtype=torch.float64)


def labelled(n=240, seed=2):
    """Images whose class is how bright their left, middle or right is."""
    y = torch.arange(n) % 3
    x = images(n, seed)
    for k in range(3):
        x[y == k, :, :, k : k + 3] += 2.5
    return x, y


@pytest.fixture(scope="module")
def trained():
    """A network that knows its three classes, and its profile."""
    torch.set_num_threads(1)
    model, (x, y) = network().train(), labelled()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    return model, profile(model, [(x, y)])


def state_of(model):
    return (
        copy.deepcopy(model.state_dict()),
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )


def assert_untouched(model, before):
    state, training, gradients = before
    assert [module.training for module in model.modules()] == training
    assert [p.requires_grad for p in model.parameters()] == gradients
    for name, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(7.0), state[name].nan_to_num(7.0)), name
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def statistics(model):
    return [
        (m.running_mean.clone(), m.running_var.clone())
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]


def assert_same(a, b, **tolerance):
    for one, other in zip(a, b, strict=True):
        for x, y in zip(one, other, strict=True):
            assert_allclose(x.numpy(), y.numpy(), **tolerance)


# -- adabn is the package's standardization --------------------------------------------


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
            moments = _layerwise._received(model, [x], norm)
            new = combat(name, norm, _layerwise.Observed(moments, len(x)))
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


# -- mix and combat --------------------------------------------------------------------


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


# -- empirical Bayes -------------------------------------------------------------------


def test_eb_tends_to_adabn_and_a_small_support_of_the_source_stays_near_it(trained):
    model, known = trained
    source = [(torch.as_tensor(layer.mean), torch.as_tensor(layer.variance))
              for layer in known.layers.values()]  # fmt: skip
    far = 3 * labelled(6000, seed=7)[0] - 2
    with recalibrate(model, [far], "adabn"):
        own = statistics(model)
    with recalibrate(model, [far], "eb", profile=known) as done:
        assert_same(statistics(model), own, rtol=0.05, atol=0.05)
    assert (done.layers["location_kept"] > 0.95).all()

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
    done = recalibrate(model, [4 * source[:1]], "eb", profile=known)
    layer = known.layers["1"]
    ratio = model[1].running_var.numpy() / layer.variance
    assert np.ptp(ratio) < 1e-12 * ratio[0]
    assert done.layers["scale_kept"].item() == 0


def test_channels_without_variance_in_the_source_keep_their_statistics():
    model = nn.Sequential(nn.BatchNorm1d(4)).double().eval()
    source = images(100).reshape(-1, 25)[:, :4]
    source[:, 2] = 3
    known = profile(model, [source])
    recalibrate(model, [images().reshape(-1, 25)[:, 4:8]], "eb", profile=known)
    assert model[0].running_mean[2] == pytest.approx(3)
    assert model[0].running_var[2] == 0
    assert all(torch.isfinite(v).all() for pair in statistics(model) for v in pair)


# -- classes ---------------------------------------------------------------------------


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


# -- the profile -----------------------------------------------------------------------


def test_profile_measures_the_source_and_leaves_the_model_alone():
    model, x = network().train(), images(100)
    before, random = state_of(model), torch.get_rng_state()
    known = profile(model, [x[:40], x[40:]])
    assert_untouched(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert repr(profile(model, iter([x]))) == repr(known)
    model.eval()
    recalibrate(model, [x], "adabn")
    for layer, (mean, variance) in zip(
        known.layers.values(), statistics(model), strict=True
    ):
        assert_allclose(layer.mean, mean, atol=1e-6)  # each sample's are in float32
        assert_allclose(layer.variance, variance, rtol=1e-6)


def test_errors_of_supports_follow_the_theory_on_independent_rows():
    """N = 1/n, b = ψ(ν/2) - log(n/2), V = ψ'(ν/2), ν = n - 1, for normal values."""
    from scipy.special import polygamma, psi

    torch.manual_seed(1)
    model = nn.Sequential(nn.BatchNorm1d(200, affine=False)).double().eval()
    known = profile(model, [torch.randn(512, 200, dtype=torch.float64)])
    layer, sizes = known.layers["0"], known.sizes
    assert sizes.tolist() == [1, 2, 4, 8, 16, 32, 64]
    for s, n in enumerate(sizes[:5]):
        noise = layer.location_noise[s].mean()
        assert noise == pytest.approx(1 / n, rel=0.05)
        if n > 1:
            half = (n - 1) / 2
            bias = psi(half) - np.log(n / 2)
            assert layer.log_bias[s].mean() == pytest.approx(bias, abs=0.06)
            spread = layer.log_variance[s].mean()
            assert spread == pytest.approx(polygamma(1, half), rel=0.1)
    assert np.isnan(layer.log_bias[0]).all()
    assert layer.effective[0] == pytest.approx(200, rel=0.25)
    between = layer.null(sizes, 6, single=False)
    beyond = layer.null(sizes, 256, single=False)
    assert between.location_noise.mean() == pytest.approx(1 / 6, rel=0.05)
    last = layer.location_noise[-1]
    assert_allclose(beyond.location_noise, last * 64 / 256)


def test_positions_of_an_image_are_not_replicates():
    """An image of one value throughout tells as much as one position."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.BatchNorm2d(50, affine=False)).double().eval()
    flat = torch.randn(256, 50, 1, 1, dtype=torch.float64).expand(-1, -1, 4, 4)
    layer = profile(model, [flat]).layers["0"]
    assert layer.location_noise[0].mean() == pytest.approx(1, rel=0.1)


def test_a_profile_survives_its_file(tmp_path, trained):
    model, known = trained
    path = tmp_path / "model.profile.npz"
    known.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file["header"]))["layers"] == ["2", "7"]
    again = Profile.load(path)
    found = []
    for one in (known, again):
        with recalibrate(model, [images()], "eb_cov", profile=one):
            found.append(statistics(model))
    assert_same(found[0], found[1], rtol=0)


def test_files_that_are_no_profiles(tmp_path, trained):
    with pytest.raises(FileError, match="no file"):
        Profile.load(tmp_path / "none.npz")
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK not a zip")
    with pytest.raises(FileError, match="no profile"):
        Profile.load(path)
    np.savez(path, header=np.array(json.dumps({"schema": 99, "layers": []})))
    with pytest.raises(FileError, match="newer"):
        Profile.load(path)
    np.savez(path, header=np.array(json.dumps({"schema": 1, "layers": []})))
    with pytest.raises(FileError, match="older"):
        Profile.load(path)
    np.savez(path, header=np.array(json.dumps({"schema": 4, "layers": ["0"]})))
    with pytest.raises(FileError, match="no profile"):
        Profile.load(path)
    known = trained[1]
    layer = known.layers["2"]
    for damaged, message in (
        (replace(layer, mean=layer.mean[:-1]), "variance is float64 of shape"),
        (replace(layer, variance=layer.variance * np.nan), "variance holds missing"),
        (replace(layer, class_mean=layer.class_mean[:1]), "class_mean is float64 of"),
    ):
        replace(known, layers={**known.layers, "2": damaged}).save(path)
        with pytest.raises(FileError, match=f"no profile.* What is wrong: {message}"):
            Profile.load(path)
    with pytest.raises(FileError, match="folder"):
        known.save(tmp_path)


# -- undoing, and what is refused ------------------------------------------------------


def test_the_context_restores_and_undo_restores(trained):
    model = copy.deepcopy(trained[0])
    before = state_of(model)
    with recalibrate(model, [images()], "adabn"):
        assert not torch.equal(model[2].running_mean, before[0]["2.running_mean"])
    assert_untouched(model, before)
    done = recalibrate(model, [images()], "adabn")
    model.double()  # buffers may be new tensors by now
    model[2].running_mean = model[2].running_mean.clone()
    done.undo()
    assert_untouched(model, before)
    with pytest.raises(KeyError), recalibrate(model, [images()], "adabn"):
        raise KeyError
    assert_untouched(model, before)


def test_only_running_statistics_change(trained):
    model = copy.deepcopy(trained[0])
    before, training, gradients = state_of(model)
    done = recalibrate(model, [images()], profile=trained[1])
    changed = {
        name
        for name, v in model.state_dict().items()
        if not torch.equal(v, before[name])
    }
    assert changed == {
        f"{layer}.running_{what}" for layer in ("2", "7") for what in ("mean", "var")
    }
    assert state_of(model)[1:] == (training, gradients)
    assert done.layers.index.tolist() == ["2", "7"]
    assert done.layers["channels"].tolist() == [6, 8]
    assert done.samples == 60


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(torch.relu(self.norm(x)))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return x


class Sometimes(nn.Module):
    """Bright minibatches pass one layer more."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.two(self.one(x)) if x.mean() > 5 else self.one(x)


class Catching(nn.Module):
    """A model that mends its own failures, and names arguments."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        try:
            return self.norm(input=x)
        except Exception:  # noqa: BLE001
            return x


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x, y):
        return self.norm(x + y)


def tokens():
    return nn.Sequential(nn.Embedding(5, 4), nn.BatchNorm1d(4)).double()


def two_sites():
    return nn.Sequential(nn.Linear(4, 4), DomainBatchNorm1d(4, ["a", "b"]))


def poisoned():
    model = network()
    with torch.no_grad():
        model[6].weight[0, 0] = torch.nan
    return model


ROWS = torch.ones(8, 4, dtype=torch.float64)
LAZY = nn.Sequential(nn.LazyConv2d(3, 3), nn.BatchNorm2d(3))
FORGETFUL = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)).double()


REFUSED = {
    "no norm": (lambda: nn.Sequential(nn.Linear(4, 2)), [ROWS], "no BatchNorm"),
    "no module": (lambda: "model", [ROWS], "torch.nn.Module"),
    "lazy": (lambda: copy.deepcopy(LAZY), [images()], "no shape yet"),
    "shared": (Twice, [ROWS.float()], "called 2 times"),
    "unused": (Unused, [ROWS], "does not call any"),
    "sometimes": (Sometimes, [ROWS.float(), 9 * ROWS.float()], r"Batch 2 .*\('two'\)"),
    "two inputs": (Pair, [(ROWS.float(), ROWS.float())], "mappings of their names"),
    "token": (tokens, [torch.full((8,), 9)], "index out of range"),
    "forgetful": (lambda: FORGETFUL, [ROWS], "track_running_stats"),
    "nan inputs": (network, [images() * torch.nan], "not finite"),
    "nan activations": (poisoned, [images()], "not finite"),
    "shape": (network, [images()[:, 0, 0]], "cannot take a batch of shape"),
    "empty": (network, [], "empty"),
    "tensor": (network, images(), "must give batches"),
    "words": (network, [["a", "b"]], "give tensors"),
    "meta data": (network, [images().to("meta")], "model is on cpu"),
    "meta model": (lambda: network().to("meta"), [images()], "model is on meta"),
}


@pytest.mark.parametrize("call", [recalibrate, profile], ids=["recalibrate", "profile"])
@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_used_is_refused_and_the_model_untouched(call, fault):
    make, loader, words = REFUSED[fault]
    model = make()
    if not isinstance(model, nn.Module):
        before = None
    else:
        model.eval()
        before = None if fault in ("lazy", "meta model") else state_of(model)
    with pytest.raises(InputError, match=words):
        call(model, loader)
    if before is not None:
        assert_untouched(model, before)


@pytest.mark.parametrize("more", [[], [nn.BatchNorm1d(4)]])
def test_models_of_several_domains_are_led_to_one_of_them(more):
    model = nn.Sequential(*two_sites(), *more).eval()
    with pytest.raises(InputError, match=r"at_domain\(model, domain\)"):
        recalibrate(model, [ROWS.float()])


def test_layers_may_be_called_by_name_and_inside_of_try():
    x = images().reshape(-1, 25)[:, :4] + 3
    model = Catching().double().eval()
    known = profile(model, [(x, torch.arange(60) % 2)])
    assert_allclose(known.layers["norm"].mean, x.mean(dim=0))
    assert len(known.layers["norm"].class_mean) == 2
    with recalibrate(model, [x], "adabn"):
        assert_allclose(model.norm.running_mean, x.mean(dim=0))


class Output(dict):
    """As transformers' models answer: a mapping that has its entries as attributes."""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: Output(loss=y.sum(), logits=y),
        lambda y: (y, y.sum()),
        lambda y: SimpleNamespace(logits=y),
    ],
    ids=["mapping", "tuple", "attribute"],
)
def test_logits_may_be_wrapped(trained, wrap):
    model, known = trained
    x = [labelled(60, seed=12)[0] + 0.5]

    class Wrapped(nn.Sequential):
        def forward(self, x):
            return wrap(super().forward(x))

    with recalibrate(model, x, "eb_cov", profile=known) as plain:
        expected = statistics(model)
    twin = Wrapped(*model)
    with recalibrate(twin, x, "eb_cov", profile=known) as done:
        assert_same(statistics(twin), expected, rtol=0)
    assert_allclose(done.classes, plain.classes)
    assert recalibrate(twin, x, profile=known).method == "eb"


@pytest.mark.slow
def test_classifiers_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1,
        embedding_size=4,
        hidden_sizes=[4, 6],
        depths=[1, 1],
        layer_type="basic",
        num_labels=3,
    )
    model = transformers.ResNetForImageClassification(config).double().eval()
    x, y = labelled(30)
    x = nn.functional.interpolate(x, scale_factor=4)
    known = profile(model, [{"pixel_values": x}])
    assert recalibrate(model, [{"pixel_values": x + 1}], profile=known).method == "eb"
    known = profile(model, [(x, y)])
    done = recalibrate(model, [x + 1], "eb_cov", profile=known)
    assert done.classes.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"method": "eb"}, "needs profile"),
        ({"method": "eb_cov"}, "needs profile"),
        ({"method": "eb", "profile": {}}, "is a dict"),
        ({"method": "adabn", "alpha": 0.5}, "alpha and pseudo_count"),
        ({"method": "mix", "alpha": 0.5, "pseudo_count": 3}, "one of them"),
        ({"method": "mix", "alpha": 1.5}, "a number 0 to 1"),
        ({"method": "mix", "alpha": "0.5"}, "alpha is '0.5'"),
        ({"method": "mix", "pseudo_count": -1}, "number of samples"),
        ({"method": "mix", "pseudo_count": "16"}, "number of samples"),
    ],
)
def test_what_does_not_go_together_is_refused(how, words):
    model = network()
    before = state_of(model)
    with pytest.raises(InputError, match=words):
        recalibrate(model, [images()], **how)
    assert_untouched(model, before)


def test_unknown_methods_are_named():
    with pytest.raises(MissingKeyError, match="Did you mean 'adabn'"):
        recalibrate(network(), [images()], "adabm")


def test_iterators_are_refused():
    with pytest.raises(InputError, match="is an iterator"):
        recalibrate(network(), iter([images()]))


def test_training_mode_is_refused():
    model = network().train()
    before = state_of(model)
    with pytest.raises(InputError, match=r"model.eval\(\)"):
        recalibrate(model, [images()], "adabn")
    assert_untouched(model, before)


def test_a_failure_halfway_leaves_the_model_as_it_was():
    """One image: the first layer has 25 rows, the second one row."""
    model = network()
    before = state_of(model)
    with pytest.raises(InputError, match="one row in all"):
        recalibrate(model, [images(1)], "adabn")
    assert_untouched(model, before)
    with recalibrate(model, [images(1)], "combat"):
        assert not torch.equal(model[2].running_mean, before[0]["2.running_mean"])


def test_profiles_of_other_models_are_refused(trained):
    _, known = trained
    other = network(seed=3)
    before = state_of(other)
    with pytest.raises(InputError, match="other weights"):
        recalibrate(other, [images()], profile=known)
    assert_untouched(other, before)
    small = nn.Sequential(nn.Identity(), nn.Flatten(), nn.BatchNorm1d(4, affine=False))
    with pytest.raises(InputError, match="another model"):
        recalibrate(small.double().eval(), [ROWS], profile=known)


def plain_network(seed):
    """A network without γ and β: only its weights tell it from others."""
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU()]
    layers += [nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 2)]
    return nn.Sequential(*layers).double().eval()


def test_a_profile_knows_the_weights_before_each_layer(tmp_path):
    x = images().reshape(-1, 25)[:, :4]
    path = tmp_path / "model.npz"
    profile(plain_network(0), [x]).save(path)
    known = Profile.load(path)
    other = plain_network(1)
    before = state_of(other)
    with pytest.raises(InputError, match=r"'0\.weight' differs"):
        recalibrate(other, [x], profile=known)
    assert_untouched(other, before)
    later = plain_network(0)
    with torch.no_grad():  # the same numbers in another order
        later[3].weight.copy_(later[3].weight.flip(0))
    with pytest.raises(InputError, match=r"'3\.weight' differs"):
        recalibrate(later, [x], profile=known)
    head = plain_network(0)
    nn.init.ones_(head[5].weight)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = copy.deepcopy(head).to(dtype)
        assert recalibrate(model, [x.to(dtype)], profile=known).method == "eb"


def test_parts_that_some_samples_do_not_need_may_be_missing():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)])
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            chosen, found = (x[:, 0] > 0).long(), x.new_zeros(len(x), 4)
            for k, expert in enumerate(self.experts):
                if (chosen == k).any():
                    found[chosen == k] = expert(x[chosen == k])
            return self.norm(found)

    torch.manual_seed(0)
    model = Experts().double().eval()
    known = profile(model, [torch.randn(100, 3, dtype=torch.float64)])
    few = torch.rand(5, 3, dtype=torch.float64)  # all for the second
    assert recalibrate(model, [few], "eb", profile=known).method == "eb"
    nn.init.ones_(model.experts[1].weight)
    with pytest.raises(InputError, match=r"'experts.1\.weight' differs"):
        recalibrate(model, [few], "eb", profile=known)


def test_classes_that_the_profile_or_the_model_does_not_have(trained):
    model, known = trained
    plain = profile(model, [labelled()[0]])
    with pytest.raises(InputError, match="knows no classes"):
        recalibrate(model, [images()], "eb_cov", profile=plain)
    headless = nn.Sequential(*list(model)[:9]).eval()
    before = state_of(headless)
    with pytest.raises(InputError, match="3 classes of the profile"):
        recalibrate(headless, [images()], "eb_cov", profile=known)
    assert_untouched(headless, before)
    assert recalibrate(headless, [images()], profile=known).method == "eb"
    x, y = labelled(30)
    with pytest.raises(InputError, match="0 … K-1"):
        profile(model, [(x, y + 1)])
    assert profile(model, [x[:1], x[1:2]]).sizes.tolist() == [1, 2]
    with pytest.raises(InputError, match="gives one sample"):
        profile(model, [x[:1]])
