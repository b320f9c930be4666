"""What recalibrate and profile refuse, and that the model stays untouched."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from batchcorr.bridge import Profile, profile, recalibrate
from batchcorr.bridge.nn import DomainBatchNorm1d
from batchcorr.errors import InputError, MissingKeyError
from tests.bridge.recalibrate_models import (
    assert_same,
    assert_untouched,
    images,
    labelled,
    network,
    state_of,
    statistics,
)

# -- undoing, and what is refused --------------------------------------------------------


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
    assert "from 60 samples" in str(done)
    one = recalibrate(model, [images(1)], "combat")
    assert "from 1 sample\n" in str(one)


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
    "lazy": (lambda: copy.deepcopy(LAZY), [images()], "lazy layers"),
    "shared": (Twice, [ROWS.float()], "called 2 times"),
    "unused": (Unused, [ROWS], "does not call any"),
    "sometimes": (Sometimes, [ROWS.float(), 9 * ROWS.float()], r"Batch 2 .*\('two'\)"),
    "dict": (network, [{"image": images()}], r"(?s)and names image.*and no more"),
    "two inputs": (
        Pair,
        [(ROWS.float(), ROWS.float())],
        "a mapping goes to the model by name",
    ),
    "token": (tokens, [torch.full((8,), 9)], "index out of range"),
    "forgetful": (lambda: FORGETFUL, [ROWS], "track_running_stats"),
    "nan inputs": (network, [images() * torch.nan], "not finite"),
    "nan activations": (poisoned, [images()], "not finite"),
    "shape": (network, [images()[:, 0, 0]], "cannot take a batch of shape"),
    "empty": (network, [], "empty"),
    "tensor": (network, images(), "must give batches"),
    "words": (network, [["a", "b"]], "give tensors"),
    "meta data": (network, [images().to("meta")], "cannot take a batch"),
    "meta model": (lambda: network().to("meta"), [images()], "on the meta device"),
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
        ({"method": "eb", "profile": {}}, "needs profile=.* not {}"),
        ({"method": "adabn", "alpha": 0.5}, "alpha and pseudo_count"),
        ({"method": "mix", "alpha": 0.5, "pseudo_count": 3}, "one of them"),
        ({"method": "mix", "alpha": 1.5}, "a number 0 to 1"),
        ({"method": "mix", "alpha": "0.5"}, "a number 0 to 1"),
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
    with pytest.raises(InputError, match="only one row"):
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


def test_classes_that_the_profile_or_the_model_does_not_have(trained):
    model, known = trained
    plain = profile(model, [labelled()[0]])
    with pytest.raises(InputError, match="profile has no classes"):
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
    with pytest.raises(InputError, match="of 1 samples"):
        profile(model, [x[:1]])
