"""Embeddings: every sample once, in the colour of its group, before beside after."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba

import batchcorr as bc
from batchcorr.errors import InputError, MissingKeyError, MissingPackageError
from batchcorr.pl._looks import MISSING, Groups, colours


def drawn(ax):
    """Points and colours of all that is drawn: (n, 2) and (n, 4)."""
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    each = [
        np.broadcast_to(c.get_facecolors(), (len(c.get_offsets()), 4))
        for c in ax.collections
    ]
    return np.asarray(points), np.concatenate(each)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_sample_is_drawn_once_in_the_colour_of_its_group(small):
    axes = bc.pl.embedding(small, ["pca", "after"], ["batch", "group"])
    assert axes.shape == (2, 2)
    for row, column in zip(axes, ("batch", "group"), strict=True):
        codes = pd.Categorical(small.obs[column]).codes
        for ax, key in zip(row, ("X_pca", "after"), strict=True):
            points, colour = drawn(ax)
            order = np.lexsort(points.T)
            wanted = small.obsm[key][:, :2]
            back = np.lexsort(wanted.T)
            np.testing.assert_array_equal(points[order], wanted[back])
            looks = np.array([to_rgba(c) for c in colours(2)])[codes]
            np.testing.assert_array_equal(colour[order], looks[back])
        assert legend(row[1]) == sorted(set(small.obs[column].astype(str)))
        assert row[0].get_legend() is None
    assert [ax.get_title() for ax in axes[0]] == ["pca", "after"]


def test_axes_name_components_and_their_share(small):
    small.uns["pca"] = {"variance_ratio": [0.5, 0.25, 0.1]}
    (ax,) = bc.pl.embedding(small, "pca", "batch", components=(1, 3)).flat
    assert ax.get_xlabel() == "PC 1 (50%)"
    assert ax.get_ylabel() == "PC 3 (10%)"


def test_forty_batches_have_forty_colours_and_a_whole_legend(many):
    axes = bc.pl.embedding(many, "pca", "batch")
    _, colour = drawn(axes[0, 0])
    assert len(np.unique(colour, axis=0)) == 40
    assert legend(axes[0, 0]) == [f"run {k:02d}" for k in range(40)]
    handles = axes[0, 0].get_legend().legend_handles
    assert len({to_hex(handle.get_color()) for handle in handles}) == 40
    assert all(c.get_rasterized() for c in axes[0, 0].collections)


def test_a_legend_that_does_not_fit_is_cut_and_says_so(many):
    _, ax = plt.subplots(figsize=(3.3, 2.2))
    bc.pl.embedding(many, "pca", "batch", ax=ax)
    names = legend(ax)
    assert names[0] == "run 00"
    assert names[-1] == f"… {40 - len(names) + 1} more"
    assert len(names) < 20


def test_points_of_one_hue_differ_in_shape_where_there_are_few(small):
    small.obs["batch"] = pd.Categorical([f"b{k % 20:02d}" for k in range(60)])
    (ax,) = bc.pl.embedding(small, "pca", "batch").flat
    assert len(ax.collections) == 3  # 20 groups of 7 hues
    handles = ax.get_legend().legend_handles
    looks = {(to_hex(h.get_color()), h.get_marker()) for h in handles}
    assert len(looks) == 20


def test_no_group_covers_the_others(small):
    small.obs["batch"] = pd.Categorical(["a"] * 30 + ["b"] * 30)
    (ax,) = bc.pl.embedding(small, "pca", "batch").flat
    _, colour = drawn(ax)
    assert 5 < (colour[:30] == to_rgba(colours(2)[0])).all(axis=1).sum() < 25


def test_points_shrink_with_their_number(small, many):
    few, lots = (bc.pl.embedding(data, "pca", "group")[0, 0] for data in (small, many))
    sizes = [float(ax.collections[0].get_sizes()[0]) for ax in (few, lots)]
    assert sizes[1] < sizes[0] / 2


def test_missing_labels_and_numbers_are_grey(small):
    small.obs["group"] = small.obs["group"].where(np.arange(60) % 3 > 0)
    small.obs["age"] = small.obs["age"].where(np.arange(60) % 4 > 0)
    axes = bc.pl.embedding(small, "pca", ["group", "age"])
    assert legend(axes[0, 0])[-1] == "missing"
    for ax, n in zip(axes[:, 0], (20, 15), strict=True):
        _, colour = drawn(ax)
        assert (colour == to_rgba(MISSING)).all(axis=1).sum() == n


def test_integers_of_few_values_are_groups_and_other_numbers_are_not():
    assert Groups.of(pd.Series([3, 1, 2, 1])).names == ["1", "2", "3"]
    assert Groups.of(pd.Series(range(40))) is None
    assert Groups.of(pd.Series([0.5, 1.5])) is None
    assert Groups.of(pd.Series([True, False])).names == ["False", "True"]


@pytest.mark.parametrize("n", [1, 7, 8, 14, 40, 100])
def test_no_two_groups_have_one_colour(n):
    assert len(set(colours(n))) == n


def test_names_are_text_and_not_formulas(small):
    hostile = {"a": "$x^{", "b": "<b>" + "long " * 80}
    small.obs["group"] = small.obs["group"].map(hostile)
    (ax,) = bc.pl.embedding(small, "pca", "group", titles=["$"]).flat
    ax.figure.draw_without_rendering()
    assert max(map(len, legend(ax))) <= 24


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("pcb", "batch"), MissingKeyError, "'pcb' is not in adata.obsm"),
        (("pca", "bach"), MissingKeyError, "Did you mean 'batch'"),
        (([], "batch"), InputError, "at least one basis"),
        (("names", "batch"), InputError, "not a matrix of coordinates"),
        (("pca", "complex"), InputError, "complex numbers"),
        (("pca", []), InputError, "at least one basis and one color"),
    ],
)
def test_what_does_not_exist_is_named(small, arguments, error, says):
    small.obsm["names"] = np.full((60, 2), "a")
    small.obs["complex"] = 1j
    with pytest.raises(error, match=says):
        bc.pl.embedding(small, *arguments)
    assert not plt.get_fignums()


@pytest.mark.parametrize("components", [(1, 4), (0, 1), (1, 2, 3), ("1", "b")])
def test_components_that_do_not_exist_are_refused(small, components):
    with pytest.raises(InputError, match="from 1 to 3"):
        bc.pl.embedding(small, "pca", "batch", components=components)


def test_axes_are_given_one_a_panel(small):
    _, two = plt.subplots(1, 2)
    axes = bc.pl.embedding(small, ["pca", "after"], "batch", ax=two)
    assert list(axes.flat) == list(two)
    with pytest.raises(InputError, match="4 panels, but ax has 2"):
        bc.pl.embedding(small, ["pca", "after"], ["batch", "group"], ax=two)
    with pytest.raises(InputError, match="must be matplotlib axes"):
        bc.pl.embedding(small, "pca", "batch", ax="left")
    assert len(plt.get_fignums()) == 1


def test_a_size_is_a_number(small):
    with pytest.raises(InputError, match="size must be"):
        bc.pl.embedding(small, "pca", "batch", size="big")


def test_categories_keep_their_order(small):
    order = ["late", "early", "unused"]
    small.obs["group"] = pd.Categorical(np.resize(["early", "late"], 60), order)
    (ax,) = bc.pl.embedding(small, "pca", "group").flat
    assert legend(ax) == ["late", "early"]


def test_without_matplotlib_it_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        bc.pl.embedding(small, "pca", "batch")
    with pytest.raises(MissingPackageError, match="pip install"):
        bc.pl.design(small, "batch", "group")
