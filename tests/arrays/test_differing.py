"""Differing values of a batch, counted by every kind of matrix as by hand."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp

from batchcorr.arrays.differing import differing
from batchcorr.errors import InputError
from tests.conftest import tensor


def in_blocks(x, make):
    return da.from_array(x, chunks=(70, 700)).map_blocks(make)


KINDS = {
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "CSR": sp.csr_matrix,
    "CSC": sp.csc_array,
    "Dask": lambda x: in_blocks(x, np.asarray),
    "Dask of CSR": lambda x: in_blocks(x, sp.csr_matrix),
    "Dask of CSC": lambda x: in_blocks(x, sp.csc_matrix),
    "torch": tensor,
}


def example():
    """Five batches in any order, one of them empty; counts, one of them shifted."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(0.3, 1, 1100), (300, 1100)).astype(np.float32)
    x[:, 3] = 7
    x[5, 3] = 9
    x[:, 4] += 0.1
    x[:, 5] = np.round(rng.normal(size=300), 2)
    x[:, 6] = rng.normal(size=300) - 20
    return x, rng.choice([0, 1, 2, 4], 300).astype(np.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_by_hand(kind):
    x, codes = example()
    found = differing(KINDS[kind](x), codes, 5, 4)
    assert not found.unequal[3].any()
    for batch in (0, 1, 2, 4):
        own = x[codes == batch]
        common = np.median(own[:9], axis=0)
        np.testing.assert_array_equal(found.unequal[batch], (own != common).sum(axis=0))
        np.testing.assert_array_equal(found.nonzero[batch], (own != 0).sum(axis=0))
        np.testing.assert_array_equal(found.low[batch], own.min(axis=0))
        np.testing.assert_array_equal(found.high[batch], own.max(axis=0))
        assert found.decimals[batch, 3:8].tolist() == [0, 1, 2, 5, 0]


def test_stored_zeros_and_values_stored_twice_are_what_they_mean():
    x = sp.csr_matrix((10, 2))
    x.indptr = np.array([0, 3, 4, *[4] * 8])
    x.indices = np.array([0, 0, 1, 0])
    x.data = np.array([1.0, 2, 0, 5])
    found = differing(x, np.zeros(10, np.int32), 1, 4)
    assert found.unequal.tolist() == found.nonzero.tolist() == [[2, 0]]
    assert found.low.tolist() == [[0, 0]]
    assert found.high.tolist() == [[5, 0]]


@pytest.mark.parametrize("make", [np.asarray, lambda x: in_blocks(x, np.asarray)])
def test_missing_values_are_not_counted(make):
    x = np.full((40, 3), 2.0)
    x[:8] = np.nan
    x[8:12, 0] = 1  # of the first nine only this one is observed
    x[:, 1] = np.nan
    x[20, 2] = 0
    found = differing(make(x), np.zeros(40, np.int32), 1, 4)
    assert found.unequal.tolist() == [[4, 0, 1]]
    assert found.nonzero.tolist() == [[32, 0, 31]]
    assert found.low.tolist() == [[1, np.inf, 0]]
    assert found.high.tolist() == [[2, -np.inf, 2]]


def test_other_things_are_refused():
    with pytest.raises(InputError, match="convert it to a NumPy array"):
        differing(sp.lil_matrix((9, 2)), np.zeros(9, np.int32), 1, 4)
