"""Combinations of batch factors as batches: as if they stood in one column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import DesignError, InputError


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    factors = pd.DataFrame(
        {"day": np.repeat(["mon", "tue"], 12), "lane": [1, 2, 2] * 8}
    )
    joined = factors["day"] + factors["lane"].astype(str)
    counts = rng.negative_binomial(5, 0.05, (24, 40))
    counts[(joined == "mon1").to_numpy()] *= 2
    return counts, factors, joined


@pytest.mark.parametrize("method", [bc.ComBat, bc.ComBatSeq])
def test_they_are_as_one_column(data, method, tmp_path):
    counts, factors, joined = data
    x = counts if method is bc.ComBatSeq else np.log1p(counts)
    model = method(cross=True).fit(x, batch=factors)
    assert model.batches_ == ("mon × 1", "mon × 2", "tue × 1", "tue × 2")
    expected = method().fit_transform(x, batch=joined)
    model.save(tmp_path / "crossed.npz")
    for each in (model, bc.load(tmp_path / "crossed.npz")):
        np.testing.assert_array_equal(each.transform(x, batch=factors), expected)
        part = each.transform(x[:5], batch=factors.to_numpy()[:5])
        np.testing.assert_array_equal(part, expected[:5])
    with pytest.raises(InputError, match="cross=True takes their combinations"):
        method().fit(x, batch=factors)


def test_a_combination_of_one_sample_is_named(data):
    counts, factors, _ = data
    factors.loc[0, "lane"] = 3
    with pytest.raises(DesignError, match=r"'mon × 3'.*remove_batch_effect"):
        bc.ComBat(cross=True).fit(np.log1p(counts), batch=factors)
    factors.loc[0, "lane"] = np.nan
    with pytest.raises(DesignError, match="missing"):
        bc.ComBat(cross=True).fit(np.log1p(counts), batch=factors)
