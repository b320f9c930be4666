"""A profile: what it measures, and that it survives its file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from batchcorr.bridge import Profile, profile, recalibrate
from batchcorr.errors import FileError
from tests.bridge.recalibrate_models import (
    assert_same,
    assert_untouched,
    images,
    network,
    state_of,
    statistics,
)

# -- the profile -------------------------------------------------------------------------


def test_profile_measures_the_source_and_leaves_the_model_alone():
    model, x = network().train(), images(100)
    before, random = state_of(model), torch.get_rng_state()
    known = profile(model, [x[:40], x[40:]])
    assert_untouched(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert repr(profile(model, iter([x]))) == repr(known)
    model.eval()
    recalibrate(model, [x], "adabn")
    for layer, (mean, variance) in zip(
        known.layers.values(), statistics(model), strict=True
    ):
        assert_allclose(layer.mean, mean, atol=1e-6)  # each sample's are in float32
        assert_allclose(layer.variance, variance, rtol=1e-6)


def test_a_deep_network_far_from_its_statistics_is_measured_layer_by_layer():
    """Each layer makes values 5 times smaller: set at once, 40 would make them 1e28."""
    layers = []
    for _ in range(40):
        layers += [nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4, eps=0)]
        layers[-2].weight.data = 0.2 * torch.eye(4)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    first, *others = profile(nn.Sequential(*layers).eval(), [x]).layers.values()
    assert_allclose(first.mean, 0.2 * x.mean(0), atol=1e-6)
    assert_allclose(first.variance, 0.04 * x.var(0, correction=0), rtol=1e-5)
    for layer in others:
        assert_allclose(layer.mean, 0, atol=1e-4)
        assert_allclose(layer.variance, 0.04, rtol=2e-3)


def test_errors_of_supports_follow_the_theory_on_independent_rows():
    """N = 1/n, b = ψ(ν/2) - log(n/2), V = ψ'(ν/2), ν = n - 1, for normal values."""
    from scipy.special import polygamma, psi

    torch.manual_seed(1)
    model = nn.Sequential(nn.BatchNorm1d(200, affine=False)).double().eval()
    known = profile(model, [torch.randn(512, 200, dtype=torch.float64)])
    layer, sizes = known.layers["0"], known.sizes
    assert sizes.tolist() == [1, 2, 4, 8, 16, 32, 64]
    for s, n in enumerate(sizes[:5]):
        noise = layer.location_noise[s].mean()
        assert noise == pytest.approx(1 / n, rel=0.05)
        if n > 1:
            half = (n - 1) / 2
            bias = psi(half) - np.log(n / 2)
            assert layer.log_bias[s].mean() == pytest.approx(bias, abs=0.06)
            spread = layer.log_variance[s].mean()
            assert spread == pytest.approx(polygamma(1, half), rel=0.1)
    assert np.isnan(layer.log_bias[0]).all()
    assert layer.effective[0] == pytest.approx(200, rel=0.25)
    between = layer.null(sizes, 6, single=False)
    beyond = layer.null(sizes, 256, single=False)
    assert between.location_noise.mean() == pytest.approx(1 / 6, rel=0.05)
    last = layer.location_noise[-1]
    assert_allclose(beyond.location_noise, last * 64 / 256)


def test_positions_of_an_image_are_not_replicates():
    """An image of one value throughout tells as much as one position."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.BatchNorm2d(50, affine=False)).double().eval()
    flat = torch.randn(256, 50, 1, 1, dtype=torch.float64).expand(-1, -1, 4, 4)
    layer = profile(model, [flat]).layers["0"]
    assert layer.location_noise[0].mean() == pytest.approx(1, rel=0.1)


def test_a_profile_survives_its_file(tmp_path, trained):
    model, known = trained
    path = tmp_path / "model.profile.npz"
    known.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file["header"]))["layers"] == ["2", "7"]
    again = Profile.load(path)
    found = []
    for one in (known, again):
        with recalibrate(model, [images()], "eb_cov", profile=one):
            found.append(statistics(model))
    assert_same(found[0], found[1], rtol=0)


def test_files_that_are_no_profiles(tmp_path, trained):
    with pytest.raises(FileError, match="no file"):
        Profile.load(tmp_path / "none.npz")
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK not a zip")
    with pytest.raises(FileError, match="no profile"):
        Profile.load(path)
    np.savez(path, header=np.array(json.dumps({"schema": 1, "layers": []})))
    with pytest.raises(FileError, match="another version"):
        Profile.load(path)
    np.savez(path, header=np.array(json.dumps({"schema": 4, "layers": ["0"]})))
    with pytest.raises(FileError, match="no profile"):
        Profile.load(path)
    known = trained[1]
    layer = known.layers["2"]
    for damaged, message in (
        (replace(layer, mean=layer.mean[:-1]), "variance is float64 of shape"),
        (replace(layer, variance=layer.variance * np.nan), "variance holds missing"),
        (replace(layer, class_mean=layer.class_mean[:1]), "class_mean is float64 of"),
    ):
        replace(known, layers={**known.layers, "2": damaged}).save(path)
        with pytest.raises(FileError, match=f"no profile.* Cause: {message}"):
            Profile.load(path)
    with pytest.raises(FileError, match="folder"):
        known.save(tmp_path)
