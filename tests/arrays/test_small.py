"""A small matrix is read by NumPy alone, with the sums and values of the kernels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import batchcorr as bc
from batchcorr.arrays import numpy_passes
from batchcorr.arrays.passes import apply, moments
from batchcorr.design.design import Design
from batchcorr.models.location_scale import LocationScale

RNG = np.random.default_rng(0)
CODES = np.array([2, 0] * 9 + [0, 2, 2])  # no row of batch 1
SLOPES = RNG.normal(40, 9, (21, 2))
CELLS = RNG.integers(0, 2, (21, 1)).astype(float)


def values(dtype="float64", order="C"):
    x = RNG.normal(8, 2, (21, 7)).astype(dtype, order=order)
    x[CODES == 2, 3] = 0.1  # constant in a batch, and no binary fraction
    return x


@pytest.fixture(params=["none", "cells", "slopes", "both"])
def design(request):
    columns = {
        "none": None,
        "cells": CELLS,
        "slopes": SLOPES,
        "both": np.hstack([CELLS, SLOPES]),
    }[request.param]
    return Design.of(CODES, 3, columns)


def in_both_ways(monkeypatch, work):
    """What kernels give, and what NumPy gives."""
    found = []
    for small in (0, 2**16):
        monkeypatch.setattr(numpy_passes, "SMALL", small)
        found.append(work())
    return found


@pytest.mark.parametrize("kind", ["whole", "missing", "weights", "weight of each row"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums(monkeypatch, design, dtype, kind):
    x, weights = values(dtype), None
    if kind == "missing":
        x[RNG.random(x.shape) < 0.1] = np.nan
    elif kind != "whole":
        shape = x.shape if kind == "weights" else len(x)
        weights = RNG.integers(0, 3, shape).astype(float)
    kernels, small = in_both_ways(
        monkeypatch, lambda: moments(x, design, weights=weights)
    )
    for name in ("rows", "n", "mean", "squares", "columns", "cross", "gram"):
        one, other = getattr(kernels, name), getattr(small, name)
        assert_allclose(other, one, rtol=1e-12, atol=1e-10, err_msg=name)
    assert_array_equal(small.squares == 0, kernels.squares == 0)
    assert small.squares[2, 3] == 0 if kind == "whole" else True


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(monkeypatch, design, dtype, order):
    x, p = values(dtype, order), design.columns.shape[1]
    correction = LocationScale(
        RNG.uniform(0.5, 2, (3, 7)),
        RNG.normal(size=(3, 7)),
        RNG.normal(size=(p, 7)),
        np.empty((0, 7)),
    )
    kernels, small = in_both_ways(monkeypatch, lambda: apply(x, design, correction))
    assert small.dtype == kernels.dtype == x.dtype
    assert_allclose(small, kernels, rtol=1e-6 if dtype == "float32" else 1e-13)
    changed = x.copy(order)
    assert apply(changed, design, correction, out=changed) is changed
    assert_array_equal(changed, small)


def test_a_correction(monkeypatch):
    x, batch = values(), np.array(["a", "b", "c"])[CODES]
    whole = in_both_ways(
        monkeypatch, lambda: bc.ComBat().fit_transform(x, batch=batch, covariates=CELLS)
    )
    assert_allclose(whole[1], whole[0], rtol=1e-12)


def test_infinite_values_are_found(monkeypatch):
    x = values()
    x[3, 4] = np.inf
    monkeypatch.setattr(numpy_passes, "SMALL", 2**16)
    with pytest.raises(bc.errors.InputError, match="infinite"):
        moments(x, Design.of(CODES, 3))


def test_numba_is_not_loaded_for_it():
    code = """
import sys, numpy, batchcorr as bc
x = numpy.random.default_rng(0).normal(size=(24, 60))
bc.ComBat().fit_transform(x, batch=["a", "b"] * 12)
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_column_that_varies_where_values_are_missing_alone_leaves_no_rounding():
    """Else features that their covariates cannot be told from batch for are corrected."""
    codes = np.repeat([0, 1], 13).astype(np.int32)
    z = np.outer(1 + codes, np.linspace(0.1, 0.9, 9))
    z[12] = RNG.normal(size=9)
    x = RNG.normal(size=(26, 2))
    x[12, 0] = np.nan
    read = moments(x, Design.of(codes, 2, z))
    assert np.abs(read.gram[..., 0]).max() < 1e-28
    assert (np.diagonal(read.gram[0, ..., 1]) > 0).all()
