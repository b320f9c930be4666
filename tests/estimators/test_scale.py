"""What was not logged is told from what was: no false alarm, and none missing."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import CountsWarning
from batchcorr.estimators.scale import unlogged


def bulk(seed=0):
    """Counts of 24 samples × 3,000 genes, over five orders of magnitude."""
    rng = np.random.default_rng(seed)
    mu = np.exp(rng.normal(4, 2.2, 3000)) * rng.uniform(0.5, 2, (24, 1))
    return rng.negative_binomial(4, 4 / (4 + mu)).astype(float)


def cells(seed=0):
    """Counts of 400 cells × 800 genes, nine in ten of them 0."""
    rng = np.random.default_rng(seed)
    mu = np.exp(rng.normal(-3, 2, 800)) * rng.gamma(4, 1 / 4, (400, 1))
    mu[:, 0] = 60
    return rng.negative_binomial(2, 2 / (2 + mu)).astype(float)


def panel(seed=0):
    """Counts of 30 samples × 60 genes of one order of magnitude."""
    return np.random.default_rng(seed).negative_binomial(5, 0.05, (30, 60)) + 1.0


def per(total, counts):
    return counts / counts.sum(axis=1, keepdims=True) * total


def rpkm(counts):
    return per(1e6, counts) / np.random.default_rng(9).uniform(0.3, 9, counts.shape[1])


def tpm(counts):
    return per(1e6, rpkm(counts))


def quantiles(x):
    return bc.QuantileNormalize().fit_transform(x)


def intensities(seed=0):
    """log2 intensities of arrays, as RMA gives them."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.gamma(6, 1.2, (20, 2000)) + 2, 2, 15.9)


def peptides(seed=0):
    """log2 intensities of a mass spectrometer, 18 to 36, a tenth of them missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(26, 2.5, (20, 900))
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


LOGGED = {
    "log2 CPM": np.log2(per(1e6, bulk()) + 1),
    "log2 CPM, a prior count": np.log2(per(1e6, bulk() + 0.25)),
    "log2 TPM": np.log2(tpm(bulk()) + 1),
    "log2 RPKM": np.log2(rpkm(bulk()) + 0.1),
    "log2 counts": np.log2(bulk() + 1),
    "log2 counts, one of a million": np.log2(
        np.hstack([bulk(), np.full((24, 1), 3e6)]) + 1
    ),
    "log1p of ten thousand": np.log1p(per(1e4, cells())),
    "log1p of the median": np.log1p(per(np.median(cells().sum(1)), cells())),
    "log2 of a million, cells": np.log2(per(1e6, cells()) + 1),
    "log10 of a million": np.log10(per(1e6, cells()) + 1),
    "square roots of counts": np.sqrt(np.minimum(cells(), 300)),
    "RMA": intensities(),
    "RMA, quantiles normalized": quantiles(intensities()),
    "peptides": peptides(),
    "peptides, quantiles normalized": quantiles(peptides()),
    "z-scores": np.random.default_rng(0).normal(size=(30, 400)) * 9,
    "shares": np.random.default_rng(0).beta(0.5, 0.5, (30, 400)),
    "volumes of brain regions": np.random.default_rng(0).lognormal(8, 0.7, (40, 70)),
    "log2 CPM of a panel": np.log2(per(1e6, panel()) + 1),
}
NOT_LOGGED = {
    "CPM": per(1e6, bulk()),
    "TPM": tpm(bulk()),
    "RPKM": rpkm(bulk()),
    "RPKM of 100 genes": rpkm(bulk())[:, :100],
    "median of totals": per(np.median(bulk().sum(1)), bulk()),
    "ten thousand, cells": per(1e4, cells()),
    "median of totals, cells": per(np.median(cells().sum(1)), cells()),
    "CPM of a panel": per(1e6, panel()),
    "ten thousand, panel": per(1e4, panel()),
    "intensities": 2 ** intensities(),
    "intensities with missing values": np.where(
        np.random.default_rng(0).random((20, 2000)) < 0.1, np.nan, 2 ** intensities()
    ),
}
KINDS = [np.asarray, np.asfortranarray, sp.csr_matrix, sp.csc_array]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOGGED)
def test_no_false_alarm(name, kind):
    assert not unlogged(kind(LOGGED[name]))


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("name", NOT_LOGGED)
def test_what_was_not_logged_is_told(name, kind):
    x = NOT_LOGGED[name]
    if np.isnan(x).any() and kind is sp.csr_matrix:
        pytest.skip("missing values are refused in sparse matrices")
    assert unlogged(kind(x)) == "normalized"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [bulk, cells, panel])
def test_raw_counts_are_told(make, kind):
    assert unlogged(kind(make())) == "counts"


def test_real_arrays_are_logged_and_their_intensities_are_not():
    x = bc.datasets.bladder().X
    assert not unlogged(x)
    assert unlogged(2**x) == "normalized"


def test_batches_one_after_the_other_are_all_looked_at():
    """A matrix too large to be looked at whole, whose last half is not logged."""
    x = np.vstack([np.log2(bulk() + 1)] * 9 + [bulk() / 3] * 9)
    assert x.size > 2 * 200_000
    assert unlogged(x) == unlogged(sp.csr_matrix(x)) == "normalized"


def test_the_warning_says_what_to_do():
    with pytest.warns(CountsWarning, match=r"normalized .* not log-transformed.*log1p"):
        bc.ComBat().fit(per(1e6, bulk())[:, :200], batch=np.arange(24) % 2)
