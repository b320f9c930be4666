"""What accumulation costs, and what neither check nor exact takes."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from batchcorr.bridge.accumulate import Cost, CostAt, check, exact
from batchcorr.bridge.nn import ComBatNorm1d, DomainBatchNorm1d, domains
from batchcorr.errors import InputError
from tests.bridge.accumulate_models import (
    N,
    built,
    difference,
    gradients,
    mean_loss,
    mlp,
    sum_loss,
)

# -- what is refused, and leaves no trace ------------------------------------------------


def refused(model, batch, loss=mean_loss, size=4, **options):
    before = copy.deepcopy(model.state_dict()) if hasattr(model, "state_dict") else {}
    state = torch.get_rng_state()
    with pytest.raises(InputError) as caught:
        exact(model, batch, loss, size, **options)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in before.items():
        if (
            isinstance(value, torch.Tensor)
            and not isinstance(value, nn.parameter.UninitializedParameter)
            and not value.is_meta
        ):
            assert torch.equal(model.state_dict()[name], value), name
    if before:
        assert all(value.grad is None for value in model.parameters())
    return str(caught.value)


def test_a_mean_and_a_sum_are_told_apart():
    model, batch = built("mlp")
    assert "give reduction='sum'" in refused(model, batch, sum_loss)
    assert "give reduction='mean'" in refused(model, batch, reduction="sum")
    assert "give reduction='sum'" in refused(model, batch, sum_loss, size=1)
    assert "'mean' or 'sum'" in refused(model, batch, reduction="median")


def weighted(model, batch):
    weight = torch.tensor([1.0, 2.0, 5.0, 9.0], dtype=torch.float64)
    return F.cross_entropy(model(batch[0]), batch[1], weight=weight)


def contrast(model, batch):
    out = model(batch[0])
    return (out @ out.T).logsumexp(1).mean()


@pytest.mark.parametrize("loss", [weighted, contrast])
@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("order", ["mixed", "sorted"])
def test_a_loss_that_is_not_additive_is_refused(loss, size, order):
    model, (x, y) = built("mlp")
    y = y.sort().values if order == "sorted" else y
    assert "not the mean over samples" in refused(model, (x, y), loss, size)


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize(("place", "size"), [(0, 1), (3, 5), (7, 4)])
def test_another_layer_that_mixes_samples_is_refused(place, size):
    model, batch = built("mlp")
    model.insert(place, Centred())
    assert "a layer other than BatchNorm that mixes" in refused(model, batch, size=size)
    with pytest.raises(InputError, match="other than BatchNorm"):
        check(model, batch, mean_loss)


def days_loss(model, batch):
    with domains(batch[2]):
        return mean_loss(model, batch)


@pytest.mark.parametrize("layer", [ComBatNorm1d(9), DomainBatchNorm1d(9, [0, 1])])
def test_the_package_s_own_norms_are_named(layer):
    model, (x, y) = built("mlp")
    model[1] = layer.double()
    batch = (x, y, torch.arange(N) % 2)
    words = f"The layer '1' is a {type(layer).__name__}, which mixes samples"
    assert words in refused(model, batch, days_loss)
    with pytest.raises(InputError, match=words):
        check(model, batch, days_loss)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, batch: exact(model, batch, mean_loss, N // 2),
        lambda model, batch: check(model, batch, mean_loss),
    ],
    ids=["exact", "check"],
)
def test_a_micro_batch_without_a_target_is_named(call):
    model, (x, y) = built("mlp")
    y = torch.where(torch.arange(N) < N // 2, -100, y)
    with pytest.raises(
        InputError, match=r"11 samples is not finite \(nan\).*ignore_index"
    ):
        call(model, (x, y))
    some = torch.where(torch.arange(N) < 5, -100, y.clamp(min=0))
    assert "(ignore_index)" in refused(model, (x, some), size=N // 2)


def test_values_that_are_not_finite_are_looked_for_in_the_model():
    model, batch = built("without")
    with torch.no_grad():
        model[0].weight[0, 0] = torch.inf
    assert "Look for NaN in the data and the weights" in refused(model, batch)


def test_buffers_that_depend_on_the_samples_are_refused():
    class Counting(nn.Module):
        def __init__(self, *, samples):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.samples = samples

        def forward(self, x):
            self.count = self.count + (x.sum() if self.samples else 1)
            return x

    model, batch = built("mlp")
    model.append(Counting(samples=True))
    assert "buffer 10.count changes with the samples" in refused(model, batch)
    model[-1].samples = False
    exact(model, batch, mean_loss, 4)
    assert float(model[-1].count) == 1


def test_random_losses_are_refused():
    model, batch = built("mlp")

    def loss(model, batch):
        order = torch.randperm(len(batch[1]))
        return F.cross_entropy(model(batch[0]), batch[1][order])

    assert "random" in refused(model, batch, loss)


def test_checkpointing_is_refused():
    class Checkpointed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=False)

    model, batch = built("mlp")
    assert "checkpointing" in refused(Checkpointed(model), batch)


@pytest.mark.parametrize("again", [False, True], ids=["", "used again"])
@pytest.mark.parametrize("place", [0, 1], ids=["before the norm", "with it"])
def test_reentrant_checkpointing_is_refused(place, again):
    """Its layers are in no graph: their gradients would be none, or a part."""

    class Checkpointed(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.inner, self.outer = layers[: place + 1], layers[place + 1 :]

        def forward(self, x):
            hidden = self.inner(x) if again else 0.0
            x = x.clone().requires_grad_()
            hidden = hidden + checkpoint(self.inner, x, use_reentrant=True)
            return self.outer(hidden)

    model, batch = built("mlp")
    model = Checkpointed(model)
    assert "use_reentrant=False" in refused(model, batch)
    with pytest.raises(InputError, match="use_reentrant=False"):
        check(model, batch, mean_loss)


def test_a_gradient_of_several_processes_is_refused(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model, batch = built("mlp")
        parallel = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
        exact(parallel, batch, mean_loss, 4)
        mean_loss(model, batch).backward()
        assert difference(parallel.module, model) < 1e-12
        parallel.process_group = SimpleNamespace(size=lambda: 2)
        for one in (parallel, torch.compile(parallel, backend="eager")):
            with pytest.raises(InputError, match=r"give model\.module"):
                exact(one, batch, mean_loss, 4)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "around", [torch.no_grad(), torch.device("meta")], ids=["no_grad", "meta"]
)
def test_what_is_set_around_does_not_matter(around):
    model, batch = built("mlp")
    whole = copy.deepcopy(model)
    mean_loss(whole, batch).backward()
    with around:
        exact(model, batch, mean_loss, 4)
        check(model, batch, mean_loss, micro_batch_sizes=4, partitions=2)
    assert difference(model, whole) < 1e-12


def test_flow_that_depends_on_data_is_refused():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.norm(x) if x[0, 0] > 2 else x)

    batch = built("mlp")[1]
    assert "a different number of times" in refused(Choosing().double(), batch)


def test_bad_models_are_refused():
    model, batch = built("mlp")
    one = nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4))
    assert "lazy layers" in refused(one, batch)
    assert "torch.nn.Module" in refused("resnet", batch)
    assert "SyncBatchNorm" in refused(
        nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)), batch
    )
    assert "requires_grad" in refused(copy.deepcopy(model).requires_grad_(False), batch)
    assert "on the meta device" in refused(copy.deepcopy(model).to("meta"), batch)
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    with pytest.raises(InputError, match="not finite"):
        exact(model, batch, mean_loss, 4)


def test_bad_batches_are_refused():
    model, (x, y) = built("mlp")
    assert "no tensor" in refused(model, "file.csv")
    assert "samples on axis 0" in refused(model, (x, y[:-1]))
    assert "NaN" in refused(model, (x.index_fill(0, torch.tensor(2), math.nan), y))
    assert "shapes are (0, 6), (0,)" in refused(model, (x[:0], y[:0]))
    assert "one value per channel" in refused(model, (x[:1], y[:1]))


def test_bad_losses_are_refused():
    model, batch = built("mlp")
    other = copy.deepcopy(model)
    assert "function of the model" in refused(model, batch, nn.MSELoss())
    assert "one number" in refused(model, batch, lambda m, b: m(b[0]))
    assert "one number" in refused(model, batch, lambda m, b: m(b[0]).sum().item())
    assert "the model it is given" in refused(
        model, batch, lambda _, b: mean_loss(other, b)
    )


@pytest.mark.parametrize("size", [0, -1, 2.0, "4", True, None])
def test_bad_sizes_are_refused(size):
    assert "whole number" in refused(*built("mlp"), size=size)


# -- what accumulation costs -------------------------------------------------------------


def test_the_cost_grows_as_micro_batches_shrink_and_is_systematic():
    model, batch = built("mlp", 64)
    cost = check(model, batch, mean_loss, micro_batch_sizes=[8, 32], partitions=40)
    errors = [at.error for at in cost.sizes]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0.01
    assert all(at.is_systematic for at in cost.sizes)
    assert all(at.systematic < at.error for at in cost.sizes)
    assert not cost.ok


@pytest.mark.parametrize("norm", [nn.LayerNorm, lambda c: nn.GroupNorm(1, c)])
def test_without_batchnorm_it_costs_nothing(norm):
    torch.manual_seed(0)
    model = mlp(norm, dropout=0.5).double()
    cost = check(model, built("mlp")[1], mean_loss, partitions=3)
    assert [at.micro_batch_size for at in cost.sizes] == [2, 4, 8, 16]
    assert max(at.error for at in cost.sizes) < 1e-13
    assert cost.ok


def test_frozen_batchnorm_costs_nothing():
    model, batch = built("mlp")
    for module in model:
        module.train(not isinstance(module, nn.BatchNorm1d))
    assert (
        max(a.error for a in check(model, batch, mean_loss, partitions=2).sizes) < 1e-13
    )


def test_the_errors_are_those_of_partitions_run_by_hand():
    model, (x, y) = built("mlp", 16)
    (at,) = check(model, (x, y), mean_loss, micro_batch_sizes=[8], partitions=5).sizes

    def gradient(rows):
        loss = mean_loss(model, (x[rows], y[rows]))
        found = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([values.flatten() for values in found])

    whole = gradient(torch.arange(16))
    generator = torch.Generator().manual_seed(8)
    off = []
    for _ in range(5):
        order = torch.randperm(16, generator=generator)
        off.append((gradient(order[:8]) + gradient(order[8:])) / 2 - whole)
    off = torch.stack(off) / whole.norm()
    assert at.error == pytest.approx(float(off.norm(dim=1).mean()), rel=1e-9)
    assert at.systematic == pytest.approx(float(off.mean(0).norm()), rel=1e-9)
    error = float((off.var(0).sum() / 5).sqrt())
    assert at.standard_error == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize("name", ["residual", "twice"])
def test_checking_leaves_no_trace(name):
    model, batch = built(name)
    mean_loss(model, batch).backward()
    slots = slots_of(model)
    before = copy.deepcopy(model.state_dict())
    held = copy.deepcopy(gradients(model))
    state = torch.get_rng_state()
    check(model, batch, mean_loss, micro_batch_sizes=[2, 11], partitions=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[name], v) for name, v in before.items())
    assert all(torch.equal(gradients(model)[name], v) for name, v in held.items())
    assert slots_of(model) == slots


def slots_of(model):
    """Which tensor hangs where, under every name."""
    named = [*model.named_parameters(remove_duplicate=False)]
    named += model.named_buffers(remove_duplicate=False)
    return {name: id(value) for name, value in named}


def test_a_norm_under_two_names_is_left_alone_by_the_exact_gradient():
    model, batch = built("twice")
    slots = slots_of(model)
    exact(model, batch, mean_loss, 4)
    assert slots_of(model) == slots
    assert int(model[1].num_batches_tracked) == 2  # the norm is called twice


def test_a_buffer_that_a_model_makes_while_it_runs_is_taken_away_again():
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", None)

        def forward(self, x):
            self.last = x.detach()
            return x

    model, batch = built("mlp")
    model.append(Remembering())
    check(model, batch, mean_loss, micro_batch_sizes=[11], partitions=2)
    assert model[-1].last is None


def test_a_cost_reads_well():
    cost = Cost(64, 200, (CostAt(2, 3.2, 0.73, 0.25), CostAt(32, 0.15, 0.01, 0.01)))
    first, header, one, other = str(cost).splitlines()
    assert "64 samples, 200 random partitions" in first
    assert header.split()[0] == "micro-batch"
    assert one.split() == ["2", "3.2", "0.73", "0.2", "systematic"]
    assert other.split() == ["32", "0.15", "0.01", "0.01"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"micro_batch_sizes": [1]}, "one value per channel"),
        ({"micro_batch_sizes": 2}, r"No micro-batches of \[2\] .* with 5 samples"),
        ({"micro_batch_sizes": [64]}, "larger than the batch"),
        ({"micro_batch_sizes": []}, "Give other sizes"),
        ({"micro_batch_sizes": 2.5}, "whole number of samples"),
        ({"partitions": 2.5}, "whole number from 2 on"),
        ({"partitions": 1}, "from 2 on"),
        ({"reduction": "max"}, "'mean' or 'sum'"),
        ({"reduction": "sum"}, "give reduction='mean'"),
    ],
)
def test_bad_options_of_check_are_refused(options, words):
    model, batch = built("mlp", 5)
    with pytest.raises(InputError, match=words):
        check(model, batch, mean_loss, **options)


def test_check_refuses_evaluation_mode_and_zero_gradients():
    model, batch = built("mlp")
    with pytest.raises(InputError, match=r"model\.train\(\)"):
        check(model.eval(), batch, mean_loss)
    with pytest.raises(InputError, match="gradient of the whole batch is zero"):
        check(model.train(), batch, lambda m, b: 0 * mean_loss(m, b))
    with pytest.raises(InputError, match="or more samples"):
        check(model, (batch[0][:2], batch[1][:2]), mean_loss)
