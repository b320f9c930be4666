"""What folding refuses, with which words; and what its result says."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from torch import nn

from batchcorr.bridge import fold
from batchcorr.bridge.nn import DomainBatchNorm1d, at_domain, domains
from batchcorr.errors import BatchCorrError, FoldError, InputError
from tests.bridge.fold_cases import (
    Chain,
    checked,
    require_equal,
    require_untouched,
    sample,
    snapshot,
    trained,
)


def small():
    return trained(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()))


def nan_weights():
    model = small()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    return model


def uncopyable():
    model = small()
    model.lock = threading.Lock()
    return model


REFUSED = {
    "no module": (lambda: "net", sample(3, 4), "must be a torch.nn.Module, not a str"),
    "no BatchNorm": (
        lambda: nn.Sequential(nn.Linear(4, 3)).eval(),
        sample(3, 4),
        "no BatchNorm layer, so there is nothing to do",
    ),
    "training": (lambda: small().train(), sample(3, 4), r"training mode .*model.eval"),
    "partly training": (
        lambda: nn.Sequential(small(), small().train()).eval().append(small().train()),
        sample(3, 4),
        r"training mode \(2, 2.0, 2.1, 2.2\)",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(3), nn.BatchNorm1d(3)).eval(),
        sample(3, 4),
        "lazy layers",
    ),
    "no tensor": (small, (1, "two"), "must hold a tensor .* not tuple"),
    "scalar": (small, torch.tensor(1.0), "must hold a tensor"),
    "empty": (small, sample(0, 4), "returns no real numbers for example_inputs"),
    "NaN": (small, sample(3, 4) * torch.nan, "returns NaN for example_inputs"),
    "NaN weights": (nan_weights, sample(3, 4), "returns NaN for example_inputs"),
    "shape": (small, sample(3, 5), r"fails on example_inputs: RuntimeError: mat1"),
    "dtype": (small, sample(3, 4).float(), "fails on example_inputs"),
    "keywords": (
        small,
        {"pixels": sample(3, 4)},
        "unexpected keyword argument 'pixels'",
    ),
    "inputs elsewhere": (
        small,
        sample(3, 4).to("meta"),
        "The model fails on example_inputs",
    ),
    "model without values": (
        lambda: small().to("meta"),
        sample(3, 4),
        "on the meta device",
    ),
    "uncopyable": (uncopyable, sample(3, 4), "cannot be copied"),
    "no numbers": (
        lambda: trained(
            Chain(lambda m, x: m.norm(x).argmax(1), norm=nn.BatchNorm1d(4))
        ),
        sample(3, 4),
        "returns no real numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_and_the_model_untouched(name):
    make, inputs, words = REFUSED[name]
    model = make()
    plain = isinstance(model, nn.Module) and name not in {
        "lazy",
        "NaN weights",
        "model without values",
    }
    before = snapshot(model) if plain else None
    with pytest.raises(InputError, match=words):
        fold(model, inputs)
    if plain:
        require_untouched(model, before)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_scripted_models_are_said_to_be_scripted():
    with pytest.raises(InputError, match=r"is scripted \(torch.jit\)"):
        fold(torch.jit.script(small()), sample(3, 4))


@pytest.mark.parametrize("more", [[], [nn.Linear(4, 4), nn.BatchNorm1d(4)]])
def test_models_of_several_domains_are_led_to_one_of_them(more):
    layer = DomainBatchNorm1d(4, ["mon", "tue"])
    model = nn.Sequential(nn.Linear(4, 4), layer, *more)
    with domains("tue"):
        model(sample(9, 4).float())
    model.eval()
    with pytest.raises(InputError, match=r"at_domain\(model, domain\)"):
        fold(model, sample(3, 4).float())
    result = fold(at_domain(model, "tue"), sample(3, 4).float())
    assert result.kept == {}


def test_a_model_that_looks_at_its_layers_is_not_returned():
    """The graph cannot show that the code asks what a layer is."""

    def run(m, x):
        y = m.norm(m.linear(x))
        return y if isinstance(m.norm, nn.BatchNorm1d) else y + 1

    model = trained(Chain(run, linear=nn.Linear(4, 6), norm=nn.BatchNorm1d(6)))
    before = snapshot(model)
    with pytest.raises(FoldError, match="it is not returned") as caught:
        fold(model, sample(3, 4))
    assert isinstance(caught.value, BatchCorrError)
    require_untouched(model, before)
    model.run = lambda m, x: m.norm(m.linear(x)) * m.norm.num_features
    with pytest.raises(FoldError, match="The folded model fails: AttributeError"):
        fold(model, sample(3, 4))


def test_weights_that_float32_cannot_hold_are_not_returned():
    model = small()
    with torch.no_grad():
        model[1].running_mean.fill_(1e5)
        model[0].bias.fill_(1e5)
    assert fold(model, sample(3, 4)).error < 1e-10
    with pytest.raises(FoldError, match=r"(?s)torch.float32.*model.double\(\)"):
        fold(model.float(), sample(3, 4).float())


@pytest.mark.parametrize("inputs", ["tensor", "tuple", "dict"])
def test_inputs_may_be_given_in_three_ways(inputs):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

        def forward(self, x, y=None, *, scale=None):
            out = self.norm(self.linear(x if y is None else x + y))
            return {"out": out if scale is None else out * scale}

    x, y = sample(3, 4), sample(3, 4, seed=2)
    given = {"tensor": x, "tuple": (x, y), "dict": {"x": x, "scale": sample(6)}}
    result = fold(trained(Two()), given[inputs])
    assert result.folded == {"norm": ("linear",)}
    assert list(result.errors) == [1, 3, 4]


def test_one_sample_is_enough():
    assert list(checked(small(), sample(1, 4)).errors) == [1, 2]


def chain(run):
    return trained(Chain(run, linear=nn.Linear(4, 6), norm=nn.BatchNorm1d(6)))


def test_a_model_for_one_batch_size_is_compared_at_that():
    model = chain(lambda m, x: m.norm(m.linear(x)).reshape(3, 6))
    result = fold(model, sample(3, 4))
    assert result.folded == {"norm": ("linear",)}
    assert list(result.errors) == [3]
    require_equal(result, model, (sample(3, 4, seed=9),))


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.norm(m.linear(x)) if x.shape[0] < 4 else m.linear(x),
        lambda m, x: m.linear(x) if len(x) == 1 else m.norm(m.linear(x)),
    ],
    ids=["next", "single"],
)
def test_a_model_that_asks_how_many_samples_there_are_is_not_returned(run):
    with pytest.raises(FoldError, match="not the same for any number of samples"):
        fold(chain(run), sample(3, 4))


def test_a_loop_over_samples_is_followed():
    model = chain(
        lambda m, x: torch.stack([m.norm(m.linear(x))[k] for k in range(len(x))])
    )
    assert checked(model, sample(3, 4)).folded == {"norm": ("linear",)}


def test_a_branch_on_values_is_said():
    def run(m, x):
        y = m.norm(m.linear(x))
        return y if y.sum() > 1e9 else -y

    result = fold(chain(run), sample(3, 4))
    assert result.folded == {"norm": ("linear",)}
    assert result.reads == ("__bool__",)
    assert "looks at values (__bool__)" in str(result)
    assert fold(small(), sample(3, 4)).reads == ()


def test_inference_tensors_of_any_length_are_taken():
    with torch.inference_mode():
        scale = torch.ones(1, 6, dtype=torch.float64)
    model = chain(lambda m, x, scale: m.norm(m.linear(x)) * scale)
    assert fold(model, (sample(3, 4), scale)).folded == {"norm": ("linear",)}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_part_is_no_obstacle():
    model = small()
    model.append(torch.jit.script(nn.ReLU()))
    assert len(fold(model.eval(), sample(30, 4)).folded) == len(
        fold(small(), sample(30, 4)).folded
    )


def test_a_model_that_refuses_one_sample_or_has_no_number_for_it():
    def strict(m, x):
        assert len(x) > 1
        return m.norm(m.linear(x))

    def spread(m, x):
        return m.norm(m.linear(x)).std(0)  # NaN for one sample

    def scarce(m, x):
        return m.norm(m.linear(x)) * (1 / (len(x) - 1))

    assert list(fold(chain(strict), sample(3, 4)).errors) == [3, 4]
    assert list(fold(chain(scarce), sample(3, 4)).errors) == [3, 4]
    assert list(fold(chain(spread), sample(3, 4)).errors) == [3, 4]


def test_the_surroundings_do_not_change_what_is_measured():
    model, x = small().float(), sample(30, 4).float()
    with torch.inference_mode():
        result = fold(model, torch.ones_like(x).copy_(x))
    assert not any(p.is_inference() for p in result.model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert fold(model, x).error == pytest.approx(result.error, abs=1e-6)


def test_half_precision_is_measured_as_such():
    model = small().to(torch.bfloat16)
    result = fold(model, sample(64, 4).to(torch.bfloat16))
    assert result.model[0].weight.dtype == torch.bfloat16
    assert 1e-4 < result.error < 0.1


def test_a_half_precision_network_that_rounds_too_much_is_led_to_float():
    model = small()
    with torch.no_grad():
        model[1].running_mean.fill_(1e3)
        model[0].bias.fill_(1e3)
    with pytest.raises(FoldError, match=r"bfloat16.*Fold model.double\(\)"):
        fold(model.bfloat16(), sample(64, 4).bfloat16())


def test_float32_keeps_its_dtype():
    result = fold(small().float(), sample(30, 4).float())
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    assert result.error < 1e-5


def test_the_result_says_what_was_done():
    layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.BatchNorm1d(6)]
    result = fold(trained(nn.Sequential(*layers)), sample(3, 4))
    head, folded, kept = str(result).splitlines()
    assert head.startswith("1 of 2 BatchNorm layers folded, relative error ")
    assert head.endswith("for 1, 3, 4 samples")
    assert folded == "  1 → 0"
    assert kept == (
        "  3 kept: before it: relu in '2' is no step that a correction of channels "
        "could pass; after it: its result goes into the model's output"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.kept = {}


def test_a_batch_norm_alone_is_kept():
    model = trained(nn.BatchNorm1d(4))
    result = fold(model, sample(3, 4))
    assert "it corrects an input" in result.kept[""]


def test_folding_again_finds_nothing_to_do():
    result = fold(small(), sample(3, 4))
    with pytest.raises(InputError, match="no BatchNorm"):
        fold(result.model, sample(3, 4))
