"""Layers that are used more than once, or by somebody else, or are more than they seem."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from batchcorr.bridge import fold
from batchcorr.bridge._fold.weights import one_map
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
    assert "corrects its own result" in result.kept["norm"]


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


def test_a_sum_made_in_place_is_followed():
    def run(m, x):
        y = m.a(x)
        y.flatten(2).add_(m.b(x).flatten(2))  # changes y
        return m.norm(y)

    model = Chain(run, a=conv(), b=conv(), norm=nn.BatchNorm2d(4))
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"norm": ("a", "b")}


# -- registered under several names: separated, and joined again ---------------------


def test_a_layer_under_two_names_is_separated():
    layer = conv()
    model = Chain(
        lambda m, x: m.norm(m.a(x)) + m.b(x), a=layer, b=layer, norm=nn.BatchNorm2d(4)
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"norm": ("a",)}
    assert result.model.a is not result.model.b
    assert torch.equal(result.model.b.weight, layer.weight)
    assert model.a is model.b


def test_two_names_with_a_correction_each():
    layer = conv()
    model = Chain(
        lambda m, x: m.one(m.a(x)) + m.two(m.b(x)),
        a=layer,
        b=layer,
        one=nn.BatchNorm2d(4),
        two=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"one": ("a",), "two": ("b",)}


def test_what_comes_out_equal_is_shared_again():
    block = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU())
    other = nn.Linear(4, 4)
    model = Chain(
        lambda m, x: m.c(m.d((m.a(x) + m.b(x)).mean((2, 3)))),
        a=block,
        b=block,
        c=other,
        d=other,
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"a.1": ("a.0",), "b.1": ("b.0",)}
    assert result.model.a is result.model.b
    assert result.model.c is result.model.d
    keys = {key for key in model.state_dict() if not key.startswith(("a.1", "b.1"))}
    assert result.model.state_dict().keys() == keys


def test_a_shared_block_is_separated_where_it_must_be():
    block = nn.ModuleDict({"conv": conv(), "act": nn.ReLU()})
    model = Chain(
        lambda m, x: m.norm(m.a["conv"](x)) + m.b["act"](m.b["conv"](x)),
        a=block,
        b=block,
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert result.folded == {"norm": ("a.conv",)}
    assert result.model.a is not result.model.b
    assert result.model.a["act"] is result.model.b["act"]


# -- weights that are not only a layer's own -----------------------------------------


def tied(model):
    model.b.weight = model.a.weight
    return model


def test_a_tied_weight_stays_tied():
    model = Chain(
        lambda m, x: m.norm(m.a(x)).relu() + m.b(x),
        a=conv(),
        b=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(tied(trained(model)), sample(*IMAGE))
    assert "weight is also used by conv2d in 'b'" in result.kept["norm"]
    assert result.model.a.weight is result.model.b.weight


def test_a_weight_tied_to_a_layer_that_is_not_called_stays_tied():
    model = Chain(
        lambda m, x: m.norm(m.a(x)),
        a=nn.Linear(4, 4),
        b=nn.Embedding(4, 4),
        norm=nn.BatchNorm1d(4),
    )
    result = checked(tied(trained(model)), sample(3, 4))
    assert "weight is tied to 'b.weight'" in result.kept["norm"]


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
    assert "is also used by" in result.kept["norm"]


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
    assert "no call of it was found" in result.kept["norm"]
    model.run = lambda m, x: m.norm(m.conv(x)) + m.norm.running_mean[0]
    result = checked(model, sample(*IMAGE))
    assert "running_mean is also used by" in result.kept["norm"]


@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    ],
    ids=["weight norm", "spectral norm", "pruning"],
)
def test_a_weight_that_is_computed_is_kept(wrap):
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()))
    model[0] = wrap(model[0]).eval()
    with torch.no_grad():
        model(sample(*IMAGE))  # or the pruned weight still has a history
    result = checked(model, sample(*IMAGE))
    assert "'0' cannot be changed: its weight is computed" in result.kept["1"]


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
    assert "more happens in its call than normalization: relu" in result.kept["1"]


def test_one_that_is_not_called_is_kept():
    model = Chain(
        lambda m, x: m.conv(x) if x.shape[-1] == 6 else m.norm(m.conv(x)),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = checked(trained(model), sample(*IMAGE))
    assert "no call of it was found" in result.kept["norm"]


def test_a_hook_that_looks_on_stays():
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()))
    seen = []
    model[1].register_forward_hook(lambda *call: seen.append(call[2].shape))
    result = checked(model, sample(*IMAGE))
    assert result.folded == {"1": ("0",)}
    seen.clear()
    result.model(sample(*IMAGE))
    assert seen == [IMAGE]


def test_a_hook_that_changes_the_result_is_seen():
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()))
    model[1].register_forward_hook(lambda *call: call[2] * 2)
    assert "more happens" in checked(model, sample(*IMAGE)).kept["1"]
    model = trained(nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()))
    model[0].register_forward_hook(lambda *call: call[2] ** 2)
    assert "pow in '0'" in checked(model, sample(*IMAGE)).kept["1"]


def test_active_dropout_is_not_passed():
    model = Chain(
        lambda m, x: m.norm(functional.dropout(m.conv(x))),
        conv=conv(),
        norm=nn.BatchNorm2d(4),
    )
    result = fold(trained(model), sample(*IMAGE))
    assert "active in evaluation mode" in result.kept["norm"]


# -- layers that say what they do: as_correction() -----------------------------------


class Domains(nn.Module):
    """A scale and a shift for each domain."""

    def __init__(self, honest=True):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 4))
        self.shift = nn.Parameter(torch.ones(2, 4))
        self.honest = honest
        self.frozen = True

    def forward(self, x, domain):
        r, s = self.scale[domain], self.shift[domain]
        return r[:, :, None, None] * x + s[:, :, None, None]

    def as_correction(self):
        place = 1 if self.honest else 0
        return one_map(self.scale[place], self.shift[place]) if self.frozen else None


def domain_model(**options):
    return Chain(
        lambda m, x: m.norm(m.conv(x), torch.ones(len(x), dtype=torch.long)).relu(),
        conv=conv(),
        norm=Domains(**options),
    )


def test_a_layer_that_is_one_correction_folds():
    model = trained(domain_model())
    result = fold(model, sample(*IMAGE))
    assert result.folded == {"norm": ("conv",)}
    require_equal(result, model, (sample(7, 4, 5, 5),))


def test_a_layer_that_is_several_corrections_is_kept():
    model = trained(domain_model())
    model.norm.frozen = False
    result = fold(model, sample(*IMAGE))
    assert "not one correction for all rows" in result.kept["norm"]
    assert isinstance(result.model.norm, Domains)


def test_two_in_front_of_a_layer_go_into_it_in_order():
    def run(m, x):
        y = m.norm(x.relu())
        domain = torch.ones(len(x), dtype=torch.long)
        return m.after(m.domains(y, domain)), m.beside(y)

    model = Chain(
        run,
        norm=nn.BatchNorm2d(4),  # first `domains` is in its way
        domains=Domains(),
        after=nn.Conv2d(4, 4, 3),
        beside=nn.Conv2d(4, 4, 1),
    )
    result = fold(trained(model), sample(*IMAGE))
    assert result.folded == {"domains": ("after",), "norm": ("after", "beside")}
    require_equal(result, model, (sample(5, 4, 3, 3),))


def test_such_a_layer_takes_up_no_other():
    def run(m, x):
        y = m.norm(x.relu())
        domain = torch.ones(len(x), dtype=torch.long)
        return m.domains(y, domain).relu(), m.conv(y)

    model = Chain(
        run, norm=nn.BatchNorm2d(4), domains=Domains(), conv=nn.Conv2d(4, 4, 1)
    )
    result = fold(trained(model), sample(*IMAGE))
    assert "'domains' makes its correction itself" in result.kept["norm"]
    model.run = lambda m, x: m.domains(
        m.norm(x.relu()), torch.ones(len(x), dtype=torch.long)
    )
    result = fold(trained(model), sample(*IMAGE))
    assert result.folded == {"domains": ("norm",)}
    require_equal(result, model, (sample(5, 4, 3, 3),))
