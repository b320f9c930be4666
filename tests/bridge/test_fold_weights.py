"""The algebra of folding is associative, and agrees with running the layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from batchcorr.arrays.generic import tensor_affine
from batchcorr.bridge._fold.weights import (
    chain,
    layer_weights,
    one_map,
)
from batchcorr.bridge._norms import correction_of
from tests.bridge.fold_cases import sample, trained


def a_map(channels, seed):
    return one_map(sample(channels, seed=seed), sample(channels, seed=seed + 100))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_a_chain_is_one_after_the_other(channels, seed):
    a, b, c = (a_map(channels, seed + k) for k in range(3))
    x = sample(7, channels, seed=seed)
    stepwise = tensor_affine(tensor_affine(x, a), b)
    torch.testing.assert_close(
        tensor_affine(x, chain(a, b)), stepwise, rtol=0, atol=1e-12
    )
    left, right = chain(chain(a, b), c), chain(a, chain(b, c))
    torch.testing.assert_close(left.scale, right.scale, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(left.shift, right.shift, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_the_inverse_undoes_it_in_a_layer(channels, seed):
    a = one_map(sample(channels, seed=seed).exp(), sample(channels, seed=seed + 1))
    weight, bias = sample(channels, 3, seed=seed), sample(channels, seed=seed)
    once = layer_weights(weight, bias, None, a)
    again = layer_weights(*once, None, a.inverse())
    torch.testing.assert_close(again[0], weight, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(again[1], bias, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_between_two_corrections(groups, transposed, bias):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    kernel = 1 if transposed else 3
    layer = trained(kind(4, 8, kernel, groups=groups, bias=bias))
    before, after = a_map(4, 1), a_map(8, 2)
    weight, constant = layer_weights(
        layer.weight, layer.bias, before, after, groups=groups, transposed=transposed
    )
    run = functional.conv_transpose2d if transposed else functional.conv2d
    x = sample(2, 4, 5, 5)
    with torch.no_grad():
        inner = layer(on_images(x, before))
        expected = on_images(inner, after)
        found = run(x, weight, constant, groups=groups)
    assert weight.dtype == constant.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def on_images(x, correction):
    scale, shift = (v[0][:, None, None] for v in (correction.scale, correction.shift))
    return scale * x + shift


def test_float32_weights_are_composed_in_float64():
    """Weights are rounded once: each is the float32 next to the exact one."""
    layer = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    layer = trained(layer).float()
    double = [correction_of(norm) for norm in layer[1:]]
    exact, _ = layer_weights(
        layer[0].weight.double(), layer[0].bias.double(), None, chain(*double)
    )
    found, _ = layer_weights(layer[0].weight, layer[0].bias, None, chain(*double))
    assert torch.equal(found, exact)
