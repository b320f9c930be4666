"""The gradient of the whole batch from micro-batches, and what plain accumulation costs."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from batchcorr.bridge.accumulate import Cost, CostAt, check, exact
from batchcorr.bridge.nn import ComBatNorm1d, DomainBatchNorm1d, domains
from batchcorr.errors import InputError

torch.set_num_threads(1)


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def mean_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def sum_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


class Residual(nn.Module):
    """A stem and a block that is used twice: its two norms make four sites of five."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(5, affine=False)
        self.first = nn.Conv2d(5, 5, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(5, momentum=None)
        self.second = nn.Conv2d(5, 5, 1)
        self.second_norm = nn.BatchNorm2d(5, momentum=0.3)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = F.relu(self.stem_norm(self.stem(x)))
        for _ in range(2):
            branch = F.relu(self.first_norm(self.first(x)))
            x = F.relu(x + self.second_norm(self.second(branch)))
        return self.head(x.view(*x.shape[:2], -1).mean(2))


def mlp(norm=nn.BatchNorm1d, dropout=0.0):
    return nn.Sequential(
        nn.Linear(6, 9),
        norm(9),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(9, 8),
        norm(8),
        nn.Tanh(),
        nn.Linear(8, 8),
        norm(8),
        nn.Linear(8, 4),
    )


def sequence():
    return nn.Sequential(
        nn.Conv1d(3, 4, 3),
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.ReLU(inplace=True),
        nn.Conv1d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm1d(4),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def separate():
    """Two branches whose norms do not depend on each other, and one not used at all."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
            self.idle = nn.BatchNorm1d(6)
            self.head = nn.Linear(12, 4)

        def forward(self, x):
            self.idle(x * 2).view(-1)  # laid out as torch does
            return self.head(torch.cat([self.one(x).relu(), self.other(x**2)], 1))

    return Branches()


def twice():
    """A norm and a block under two names each, and weights tied across modules."""
    norm = nn.BatchNorm1d(8)
    block = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
    first, tied = nn.Linear(8, 8), nn.Linear(8, 8)
    tied.weight = first.weight
    return nn.Sequential(
        nn.Linear(6, 8),
        norm,
        nn.ReLU(),
        first,
        norm,
        block,
        tied,
        block,
        nn.Linear(8, 4),
    )


MODELS = {
    "mlp": (mlp, (6,)),
    "twice": (twice, (6,)),
    "residual": (Residual, (3, 4, 4)),
    "sequence": (sequence, (3, 6)),
    "branches": (separate, (6,)),
    "without": (lambda: mlp(nn.LayerNorm), (6,)),
}
N = 22


def built(name, n=N):
    torch.manual_seed(3)
    make, shape = MODELS[name]
    model = make().double()
    with torch.no_grad():
        for value in model.parameters():  # γ and β at no special point
            value.add_(0.2 * torch.randn_like(value))
    x = 2 + draw(n, *shape)
    return model, (x, torch.arange(n) % 4)


def gradients(model):
    return {name: value.grad for name, value in model.named_parameters()}


def difference(model, other):
    """The relative difference of two models' gradients, as one vector."""
    mine, theirs = gradients(model), gradients(other)
    assert {n for n, g in mine.items() if g is None} == {
        n for n, g in theirs.items() if g is None
    }
    pairs = [(mine[n], theirs[n]) for n in mine if mine[n] is not None]
    off = sum(float((a - b).square().sum()) for a, b in pairs)
    return math.sqrt(off / sum(float(b.square().sum()) for _, b in pairs))


def assert_same_buffers(model, other, tolerance=1e-13):
    for (name, mine), theirs in zip(
        model.named_buffers(), other.buffers(), strict=True
    ):
        torch.testing.assert_close(
            mine, theirs, rtol=tolerance, atol=tolerance, msg=name
        )


# -- the exact gradient ------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 4, 100])
@pytest.mark.parametrize("name", MODELS)
def test_gradient_loss_and_statistics_are_the_whole_batch_s(name, size):
    model, batch = built(name)
    whole = copy.deepcopy(model)
    expected = mean_loss(whole, batch)
    expected.backward()
    value = exact(model, batch, mean_loss, size)
    assert difference(model, whole) < 1e-12
    assert float(value) == pytest.approx(expected.item(), rel=1e-13)
    assert not value.requires_grad
    assert_same_buffers(model, whole)


def test_single_samples_are_enough():
    model, batch = built("twice")
    whole = copy.deepcopy(model)
    mean_loss(whole, batch).backward()
    exact(model, batch, mean_loss, 1)
    assert difference(model, whole) < 1e-12


def test_plain_accumulation_is_far_off():
    # else the test above would show nothing
    model, batch = built("mlp")
    whole = copy.deepcopy(model)
    mean_loss(whole, batch).backward()
    for rows in torch.arange(N).tensor_split(2):
        (mean_loss(model, (batch[0][rows], batch[1][rows])) / 2).backward()
    assert difference(model, whole) > 0.05


def test_a_sum_over_samples():
    model, batch = built("mlp")
    whole = copy.deepcopy(model)
    sum_loss(whole, batch).backward()
    exact(model, batch, sum_loss, 5, reduction="sum")
    assert difference(model, whole) < 1e-12


def test_gradients_are_added_as_backward_adds_them():
    model, batch = built("mlp")
    mean_loss(model, batch).backward()
    held = model[0].weight.grad
    once = held.clone()
    exact(model, batch, mean_loss, 4)
    assert model[0].weight.grad is held
    torch.testing.assert_close(held, 2 * once, rtol=1e-10, atol=1e-14)


def test_several_steps_train_alike():
    model, batch = built("residual")
    whole = copy.deepcopy(model)
    for _ in range(2):
        for one in (model, whole):
            optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
            optimizer.zero_grad()
            if one is model:
                exact(one, batch, mean_loss, 4)
            else:
                mean_loss(one, batch).backward()
            optimizer.step()
    for mine, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    assert_same_buffers(model, whole, 1e-10)


def test_frozen_norms_and_frozen_parameters_stay_so():
    model, batch = built("mlp")
    model[1].eval()
    model[4].requires_grad_(False)
    whole = copy.deepcopy(model)
    mean_loss(whole, batch).backward()
    exact(model, batch, mean_loss, 4)
    assert difference(model, whole) < 1e-12
    assert_same_buffers(model, whole)
    assert int(model[1].num_batches_tracked) == 0


def test_float32_to_its_rounding():
    model, (x, y) = built("residual")
    model, x = model.float(), x.float()
    whole = copy.deepcopy(model)
    mean_loss(whole, (x, y)).backward()
    exact(model, (x, y), mean_loss, 4)
    assert difference(model, whole) < 1e-5
    assert model.stem.weight.grad.dtype == torch.float32


def test_any_nesting_of_tensors():
    model, (x, y) = built("mlp")
    whole = copy.deepcopy(model)

    def loss(model, batch):
        logits = model(batch["inputs"][0]) / batch["temperature"]
        return F.cross_entropy(logits, batch["label"])

    batch = {"inputs": [x], "label": y, "temperature": 2.0, "scale": torch.tensor(1.0)}
    loss(whole, batch).backward()
    exact(model, batch, loss, 4)
    assert difference(model, whole) < 1e-12


# -- memory ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4])
def test_no_activation_has_more_rows_than_a_micro_batch(size):
    model, batch = built("mlp")
    seen, kept = set(), set()
    for module in model.modules():
        module.register_forward_hook(lambda _m, _i, out: seen.add(len(out)))
    parameters = {value.data_ptr() for value in model.parameters()}

    def keep(tensor):
        if tensor.data_ptr() not in parameters:
            kept.add(tensor.shape[0] if tensor.ndim else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        exact(model, batch, mean_loss, size)
    # Pairs of samples are what tells a mean from a sum; these keep nothing.
    assert max(seen) == max(size, 2)
    # What autograd keeps: a micro-batch; and, (micro-batches, channels), their moments.
    assert kept <= {0, 1, size, -(-N // size)} | {N % size, *channels(model)}
    assert N not in kept or size == 1


def channels(model):
    """Sizes of vectors and of transposed weights that autograd may keep beside."""
    return {size for value in model.parameters() for size in value.shape}


# -- random layers -----------------------------------------------------------------


def test_one_micro_batch_draws_what_the_whole_draws():
    model, batch = mlp(dropout=0.4).double(), built("mlp")[1]
    whole = copy.deepcopy(model)
    torch.manual_seed(11)
    mean_loss(whole, batch).backward()
    end = torch.get_rng_state()
    torch.manual_seed(11)
    exact(model, batch, mean_loss, N)
    assert difference(model, whole) < 1e-12
    assert torch.equal(torch.get_rng_state(), end)


class Masked(nn.Module):
    """Dropout by masks that are given, in the order of the micro-batches."""

    def __init__(self, inner, masks):
        super().__init__()
        self.inner, self.masks = inner, masks

    def forward(self, x):
        for layer in self.inner:
            x = x * self.masks if isinstance(layer, nn.Dropout) else layer(x)
        return x


def test_micro_batches_draw_the_same_masks_in_every_pass():
    model, batch = mlp(dropout=0.4).double(), built("mlp")[1]
    whole = copy.deepcopy(model)
    torch.manual_seed(5)
    masks = torch.cat(
        [
            F.dropout(torch.ones(len(p), 9).double(), 0.4)
            for p in torch.arange(N).split(4)
        ]
    )
    end = torch.get_rng_state()
    mean_loss(Masked(whole, masks), batch).backward()
    torch.manual_seed(5)
    exact(model, batch, mean_loss, 4)
    assert difference(model, whole) < 1e-12
    assert torch.equal(torch.get_rng_state(), end)


class StochasticDepth(nn.Module):
    """Drops a branch of a sample by a Bernoulli draw of its own."""

    def __init__(self, draws):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 4)
        self.draws = draws

    def forward(self, x):
        return self.head(x + self.draws(len(x)).to(x) * self.branch(x))


@pytest.mark.parametrize(
    "draws",
    [
        lambda n: torch.empty(n, 1).bernoulli_(0.7),
        lambda n: (0.7 + torch.rand(n, 1)).floor(),
        lambda n: torch.bernoulli(torch.full((n, 1), 0.7)),
        lambda n: torch.randn(n, 1),
    ],
    ids=["bernoulli_", "rand", "bernoulli", "randn"],
)
def test_other_draws_are_repeated_too(draws):
    model, batch = StochasticDepth(draws).double(), built("mlp")[1]
    torch.manual_seed(2)
    whole = copy.deepcopy(model)
    drawn = torch.cat([draws(len(part)) for part in torch.arange(N).split(4)])
    whole.draws = lambda n: drawn[:n]
    mean_loss(whole, batch).backward()
    torch.manual_seed(2)
    exact(model, batch, mean_loss, 4)
    assert difference(model, whole) < 1e-12


# -- what is refused, and leaves no trace ------------------------------------------


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


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("place", [0, 3, 7])
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
    assert "activations are not finite" in refused(model, batch)


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


def test_flow_that_depends_on_data_is_refused():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.norm(x) if x[0, 0] > 2 else x)

    batch = built("mlp")[1]
    assert "different number of times, 0 or 1" in refused(Choosing().double(), batch)


def test_bad_models_are_refused():
    model, batch = built("mlp")
    x, y = batch
    one = nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4))
    assert "lazy layers" in refused(one, batch)
    assert "torch.nn.Module" in refused("resnet", batch)
    assert "SyncBatchNorm" in refused(
        nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)), batch
    )
    assert "requires_grad" in refused(copy.deepcopy(model).requires_grad_(False), batch)
    assert "on meta and the data" in refused(copy.deepcopy(model).to("meta"), batch)
    assert "meta device" in refused(
        copy.deepcopy(model).to("meta"), (x.to("meta"), y.to("meta"))
    )
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    with pytest.raises(InputError, match="not finite"):
        exact(model, batch, mean_loss, 4)


def test_bad_batches_are_refused():
    model, (x, y) = built("mlp")
    assert "no tensor" in refused(model, "file.csv")
    assert "samples on axis 0" in refused(model, (x, y[:-1]))
    assert "NaN" in refused(model, (x.index_fill(0, torch.tensor(2), math.nan), y))
    assert "no sample" in refused(model, (x[:0], y[:0]))
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


# -- what accumulation costs -------------------------------------------------------


def test_the_cost_grows_as_micro_batches_shrink_and_is_systematic():
    model, batch = built("mlp", 64)
    cost = check(model, batch, mean_loss, micro_batch_sizes=[8, 16, 32], partitions=40)
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


def test_names_do_not_matter_to_the_cost():
    class Once(nn.Module):
        """The same computation, every module under one name."""

        def __init__(self, layers):
            super().__init__()
            names = {layer: f"layer_{k}" for k, layer in enumerate(layers)}
            for layer, name in names.items():
                self.add_module(name, layer)
            self.order = [names[layer] for layer in layers]

        def forward(self, x):
            for name in self.order:
                x = getattr(self, name)(x)
            return x

    model, batch = built("twice")
    costs = [
        check(one, batch, mean_loss, micro_batch_sizes=[4], partitions=3).sizes[0]
        for one in (model, Once(model))
    ]
    assert costs[0].error == pytest.approx(costs[1].error, rel=1e-9)


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
        ({"micro_batch_sizes": [2]}, "one value per channel"),
        ({"micro_batch_sizes": [64]}, "larger than the batch"),
        ({"micro_batch_sizes": []}, "list of whole numbers"),
        ({"micro_batch_sizes": 4}, "list of whole numbers"),
        ({"micro_batch_sizes": [2.5]}, "whole number of samples"),
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
    with pytest.raises(InputError, match="too small"):
        check(model, (batch[0][:2], batch[1][:2]), mean_loss)
