"""Layers that are used more than once, or by somebody else, or are more than they seem."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional, utils
from torch.nn.utils import parametrizations, prune

from batchcorr.bridge import fold
from tests.bridge.fold_cases import Chain, checked, require_equal, sample, trained

IMAGE = (3, 4, 6, 6)


def conv(n_in=4, n_out=4):
    return nn.Conv2d(n_in, n_out, 3, padding=1)


# -- called several times by forward: cannot be told apart ---------------------------


def test_a_layer_with_one_call_corrected_is_kept():
    model = Chain(
        lambda m, x: m.norm(m.conv(x)) + m.conv(x + 1),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "'conv' is called 2 times" in result.kept["norm"]


def test_a_layer_with_two_different_corrections_is_kept():
    model = Chain(
        lambda m, x: m.a(m.conv(x)) + m.b(m.conv(x.relu())),
        conv=conv(),
        a=nn.BatchNorm2d(4),
        b=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert set(result.kept) == {"a", "b"}


def test_a_pair_called_twice_folds_once():
    model = Chain(
        lambda m, x: m.norm(m.conv(m.norm(m.conv(x)).relu())),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"norm": ("conv",)}


def test_a_correction_of_two_layers_goes_into_both():
    model = Chain(
        lambda m, x: m.norm(m.a(x)) + m.norm(m.b(x)),
        a=conv(),
        b=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"norm": ("a", "b")}


def test_one_that_corrects_its_own_result_is_kept():
    model = Chain(
        lambda m, x: m.norm(m.norm(m.conv(x))), conv=conv(), norm=nn.BatchNorm2d(4)
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "batch_norm in 'norm' is no step" in result.kept["norm"]


def both(y, use):
    return use(y)


def test_a_layer_whose_result_somebody_else_uses_is_kept():
    model = Chain(
        lambda m, x: both(m.conv(x), lambda y: m.norm(y) + y.relu()),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "also used by relu" in result.kept["norm"]


def test_a_result_that_is_returned_is_kept():
    model = Chain(
        lambda m, x: both(m.conv(x), lambda y: (m.norm(y), y)),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "also used by the model's output" in result.kept["norm"]


def test_a_result_that_is_written_to_is_followed():
    def run(m, x):
        y = m.conv(x)
        z = y[:, :2]
        z += 1  # changes y
        return m.norm(y)

    model = Chain(run, conv=conv(), norm=nn.BatchNorm2d(4))
    assert checked(trained(model), sample(*IMAGE)).folded == {}


def test_a_block_under_two_names_folds_once():
    block = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU())
    model = Chain(lambda m, x: m.a(x) + m.b(x), a=block, b=block)
    result = fold(trained(model), sample(*IMAGE))
    assert result.folded == {"a.1": ("a.0",)}
    assert result.model.a is result.model.b
    require_equal(result, model, (sample(*IMAGE, seed=3),))


# -- weights that are not only a layer's own -----------------------------------------


def tied(model):
    model.b.weight = model.a.weight
    return model


def test_a_tied_weight_is_changed_in_the_layer_that_takes_a_correction_up():
    model = Chain(
        lambda m, x: m.norm(m.a(x)).relu() + m.b(x),
        a=conv(),
        b=conv(),
        norm=nn.BatchNorm2d(4),
    )
    model = tied(trained(model))
    result = checked(model, sample(*IMAGE))
    assert result.folded == {"norm": ("a",)}
    assert torch.equal(result.model.b.weight, model.b.weight)


@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: functional.conv2d(x, m.conv.weight),
        lambda m, x: functional.conv2d(x, m.conv.weight, m.conv.bias, padding=1),
        lambda m, x: x * m.conv.weight.sum(),
        lambda m, x: x + m.conv.bias[0],
    ],
    ids=["conv without bias", "conv", "sum", "bias"],
)
def test_a_weight_that_a_function_uses_is_kept(use):
    model = Chain(
        lambda m, x: (m.norm(m.conv(x)), use(m, x)), conv=conv(), norm=nn.BatchNorm2d(4)
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "'conv'" in result.kept["norm"]


def test_functions_in_place_of_layers_are_kept():
    model = Chain(
        lambda m, x: m.norm(functional.conv2d(x, m.conv.weight)),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    assert checked(trained(model), sample(*IMAGE)).folded == {}


def test_the_statistics_may_not_be_used_by_functions():
    def run(m, x):
        n = m.norm
        return functional.batch_norm(
            m.conv(x), n.running_mean, n.running_var, n.weight, n.bias
        )

    model = Chain(run, conv=conv(), norm=nn.BatchNorm2d(4))
    result = checked(trained(model), sample(*IMAGE))
    assert "it is not called" in result.kept["norm"]
    model.run = lambda m, x: m.norm(m.conv(x)) + m.norm.running_mean[0]
    result = checked(model, sample(*IMAGE))
    assert "the running_mean of 'norm' is also used by" in result.kept["norm"]


@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        utils.weight_norm,
        parametrizations.spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    ],
    ids=["weight norm", "old weight norm", "spectral norm", "pruning"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_weight_that_is_computed_is_kept(wrap):
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()))
    model[0] = wrap(model[0]).eval()
    result = fold(model, sample(*IMAGE))
    assert result.folded == {}
    assert "the weight of conv2d in '0' is computed" in result.kept["1"]


def test_frozen_weights_stay_frozen():
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)))
    model[0].weight.requires_grad_(False)
    result = checked(model, sample(*IMAGE))
    flags = {name: p.requires_grad for name, p in result.model.named_parameters()}
    assert flags == {
        "0.weight": False,
        "0.bias": True,
        "2.weight": True,
        "2.bias": True,
    }


# -- BatchNorms that are not what they seem ------------------------------------------


def test_one_without_running_statistics_is_kept():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    result = fold(trained(nn.Sequential(conv(), norm)), sample(*IMAGE))
    assert "keeps no running statistics" in result.kept["1"]


class NormAct(nn.BatchNorm2d):
    def forward(self, x):
        return functional.relu(super().forward(x))


def test_one_that_does_more_is_kept():
    result = checked(trained(nn.Sequential(conv(), NormAct(4))), sample(*IMAGE))
    assert "NormAct does more in its call" in result.kept["1"]


def test_one_that_is_not_called_is_kept():
    model = Chain(
        lambda m, x: m.conv(x) if x.shape[-1] == 6 else m.norm(m.conv(x)),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "it is not called" in result.kept["norm"]


def test_a_hook_that_changes_the_result_is_seen():
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()))
    model[1].register_forward_hook(lambda *call: call[2] * 2)
    assert "does more in its call" in checked(model, sample(*IMAGE)).kept["1"]
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()))
    model[0].register_forward_hook(lambda *call: call[2] ** 2)
    assert "pow in '0'" in checked(model, sample(*IMAGE)).kept["1"]


def test_active_dropout_is_not_passed():
    model = Chain(
        lambda m, x: m.norm(functional.dropout(m.conv(x))),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    assert fold(trained(model), sample(*IMAGE)).folded == {}


class ActsToo(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: dropout and activation are parts of the module."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.PReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d: buffers only."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x):
        scale = self.weight / torch.sqrt(self.running_var + 1e-5)
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def test_what_the_module_does_beside_stays():
    model = trained(nn.Sequential(conv(), ActsToo(4), conv(), ActsToo(4)))
    result = fold(model, sample(*IMAGE))
    assert result.folded == {"1": ("0",), "3": ("2",)}
    require_equal(result, model, (sample(*IMAGE, seed=3),))
    assert torch.equal(result.model[1].act.weight, model[1].act.weight)
    behind = trained(nn.Sequential(nn.ReLU(), ActsToo(4), nn.Conv2d(4, 4, 1)))
    assert "relu" in checked(behind, sample(*IMAGE)).kept["1"]


def test_a_frozen_one_folds():
    model = trained(nn.Sequential(conv(), Frozen(4), nn.ReLU()))
    result = fold(model, sample(*IMAGE))
    assert result.folded == {"1": ("0",)}
    assert result.error < 1e-10


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_wrappers_are_looked_through():
    inner = trained(nn.Sequential(conv(), nn.BatchNorm2d(4)))
    for model in (torch.compile(inner), nn.DataParallel(inner)):
        assert fold(model.eval(), sample(*IMAGE)).folded == {"1": ("0",)}
    part = nn.Sequential(torch.compile(inner), nn.ReLU()).eval()
    assert fold(part, sample(*IMAGE)).folded == {"0.1": ("0.0",)}


def test_flattened_tokens_come_back():
    """Linear → flatten → BatchNorm → reshape_as, as in LeViT."""

    def run(m, x):
        y = m.linear(x)
        return m.norm(y.flatten(0, 1)).reshape_as(y)

    model = Chain(run, linear=nn.Linear(4, 4), norm=nn.BatchNorm1d(4))
    assert checked(trained(model), sample(2, 4, 4)).folded == {"norm": ("linear",)}


def test_a_half_precision_network_that_ends_in_float_is_judged_by_its_weights():
    model = Chain(
        lambda m, x: m.norm(m.conv(x)).float(), conv=conv(), norm=nn.BatchNorm2d(4)
    )
    result = fold(trained(model).bfloat16(), sample(*IMAGE).bfloat16())
    assert result.folded == {"norm": ("conv",)}
