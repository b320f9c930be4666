"""Samples that sums would give away are not summed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import batchcorr as bc
from batchcorr import arrays
from batchcorr.design.design import Design
from batchcorr.errors import DesignError, FeatureWarning
from batchcorr.sites.basis import Basis
from batchcorr.sites.disclosure import _largest_share
from tests.sites.examples import KEPT, UNITS, only, parts, people, raw


def refused(adata, schema, message):
    with pytest.raises(DesignError, match=message) as caught:
        bc.moments(adata, schema)
    assert "disclose values of single persons" in str(caught.value)


def test_small_cells_are_refused_and_named(pooled):
    part = parts(pooled)[0]
    labels = part.obs["cell_type"].astype(str).to_numpy()
    labels[:24] = ["B"] * 10 + ["NK"] * 4 + ["T"] * 10
    part.obs["cell_type"] = labels
    schema = only(part, ["cell_type"])
    refused(part, schema, r"batch 'a' × cell_type 'NK' \(4\)\. Merge levels")
    labels[10] = "T"  # 3 are refused as well, none is not
    part.obs["cell_type"] = labels
    refused(part, schema, r"'NK' \(3\)")
    labels[10:14] = "T"
    part.obs["cell_type"] = labels
    assert bc.moments(part, schema).samples == {"a": 24, "b": 31}
    labels[9:14] = "NK"
    part.obs["cell_type"] = labels
    assert bc.moments(part, schema).n_rows == 55


def test_small_batches_are_refused_even_without_covariates(pooled):
    some = pooled[:, :5]
    refused(some[20:60].copy(), only(some), r"batch 'a' \(4\)\.")
    with pytest.warns(FeatureWarning, match="are rounded.* 5 of 5 features"):
        assert bc.moments(some[19:60].copy(), only(some)).n_rows == 41


def test_combinations_of_levels_are_cells(pooled):
    """A mean of 6 of one sex and that of 5 of one type may differ by one person."""
    part = pooled[:24].copy()
    part.obs["cell_type"] = ["T"] * 6 + ["B"] * 18
    part.obs["sex"] = ["m"] + ["f"] * 5 + ["m"] * 18
    refused(part, only(part, ["cell_type", "sex"]), r"cell_type 'T' × sex 'm' \(1\)")
    bc.moments(part, only(part, ["cell_type"]))


def test_numbers_need_samples_and_must_not_single_out(pooled):
    part = pooled[:24].copy()
    refused(part[:14].copy(), only(part, KEPT), r"batch 'a' \(14; 15 for 3 design col")
    part.obs["dose"] = 0.0
    part.obs.iloc[7, part.obs.columns.get_loc("dose")] = 1.5
    refused(part, only(part, ["dose"]), r"dose 0 \(23\)|dose 1.5 \(1\)")
    part.obs["dose"] = np.random.default_rng(0).normal(size=24)
    bc.moments(part, only(part, ["dose"]))
    part.obs.iloc[7, part.obs.columns.get_loc("dose")] = 40
    refused(part, only(part, ["dose"]), r"batch 'a' \(1 with numbers far from")


def test_a_sample_with_leverage_1_could_be_read_from_the_moments(pooled):
    """Why the guard is there: a level of one sample gives it away to rounding."""
    x = pooled.X[:24]
    alone = np.zeros((24, 1))
    alone[7] = 1
    sums = arrays.moments(x, Design.of(np.zeros(24), 1, alone))
    told = sums.mean[0] + sums.cross[0, 0] / sums.gram[0, 0, 0, 0] * (1 - 1 / 24)
    np.testing.assert_allclose(told, x[7], rtol=1e-12)


@pytest.mark.parametrize("twins", [2, 3, 4])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_numbers_that_single_out_a_few_would_tell_their_sum(twins, noise):
    """A dose and its square say who had the dose 2, as a level of its own would."""
    adata = people()
    rng = np.random.default_rng(1)
    dose = np.repeat([0.0, 1, 2], [30, 30 - twins, twins])
    dose += noise * rng.normal(size=60)
    adata.obs["dose"], adata.obs["dose2"] = dose, dose**2
    kept = {"sex": ["f", "m"]} | dict.fromkeys(["age", "dose", "dose2"], "numeric")
    schema = bc.Schema(adata.var_names, ["a"], units=UNITS, covariates=kept)
    sums = raw(adata, schema)
    lagrange = [0, 0, -0.5, 0.5]  # (dose² - dose) / 2: 0, 0 and 1
    told = sums.cross[0].T @ lagrange + 60 * sums.mean[0] * (
        sums.columns[0, :, 0] @ lagrange
    )
    np.testing.assert_allclose(told, adata.X[-twins:].sum(axis=0), rtol=0.1)
    refused(adata, schema, r"batch 'a' \((fewer than 5|2) with numbers (apart|far)")
    adata.obs["dose"] = np.repeat([0.0, 1, 2], [30, 24, 6])
    adata.obs["dose2"] = adata.obs["dose"] ** 2
    bc.moments(adata, schema)


def test_few_samples_are_found_among_all_that_could_be():
    """Against every set of four samples, in designs of which some single few out."""
    rng = np.random.default_rng(0)
    sets = np.array(list(combinations(range(20), 4)))
    found, true = [], []
    for twins in np.tile([2, 4, 6, 8], 8):
        dose = np.repeat([0.0, 1, 2], [8, 12 - twins, twins])
        age = rng.normal(size=20) + 4 * (rng.random(20) < 0.1)
        columns = np.stack([dose, dose**2, age], axis=1)
        basis = Basis.of(columns).directions(columns)
        own = basis[sets] @ basis[sets].transpose(0, 2, 1)
        true.append(np.linalg.eigvalsh(own)[:, -1].max())
        found.append(_largest_share(basis))
    found, true = np.array(found), np.array(true)
    assert (found <= true + 1e-9).all()
    np.testing.assert_array_equal(found > 0.9, true > 0.9)
    assert 15 < (true > 0.9).sum() < 30
