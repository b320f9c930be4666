"""Activations as an AnnData, and one network corrected in two ways that agree."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchcorr as bc
from batchcorr.bridge._capture import capture
from batchcorr.errors import AssociationWarning, InputError, MissingKeyError

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


def test_labels_confounded_with_batch_are_said_to_be():
    with pytest.warns(AssociationWarning, match="No share beyond the labels"):
        adata = capture(network(), [images()], DAYS, labels=DAYS)
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
        (lambda: (network(), [images()], {"batch": [[0]] * 70}), "cannot be looked up"),
        (lambda: (network(), [images()], {"batch": 1}), "not an item of the loader"),
        (lambda: (network(), images(), {}), "give \\[x\\]"),
        (lambda: (network(), [], {}), "loader is empty"),
        (lambda: (network(), [["a"]], {}), "holds a str"),
        (lambda: (network(), [images()[:, :1]], {}), "cannot take a batch of shape"),
        (lambda: (network(), [images() * np.nan], {}), "not finite"),
        (lambda: (network(), [images().to("meta")], {}), "data are on meta"),
        (lambda: (nn.Sequential(nn.LazyLinear(3)), [images()], {}), "no shape yet"),
        (lambda: (nn.ReLU(), [images()], {}), "has parameters"),
        (lambda: ("model", [images()], {}), "must be a torch.nn.Module"),
        (
            lambda: (
                nn.Sequential(Boom(), nn.Flatten(), nn.Linear(50, 3).double()),
                [images()],
                {"layers": ["0"]},
            ),
            "'0' gives values that are not finite",
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


def test_an_unknown_layer_is_an_error_that_lists_layers():
    with pytest.raises(MissingKeyError, match="no layer 'conv'"):
        capture(network(), [images()], layers=["conv"])
