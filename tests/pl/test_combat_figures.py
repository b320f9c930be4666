"""Figures of ComBat's estimates: what is drawn are the numbers of the correction."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

import batchcorr as bc
from batchcorr.errors import InputError, MissingKeyError

from .conftest import study


def fitted(batches=3, **parameters):
    adata = study(n=30 * batches, batches=batches, features=300)
    return bc.fit(adata, "batch", **parameters)


def test_priors_are_the_densities_of_the_fitted_parameters():
    correction = fitted()
    axes = bc.pl.priors(correction)
    details = correction.details_
    assert axes.shape == (1, 2)
    lines = [[line for line in ax.lines if len(line.get_xdata()) > 2] for ax in axes[0]]
    for b in range(3):
        normal = stats.norm(details["gamma_bar"][b], details["t2"][b] ** 0.5)
        inverse = stats.invgamma(details["a_prior"][b], scale=details["b_prior"][b])
        for line, density in zip(
            (lines[0][b], lines[1][b]), (normal, inverse), strict=True
        ):
            x, height = line.get_data()
            height = height + b  # each batch has a row of its own
            assert 0.5 < height.max() <= 0.9 + 1e-9
            np.testing.assert_allclose(
                height / height.max(), density.pdf(x) / density.pdf(x).max(), atol=1e-9
            )


def test_bars_are_the_estimates():
    correction = fitted()
    ax = bc.pl.priors(correction)[0, 0]
    for b, bars in enumerate(ax.patches):
        data = bars.get_data()
        gamma = correction.details_["gamma_hat"][b]
        counts, _ = np.histogram(gamma, data.edges)
        heights = data.values + b
        np.testing.assert_allclose(
            heights / heights.sum(), counts / counts.sum(), atol=1e-9
        )


@pytest.mark.parametrize("figure", ["priors", "shrinkage"])
def test_forty_batches_have_a_row_or_a_colour_each(figure):
    correction = fitted(batches=40)
    axes = getattr(bc.pl, figure)(correction)
    if figure == "priors":
        names = [label.get_text() for label in axes[0, 0].get_yticklabels()]
        assert axes[0, 0].figure.get_size_inches()[1] < 11
    else:
        names = [text.get_text() for text in axes[0, 1].get_legend().get_texts()]
    assert names == [f"run {k:02d}" for k in range(40)]


def test_names_of_batches_are_left_out_where_they_would_cover_each_other():
    _, two = plt.subplots(2, 1, figsize=(3.3, 5))
    axes = bc.pl.priors(fitted(batches=40), ax=two)
    names = [label.get_text() for label in axes[0, 0].get_yticklabels()]
    assert 5 < len(names) < 25
    assert names[:2] == ["run 00", f"run {39 // len(names) + 1:02d}"]


def test_shrinkage_draws_estimates_against_what_they_became():
    correction = fitted()
    details = correction.details_
    axes = bc.pl.shrinkage(correction)
    for ax, name in zip(axes[0], ("gamma", "delta"), strict=True):
        (cloud,) = ax.collections
        points = np.asarray(cloud.get_offsets())
        wanted = np.stack(
            [details[f"{name}_hat"].ravel(), details[f"{name}_star"].ravel()], axis=1
        )
        np.testing.assert_allclose(
            points[np.lexsort(points.T)], wanted[np.lexsort(wanted.T)]
        )
        assert cloud.get_rasterized()
    assert axes[0, 1].get_xscale() == "log"


def test_many_points_are_thinned(monkeypatch):
    monkeypatch.setattr("batchcorr.pl._shrinkage.MOST", 200)
    axes = bc.pl.shrinkage(fitted())
    assert 100 < len(axes[0, 0].collections[0].get_offsets()) <= 200


def test_a_reference_has_no_effects_and_locations_alone_have_one_panel():
    correction = fitted(reference="run 01", mean_only=True)
    axes = bc.pl.priors(correction)
    assert axes.shape == (1, 1)
    names = [label.get_text() for label in axes[0, 0].get_yticklabels()]
    assert names == ["run 00", "run 02"]
    _, ax = plt.subplots()
    assert bc.pl.shrinkage(correction, ax=ax)[0, 0] is ax


def test_batches_are_picked_by_name():
    axes = bc.pl.priors(fitted(), batches=["run 02"])
    assert [label.get_text() for label in axes[0, 0].get_yticklabels()] == ["run 02"]
    with pytest.raises(MissingKeyError, match="no batch 'run 9'"):
        bc.pl.shrinkage(fitted(), batches=["run 9"])
    with pytest.raises(MissingKeyError, match="no batch '3'"):
        bc.pl.priors(fitted(), batches=3)
    with pytest.raises(InputError, match="a reference batch has none"):
        bc.pl.priors(fitted(reference="run 00"), batches="run 00")


def test_a_saved_correction_is_drawn_as_well(tmp_path):
    correction = fitted()
    correction.save(tmp_path / "c.npz")
    axes = bc.pl.priors(bc.load(tmp_path / "c.npz"))
    assert len(axes[0, 0].patches) == 3


@pytest.mark.parametrize("figure", ["priors", "shrinkage"])
def test_only_combat_has_priors(figure):
    with pytest.raises(InputError, match="not a Standardize"):
        getattr(bc.pl, figure)(fitted(method="standardize"))


@pytest.mark.parametrize("figure", ["priors", "shrinkage"])
def test_without_shrinkage_there_are_no_priors(figure):
    with pytest.raises(InputError, match="shrink=False"):
        getattr(bc.pl, figure)(fitted(shrink=False))
