"""The exact gradient of a batch, in the memory of a micro-batch."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from batchcorr.bridge.accumulate import check, exact
from tests.bridge.accumulate_models import (
    MODELS,
    N,
    assert_same_buffers,
    built,
    difference,
    mean_loss,
    mlp,
    sum_loss,
)

# -- the exact gradient ------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 100])
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
    model, batch = built("twice", 8)
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
    exact(model, batch, loss, np.int64(4))
    assert difference(model, whole) < 1e-12


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    x: torch.Tensor
    y: torch.Tensor


def test_a_dataclass_is_taken_apart_like_a_tuple():
    model, batch = built("mlp")

    def loss(model, batch):
        return mean_loss(model, (batch.x, batch.y))

    sizes = {"micro_batch_sizes": np.array([4]), "partitions": 2}
    cost = check(model, Labelled(*batch), loss, **sizes)
    assert cost == check(model, batch, mean_loss, **sizes)
    assert not cost.ok


# -- memory ------------------------------------------------------------------------------


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


def test_statistics_are_looked_for_no_further_than_their_norm():
    """But whoever watches by hooks sees the end of every call."""
    model, (x, y) = built("mlp")
    calls = []

    class Counting(nn.Identity):
        def forward(self, x):
            calls.append(len(x))
            return x

    model.append(Counting())
    exact(model, (x, y), mean_loss, N // 2)
    few = len(calls)
    depth = []
    model.register_forward_pre_hook(lambda *_: depth.append(1))
    model.register_forward_hook(lambda *_: depth.clear())
    exact(model, (x, y), mean_loss, N // 2)
    assert depth == []
    # Two passes of three for statistics, of two parts each, do not stop; and without
    # hooks there was one part more.
    assert len(calls) - few == few + 2 * 2 - 1


def test_what_a_model_collects_and_clears_at_its_end_is_that_of_one_pass():
    model, batch = built("mlp")
    collected = []

    class Collecting(nn.Identity):
        def forward(self, x):
            collected.append(x.square().mean())
            return x

    def loss(model, batch):
        value = mean_loss(model, batch) + sum(collected)
        collected.clear()
        return value

    model.insert(1, Collecting())
    whole = copy.deepcopy(model)
    loss(whole, batch).backward()
    exact(model, batch, loss, 4)
    assert difference(model, whole) < 1e-12


def channels(model):
    """Sizes of vectors and of transposed weights that autograd may keep beside."""
    return {size for value in model.parameters() for size in value.shape}


# -- random layers -----------------------------------------------------------------------


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
