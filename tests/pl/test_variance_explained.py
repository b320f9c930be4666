"""Shares of variance by feature: those whose means `metrics` gives."""

from __future__ import annotations

import numpy as np
import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, InputError, MissingKeyError


@pytest.fixture
def corrected(small):
    bc.pp.remove_batch_effect(small, "batch", covariates="group", key_added="after")
    return small


def test_each_feature_is_drawn_at_its_shares(corrected):
    axes = bc.pl.variance_explained(corrected, "batch", "after", covariates="group")
    before, after = (
        bc.metrics.variance_explained(
            corrected, "batch", covariates="group", layer=layer
        )
        for layer in (None, "after")
    )
    for ax, kind in zip(
        axes[0], ("batch_beyond_covariates", "covariates"), strict=True
    ):
        points = np.asarray(ax.collections[0].get_offsets())
        assert len(points) == corrected.n_vars
        means = getattr(before, kind), getattr(after, kind)
        np.testing.assert_allclose(points.mean(axis=0), means)
        written = " → ".join(f"{m:z.0%}" for m in means).replace("-", "−")
        assert ax.get_title(loc="left").endswith(written)
        assert ax.get_xlim() == ax.get_ylim()


def test_a_feature_s_share_is_that_of_its_own_regression(corrected):
    axes = bc.pl.variance_explained(corrected, "batch", "after")
    x = corrected.X[:, 3]
    batch = corrected.obs["batch"].cat.codes.to_numpy()
    within = sum(((x[batch == b] - x[batch == b].mean()) ** 2).sum() for b in (0, 1))
    share = 1 - (within / 58) / (((x - x.mean()) ** 2).sum() / 59)
    assert axes.shape == (1, 1)
    assert axes[0, 0].collections[0].get_offsets()[3, 0] == pytest.approx(share)


def test_features_that_do_not_vary_are_left_out(corrected):
    corrected.X[:, 0] = 1.0
    axes = bc.pl.variance_explained(corrected, "batch", "after")
    assert len(axes[0, 0].collections[0].get_offsets()) == corrected.n_vars - 1


def test_what_does_not_exist_is_named(corrected):
    with pytest.raises(MissingKeyError, match=r"no layer 'afetr'.*'after'"):
        bc.pl.variance_explained(corrected, "batch", "afetr")
    with pytest.raises(InputError, match="one column"):
        bc.pl.variance_explained(corrected, ["batch"], "after")
    corrected.obs["same"] = corrected.obs["batch"].astype(str)
    with pytest.raises(DesignError, match="same"):
        bc.pl.variance_explained(corrected, "batch", "after", covariates="same")
