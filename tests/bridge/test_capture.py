"""Activations as an AnnData, and one network corrected in two ways that agree."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchcorr as bc
from batchcorr.bridge._capture import capture
from batchcorr.bridge.nn import convert_domain_batchnorm, domains
from batchcorr.errors import (
    AssociationWarning,
    InputError,
    LayerWarning,
    MissingKeyError,
)

DAYS = ["mon"] * 40 + ["tue"] * 30
LABELS = [0, 1] * 35


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6, 4),
    )
    return model.double()


def images(seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((70, 2, 5, 5), generator=generator, dtype=torch.float64)
    x[40:] = 2 * x[40:] + 1
    return x


def state_of(model):
    return copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]


def assert_untouched(model, before):
    state, training = before
    assert [m.training for m in model.modules()] == training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_rows_are_samples_and_columns_are_channels():
    model, x = network(), images()
    model.train()
    before = state_of(model)
    adata = capture(model, [x[:32], x[32:]], DAYS, labels=LABELS)
    assert_untouched(model, before)
    assert adata.shape == (70, 6 + 6 + 4)
    assert adata.obs["batch"].tolist() == DAYS
    assert adata.obs["label"].tolist() == LABELS
    assert adata.var_names[[0, 6, 12]].tolist() == ["0:0", "1:0", "6:0"]
    model.eval()
    with torch.no_grad():
        conv = model[0](x)
        assert np.allclose(adata.X[:, :6], conv.mean((2, 3)), atol=1e-12)
        assert np.allclose(adata.X[:, 12:], model(x), atol=1e-12)


def test_each_layer_is_told_how_much_batch_it_carries():
    adata = capture(network(), [images()], DAYS, labels=LABELS)
    shares = adata.uns["layers"]
    assert shares.index.tolist() == ["0", "1", "6"]
    for name in shares.index:
        part = adata[:, adata.var["layer"] == name]
        found = bc.metrics.variance_explained(part, "batch", covariates="label")
        assert shares.loc[name, "batch"] == pytest.approx(found.batch)
        beyond = found.batch_beyond_covariates
        assert shares.loc[name, "batch_beyond_label"] == pytest.approx(beyond)
    assert shares.loc["0", "batch"] > 0.2


def test_batch_and_labels_may_come_with_the_loader():
    days = torch.tensor([0] * 40 + [1] * 30)
    loader = DataLoader(TensorDataset(images(), days), batch_size=32)
    adata = capture(network(), loader, batch=1)
    assert adata.obs["batch"].tolist() == days.tolist()
    by_minibatch = capture(network(), loader)
    assert by_minibatch.obs["batch"].tolist() == [0] * 32 + [1] * 32 + [2] * 6


def test_it_can_be_written_and_corrected(tmp_path):
    adata = capture(network(), [images()], DAYS, labels=LABELS)
    bc.pp.combat(adata, "batch", covariates=["label"])
    adata.obs["label"] = adata.obs["label"].astype(str).astype("category")
    adata.write_h5ad(tmp_path / "activations.h5ad")
    after = bc.metrics.variance_explained(adata, "batch", covariates="label")
    assert abs(after.batch_beyond_covariates) < 0.03


def test_a_module_called_twice_has_two_sets_of_channels():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x))

    adata = capture(Twice(), [torch.ones(4, 3)])
    assert adata.var["layer"].unique().tolist() == ["layer", "layer (call 2)"]


def test_channels_of_a_linear_layer_are_the_last_axis():
    model = nn.Sequential(nn.Linear(3, 5))
    x = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0))
    adata = capture(model, [x])
    assert adata.shape == (4, 5)
    assert np.allclose(adata.X, model(x).mean(1).detach(), atol=1e-6)


class Overwriting(nn.Module):
    """Adds to what its layer gave, in place."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        h = self.layer(x)
        h += 7
        return h


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3, 3), (6, 3)),
        (nn.Conv1d(3, 3, 1), (6, 3, 1)),
        (nn.Conv2d(3, 3, 1), (6, 3, 1, 1)),
        (nn.Conv2d(3, 3, 1), (6, 3, 2, 4)),
    ],
    ids=["2-D", "one position", "one pixel", "4-D"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_work_in_place_after_a_layer_does_not_change_what_was_taken(
    layer, shape, dtype
):
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).to(dtype)
    layer.reset_parameters()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = layer(x).detach().flatten(2) if len(shape) > 2 else layer(x).detach()
    expected = own.mean(2) if own.ndim > 2 else own
    for model in (
        nn.Sequential(layer, nn.ReLU(inplace=True)),
        Overwriting(layer),
    ):
        assert np.array_equal(capture(model, [x]).X, expected.numpy())
    assert (expected < 0).any()  # else ReLU would show nothing


def test_one_layer_may_be_named():
    model, loader = network(), [images()]
    adata = capture(model, loader, DAYS, layers="6")
    assert np.array_equal(adata.X, capture(model, loader, DAYS, layers=["6"]).X)
    assert adata.var["layer"].unique().tolist() == ["6"]
    names = (name for name in ("0", "6"))
    assert capture(model, loader, DAYS, layers=names).shape == (70, 10)


def test_what_the_default_gives_can_be_asked_for_by_name():
    model, x = nn.Linear(3, 4), torch.ones(5, 3)
    assert capture(model, [x]).var["layer"].unique().tolist() == ["model"]
    assert capture(model, [x], layers=["model"]).shape == (5, 4)
    shared = nn.Linear(3, 3)
    both = capture(nn.Sequential(shared, shared), [x], layers=["1"])
    assert both.var["layer"].unique().tolist() == ["1", "1 (call 2)"]


@pytest.mark.parametrize("one", [np.int64(1), torch.tensor(1), np.array(1)])
def test_any_whole_number_is_an_item_of_the_loader(one):
    days = torch.tensor([0] * 40 + [1] * 30)
    adata = capture(network(), [(images(), days)], batch=one)
    assert adata.obs["batch"].tolist() == days.tolist()


@pytest.mark.parametrize(
    "labels", [tuple, np.asarray, pd.Series, pd.Categorical, pd.Index]
)
def test_labels_come_in_any_list(labels):
    adata = capture(network(), [images()], labels(DAYS))
    assert adata.obs["batch"].tolist() == DAYS


def test_one_label_of_one_sample_is_no_item_of_the_loader():
    adata = capture(nn.Linear(3, 4), [torch.ones(1, 3)], torch.tensor([5]))
    assert adata.obs["batch"].tolist() == [5]


class Rows(nn.Module):
    """Normalizes every position by itself, as (N · L, C)."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        h = self.linear(x)
        return self.norm(h.flatten(0, 1)).reshape(h.shape)


class Sometimes(nn.Module):
    """Uses its second layer for small batches only."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.first(x)
        return self.second(h) if len(x) < 10 else h


class Last(nn.Module):
    """The last state of a recurrent layer, classified."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def sequences(*sizes, length=7):
    return [torch.randn(size, length, 3) for size in sizes]


@pytest.mark.parametrize(
    ("make", "loader", "left", "why", "kept"),
    [
        (Last, sequences(8, 4), "lstm", "gives a tuple, no tensor", ["head"]),
        (Rows, sequences(8, 4), "norm", r"not one row for each", ["linear"]),
        # One position: only the second batch tells.
        (
            Rows,
            [*sequences(8, length=1), *sequences(4)],
            "norm",
            r"not one row for each",
            ["linear"],
        ),
        (
            Sometimes,
            sequences(8, 16),
            "second",
            r"other channels in some batches: \[\[4\], \[\]\]",
            ["first"],
        ),
        (
            Sometimes,
            sequences(16, 8),
            "second",
            r"other channels in some batches: \[\[\], \[4\]\]",
            ["first"],
        ),
    ],
    ids=["LSTM", "rows", "rows later", "not called", "not called first"],
)
def test_layers_that_cannot_be_captured_are_left_out_and_named(
    make, loader, left, why, kept
):
    torch.manual_seed(0)
    model = make()
    before = state_of(model)
    with pytest.warns(LayerWarning, match=rf"'{left}'.*{why}") as caught:
        adata = capture(model, loader)
    assert len(caught) == 1
    assert adata.var["layer"].unique().tolist() == kept
    assert adata.uns["layers"].index.tolist() == kept
    assert_untouched(model, before)
    with pytest.raises(InputError, match=rf"'{left}'.*{why}"):
        capture(model, loader, layers=[*kept, left])
    assert_untouched(model, before)


def test_a_transformer_is_captured_but_for_its_attention():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    with pytest.warns(LayerWarning, match="'self_attn'"):
        adata = capture(model, [torch.randn(5, 7, 4)])
    layers = {"linear1", "linear2", "norm1", "norm2"}
    assert set(adata.var["layer"]) == layers


def test_a_model_of_which_nothing_can_be_captured_is_refused():
    with pytest.raises(InputError, match=r"No layer.*'0' \(LSTM\)"):
        capture(nn.Sequential(nn.LSTM(3, 4)), sequences(8))


def test_a_layer_asked_for_must_be_called():
    model = Sometimes()
    with pytest.raises(InputError, match=r"'second'.*is not called"):
        capture(model, sequences(16), layers=["second"])
    assert capture(model, sequences(16)).var["layer"].unique().tolist() == ["first"]


def test_a_layer_whose_channels_vary_is_refused():
    model = nn.Sequential(nn.Conv1d(3, 2, 1), nn.Flatten())
    loader = [torch.ones(4, 3, 5), torch.ones(4, 3, 6)]
    with pytest.raises(
        InputError, match=r"'1'.*other channels in some batches: \[\[10\], \[12\]\]"
    ):
        capture(model, loader, layers=["1"])


def test_layers_by_domain_take_each_sample_s_batch_for_its_domain():
    model = convert_domain_batchnorm(network().eval(), ["mon", "tue"])
    x = images()
    with domains(DAYS), torch.no_grad():
        model.train()(x)
        model.eval()
        expected = model[:2](x).mean((2, 3))
    adata = capture(model, [x[:25], x[25:60], x[60:]], DAYS, layers="1")
    assert np.allclose(adata.X, expected, atol=1e-12)
    with domains("mon"):  # what is said around holds
        one = capture(model, [x], DAYS, layers="1")
    assert np.array_equal(one.X[:40], adata.X[:40])
    assert not np.allclose(one.X[40:], adata.X[40:])


def test_labels_confounded_with_batch_are_said_to_be_once():
    with pytest.warns(AssociationWarning, match="share beyond the labels") as caught:
        adata = capture(network(), [images()], DAYS, labels=DAYS)
    assert len(caught) == 1
    assert adata.uns["layers"]["batch_beyond_label"].isna().all()


class Boom(nn.Module):
    """Gives NaN."""

    def forward(self, x):
        return x / 0 * 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: (network(), [images()], {"batch": DAYS[:-1]}), "69 domain labels"),
        (
            lambda: (network(), [images()], {"batch": [*DAYS[1:], None]}),
            "has no domain",
        ),
        (
            lambda: (network(), [images()], {"batch": [[0]] * 70}),
            "Sample 0 has no domain",
        ),
        (lambda: (network(), [images()], {"batch": 1}), "not an item of the loader"),
        (lambda: (network(), [images()], {"batch": "sample"}), "'sample' is no list"),
        (lambda: (network(), [images()], {"batch": 1.0}), "1.0 is no list"),
        (
            lambda: (network(), [images()], {"batch": (day for day in DAYS)}),
            "generator.* is no list",
        ),
        (lambda: (network(), [images()], {"layers": []}), "no layer to capture"),
        (lambda: (network(), images(), {}), "give \\[x\\]"),
        (lambda: (network(), [], {}), "loader is empty"),
        (lambda: (network(), [["a"]], {}), "holds a str"),
        (lambda: (network(), [images()[:, :1]], {}), "cannot take a batch of shape"),
        (lambda: (network(), [images() * np.nan], {}), "not finite"),
        (lambda: (network(), [images().to("meta")], {}), "cannot take a batch"),
        (lambda: (nn.Sequential(nn.LazyLinear(3)), [images()], {}), "lazy layers"),
        (lambda: (nn.ReLU(), [images()], {}), "modules with parameters"),
        (lambda: ("model", [images()], {}), "must be a torch.nn.Module"),
        (
            lambda: (
                nn.Sequential(Boom(), nn.Flatten(), nn.Linear(50, 3).double()),
                [images()],
                {"layers": ["0"]},
            ),
            "'0' returns values that are not finite",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_bad_input_leaves_the_model_untouched(make, match):
    model, loader, options = make()
    touched = isinstance(model, nn.Sequential) and "Lazy" not in str(model)
    before = state_of(model) if touched else None
    with pytest.raises(InputError, match=match):
        capture(model, loader, **options)
    if touched:
        assert_untouched(model, before)


@pytest.mark.parametrize("layers", ["conv", ["conv"], ["0", "conv"]])
def test_an_unknown_layer_is_an_error_that_lists_layers(layers):
    with pytest.raises(MissingKeyError, match=r"no layer 'conv'.*'0', '1'"):
        capture(network(), [images()], layers=layers)


# -- which axis the channels are -----------------------------------------------------------


class ChannelsFirst(nn.LayerNorm):
    """As ConvNeXt's LayerNorm2d."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Conv1D(nn.Module):
    """As GPT-2's: a linear layer with its weight the other way round."""

    def __init__(self, n_out, n_in):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return x @ self.weight + self.bias


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (nn.RMSNorm(6), (4, 5, 6), 2),
        (ChannelsFirst(6), (4, 6, 3, 5), 1),
        (Conv1D(7, 6), (4, 5, 6), 2),
        (nn.Linear(6, 5), (4, 5, 6), 2),
        (nn.Conv1d(6, 5, 1), (4, 6, 5), 1),
    ],
    ids=["RMSNorm", "channels first", "Conv1D", "linear, L = C", "conv, L = C"],
)
def test_channels_are_the_axis_as_long_as_the_layer(layer, shape, axis):
    x = torch.randn(shape)
    with torch.no_grad():
        expected = layer(x).movedim(axis, 1).flatten(2).mean(2)
    np.testing.assert_allclose(capture(layer.eval(), [x]).X, expected, rtol=1e-5)


def test_an_axis_that_is_not_clear_is_said_and_can_be_told():
    layer, x = Conv1D(5, 6).eval(), torch.randn(4, 5, 6)
    with pytest.warns(LayerWarning, match=r"not clear.*channels=\{'model': axis\}"):
        capture(layer, [x])
    with torch.no_grad():
        expected = layer(x).mean(1)
    for told in (2, -1, {"model": 2}):
        np.testing.assert_allclose(
            capture(layer, [x], channels=told).X, expected, rtol=1e-5
        )
    with pytest.raises(InputError, match="no axis of 3"):
        capture(layer, [x], layers="model", channels=3)
    with pytest.raises(MissingKeyError, match="'modle'"):
        capture(layer, [x], channels={"modle": 1})
