"""Real architectures with random weights and statistics: N of N, at two batch sizes."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import transformers
from torch import nn

from batchcorr.bridge import fold
from batchcorr.bridge._norms import batch_norms
from batchcorr.errors import FoldError, MissingPackageError
from tests.bridge.fold_cases import norms_in, sample, trained

RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [2, 2, 1]}
MODELS = {
    "ResNet, basic blocks": ("ResNet", {**RESNET, "layer_type": "basic"}, 13),
    "RegNet Y": (
        "RegNet",
        {**RESNET, "groups_width": 4, "layer_type": "y"},
        19,
    ),
    "MobileNetV2": ("MobileNetV2", {"depth_multiplier": 0.25}, 52),
}


def classifier(name, options):
    config = getattr(transformers, f"{name}Config")(**options, num_labels=5)
    return getattr(transformers, f"{name}ForImageClassification")(config).eval()


def scaled(model):
    """Statistics as if trained, with activations that neither vanish nor explode."""
    trained(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 4:
                weight.mul_(2 / weight[0].numel() ** 0.5)
            elif name.endswith("normalization.weight"):
                weight.abs_()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_every_batch_norm_folds(name):
    family, options, count = MODELS[name]
    model = scaled(classifier(family, options))
    assert len(norms_in(model)) == count
    x = sample(2, 3, 32, 32)
    result = fold(model, {"pixel_values": x})
    assert len(result.folded) == count
    assert result.kept == {}
    assert list(result.errors) == [1, 2, 3]
    assert result.error < 1e-10
    assert type(result.model) is type(model)
    assert not norms_in(result.model)
    with torch.no_grad():
        for fresh in (sample(1, 3, 32, 32, seed=5), sample(4, 3, 48, 48, seed=6)):
            logits = model(fresh).logits
            difference = (result.model(fresh).logits - logits).abs().max()
            assert difference / logits.abs().max() < 1e-10


def test_a_new_model_folds_to_take_the_weights_of_another():
    family, options, _ = MODELS["ResNet, basic blocks"]
    old, new = (classifier(family, options).double() for _ in range(2))
    x = sample(2, 3, 32, 32)
    saved = fold(scaled(old), x).model.state_dict()
    model = fold(new, x).model
    model.load_state_dict(saved)
    with torch.no_grad():
        logits = old(x).logits
        assert (model(x).logits - logits).abs().max() / logits.abs().max() < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
def test_the_full_resnet_50(dtype, tolerance):
    model = scaled(classifier("ResNet", {})).to(dtype)
    result = fold(model, sample(2, 3, 224, 224).to(dtype))
    assert (len(result.folded), len(result.kept)) == (53, 0)
    assert result.error < tolerance


TIMM = {
    "efficientnet_b0": 49,
    "mobilenetv3_small_100": 34,
    "regnety_002": 44,
    "mobilevit_xxs": 32,
    "ese_vovnet19b_dw": 23,
    "cspdarknet53": 67,
    "levit_128s": 52,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_every_batch_norm_of_timm_folds(name):
    """Norm and activation in one module, in real networks of random weights."""
    timm = pytest.importorskip("timm", reason="timm needs a torchvision of this torch")
    model = timm.create_model(name).double().eval()
    with torch.no_grad():
        for norm in batch_norms(model).values():
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
    size = 224 if name.startswith("levit") else 64
    result = fold(model, sample(2, 3, size, size))
    assert (len(result.folded), len(result.kept)) == (TIMM[name], 0)
    assert result.error < 1e-10


@pytest.mark.slow
def test_a_folded_model_is_the_same_compiled():
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    result = fold(model.float(), torch.randn(2, 3, 8, 8))
    assert result.check()["compiled"] <= 1e-5
    with torch.no_grad():
        next(result.model.parameters()).add_(0.1)
    with pytest.raises(FoldError, match="compiled, differs from the given one by"):
        result.check()


@pytest.mark.slow
def test_a_folded_model_is_the_same_in_onnx():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = scaled(classifier("ResNet", {**RESNET, "layer_type": "basic"})).float()
    result = fold(model, {"pixel_values": torch.randn(2, 3, 32, 32)})
    assert result.check(compile=False, onnx=True)["exported to ONNX"] <= 1e-5


def test_without_what_runs_onnx_it_says_what_to_install():
    if find_spec("onnxruntime"):
        pytest.skip("onnxruntime is installed")
    result = fold(
        nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval(), torch.ones(4, 2)
    )
    with pytest.raises(MissingPackageError, match="pip install onnx onnxscript"):
        result.check(onnx=True, compile=False)
