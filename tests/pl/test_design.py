"""The design as a heat map: the counts that are written are those of the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import InputError, MissingKeyError


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def written(ax, shape):
    table = np.full(shape, -1)
    for text in ax.texts:
        column, row = map(int, text.get_position())
        table[row, column] = int(text.get_text().replace(",", ""))
    return table


def test_counts_are_written_and_shades_are_shares(small):
    ax = bc.pl.design(small, "batch", "group")
    counts = pd.crosstab(small.obs["batch"], small.obs["group"])
    assert ticks(ax.yaxis) == list(counts.index)
    assert ticks(ax.xaxis) == list(counts.columns)
    np.testing.assert_array_equal(written(ax, counts.shape), counts)
    shares = counts.div(counts.sum(axis=1), axis=0)
    np.testing.assert_allclose(ax.images[0].get_array(), shares)


def test_numbers_are_cut_into_parts_and_missing_labels_counted(small):
    small.obs["batch"] = small.obs["batch"].where(np.arange(60) > 6)
    ax = bc.pl.design(small, "batch", "age")
    table = written(ax, (3, 4))
    assert ticks(ax.yaxis)[-1] == "missing"
    np.testing.assert_array_equal(table.sum(axis=0), [15, 15, 15, 15])
    assert table[2].sum() == 7


def test_forty_batches_are_legible(many):
    ax = bc.pl.design(many, "batch", "group")
    assert len(ticks(ax.yaxis)) == 40
    assert ax.figure.get_size_inches()[1] < 10
    assert len(ax.texts) == 80


def test_what_cannot_be_drawn_is_named(many):
    with pytest.raises(MissingKeyError, match="batch key 'bach'"):
        bc.pl.design(many, "bach", "group")
    with pytest.raises(MissingKeyError, match=r"covariate 'gruop'.*'group'"):
        bc.pl.design(many, "batch", "gruop")
    with pytest.raises(InputError, match="no samples"):
        bc.pl.design(many[:0].copy(), "batch", "group")
    many.obs["name"] = many.obs_names
    with pytest.raises(InputError, match="2,500 different values"):
        bc.pl.design(many, "batch", "name")


def test_long_names_and_infinite_numbers_fit_the_figure(small):
    small.obs["group"] = np.resize(["$\\frac{", "x" * 300, "<b>", "y z" * 50], 60)
    small.obs["age"] = np.r_[np.inf, -np.inf, small.obs["age"][2:]]
    for columns in (("batch", "group"), ("group", "batch"), ("batch", "age")):
        bc.pl.design(small, *columns).figure.draw_without_rendering()
