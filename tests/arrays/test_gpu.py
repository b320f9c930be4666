"""CuPy on a CUDA device; skipped, with a reason, where there is none.

The contract suite runs under CuPy's kinds of matrix too: `python -m pytest -m gpu`.
"""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError, TooLargeError
from tests.conftest import on_device, sparse_on_device, values

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning"),
]

MAKES = {"dense": on_device, "csr": sparse_on_device}
each_make = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
KEPT = {"covariates": ["cell_type", "age"]}
FACES = {
    "combat": lambda adata, **more: bc.pp.combat(adata, "batch", **KEPT, **more),
    "standardize": lambda adata, **more: bc.pp.standardize(adata, "batch", **more),
    "remove_batch_effect": lambda adata, **more: bc.pp.remove_batch_effect(
        adata, "batch", **KEPT, **more
    ),
}
each_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES)


def make_adata(data, make=np.array):
    obs = data.table.assign(batch=data.batch.astype(str))
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(np.empty(data.x.shape), obs=obs)
    adata.X = make(data.x)
    return adata


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(values(found), values(expected), tolerance, tolerance)


@each_face
@each_make
def test_faces_correct_on_the_device(small, face, make):
    import cupy

    expected, found = make_adata(small), make_adata(small, make)
    face(expected)
    face(found)
    assert isinstance(found.X, cupy.ndarray)
    close(found.X, expected.X)
    assert found.uns.keys() == expected.uns.keys()


@each_face
@each_make
def test_faces_correct_a_layer_into_another(small, face, make):
    adata = make_adata(small, make)
    adata.layers["given"] = adata.X.copy()
    face(adata, layer="given", key_added="corrected")
    expected = make_adata(small)
    face(expected)
    close(adata.layers["corrected"], expected.X)
    close(adata.layers["given"], small.x, 0)
    close(adata.X, small.x, 0)


@each_make
def test_a_correction_applies_to_other_features_in_any_order(small, make):
    correction = bc.fit(make_adata(small)[:, :20].copy(), "batch", method="combat")
    order = np.random.default_rng(0).permutation(24)
    expected = make_adata(small)[:, order].copy()
    x = make_adata(small, make).X[:, on_device(order)]
    found = anndata.AnnData(x, expected.obs.copy(), expected.var.copy())
    for adata in (expected, found):
        with pytest.warns(match="4 of 24 features"):
            bc.pp.apply(adata, correction)
    close(found.X, expected.X)


@pytest.mark.filterwarnings("ignore::batchcorr.errors.ViewWarning")
def test_views_and_copies(small):
    adata = make_adata(small, on_device)
    part = adata[5:]
    bc.pp.combat(part, "batch")
    close(adata.X, small.x, 0)
    corrected = bc.pp.combat(adata, "batch", copy=True)
    close(adata.X, small.x, 0)
    assert corrected is not None


def test_x_is_corrected_in_its_own_memory(small):
    adata = make_adata(small, on_device)
    before = adata.X
    bc.pp.combat(adata, "batch")
    assert adata.X.data.ptr == before.data.ptr
    x = on_device(small.x)
    assert bc.ComBat(copy=False).fit_transform(x, batch=small.batch) is x


def test_missing_values_and_infinite_ones(small):
    x = small.x.copy()
    x[3, 4] = np.nan
    found = bc.ComBat().fit_transform(on_device(x), batch=small.batch)
    close(found, bc.ComBat().fit_transform(x, batch=small.batch))
    x[3, 4] = np.inf
    with pytest.raises(InputError, match="infinite"):
        bc.ComBat().fit(on_device(x), batch=small.batch)


def test_missing_values_in_sparse_matrices_are_refused(small):
    x = sp.csr_matrix(small.x)
    x.data[3] = np.nan
    with pytest.raises(InputError, match="missing"):
        bc.ComBat().fit(sparse_on_device(x), batch=small.batch)


def test_a_sparse_matrix_is_not_made_dense_where_that_is_not_wanted(small):
    with pytest.raises(TooLargeError):
        bc.pp.combat(make_adata(small, sparse_on_device), "batch", dense=False)


def test_counts_are_sent_to_the_cpu(small):
    with pytest.raises(InputError, match="on the CPU"):
        bc.ComBatSeq().fit_transform(on_device(small.x), batch=small.batch)


def test_a_matrix_larger_than_32_bits_can_count():
    import cupy

    n, width = 1_100_000, 2_000
    if cupy.cuda.runtime.memGetInfo()[0] < 12 << 30:
        pytest.skip("takes 12 GiB of the device's memory")
    x = cupy.zeros((n, width), dtype=np.float32)
    x[:, -1] = cupy.arange(n) % 7
    batch = np.arange(n) % 2
    model = bc.Standardize(copy=False).fit(x, batch=batch)
    expected = np.array([(np.arange(n)[batch == b] % 7).mean() for b in (0, 1)])
    np.testing.assert_allclose(model.moments_.mean[:, -1], expected, 1e-12)
    corrected = model.transform(x, batch=batch)
    np.testing.assert_allclose(values(corrected[batch == 0, -1].mean()), 3, 1e-2)
