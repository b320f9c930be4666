"""The simulated batch effect follows its model, and the blood cells are real counts."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import InputError, MissingKeyError

FOLDS = ["log_fold_a", "log_fold_b", "log_fold_c"]


def cells(counts, **obs):
    index = [f"cell {i}" for i in range(len(counts))]
    return ad.AnnData(np.asarray(counts), obs=pd.DataFrame(obs, index=index))


def probabilities(adata, depth=1.0):
    """Return p as the docstring has it, batches × genes, from what was returned."""
    folds = adata.var[FOLDS].to_numpy().T
    return np.broadcast_to(depth, 3)[:, None] * np.exp(folds - folds.max(axis=0))


@pytest.fixture(scope="module")
def pbmc():
    return bc.datasets.pbmc()


def test_blood_cells_are_integers_and_agree_with_what_scanpy_stores(pbmc):
    stored = sc.datasets.pbmc68k_reduced()
    assert pbmc.X.has_canonical_format
    assert (pbmc.X.data == np.rint(pbmc.X.data)).all()
    assert pbmc.X.min() == 0
    assert pbmc.X.nnz == stored.raw.X.nnz
    # Scaling them again gives the stored values, to the third decimal they are kept to.
    again = pbmc.X.astype(np.float64)
    total = pbmc.obs["total_count"].to_numpy()
    again.data = np.log1p(again.data * np.repeat(1e4 / total, np.diff(again.indptr)))
    assert abs(again - stored.raw.X).max() < 0.00051
    assert pbmc.var_names.equals(stored.raw.var_names)
    assert pbmc.obs["cell_type"].tolist() == stored.obs["bulk_labels"].tolist()


def test_blood_cells_are_the_same_by_the_smallest_value_of_each_cell(pbmc):
    """The total is not needed: the smallest count of a cell is 1."""
    values = sc.datasets.pbmc68k_reduced().raw.X.tocsr().astype(np.float64)
    values.data = np.expm1(values.data)
    smallest = np.minimum.reduceat(values.data, values.indptr[:-1])
    ratio = values.data / np.repeat(smallest, np.diff(values.indptr))
    assert np.abs(ratio - pbmc.X.data).max() < 0.15


def test_blood_cells_are_read_anew(pbmc):
    again = bc.datasets.pbmc()
    again.X.data[:] = 0
    assert pbmc.X.max() == 259


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_counts_stay_counts_and_none_is_made_up(pbmc, dtype):
    known = bc.datasets.add_batch_effect(
        ad.AnnData(pbmc.X.astype(dtype), obs=pbmc.obs), dispersion=0.2
    )
    assert known.X.dtype == known.layers["truth"].dtype == dtype
    assert (known.X.data == np.rint(known.X.data)).all()
    assert known.X.data.min() >= 1  # a lost count is not stored
    assert (known.layers["truth"] < known.X).nnz == 0
    assert (known.layers["truth"] != pbmc.X).nnz == 0


def test_the_same_seed_makes_the_same_counts_however_they_are_stored(pbmc):
    small = pbmc[:200].copy()
    kinds = [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array]
    kinds += [lambda x: x.toarray()]
    made = []
    for kind in kinds:
        given = ad.AnnData(kind(small.X), obs=small.obs)
        known = bc.datasets.add_batch_effect(given, dispersion=[0, 0.3, 0.1])
        assert type(known.X) is type(given.X)
        made.append(known.X.toarray() if sp.issparse(known.X) else known.X)
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)
    again = bc.datasets.add_batch_effect(small, dispersion=[0, 0.3, 0.1])
    other = bc.datasets.add_batch_effect(
        small, dispersion=[0, 0.3, 0.1], random_state=1
    )
    np.testing.assert_array_equal(made[0], again.X.toarray())
    assert (again.X != other.X).nnz > 1000
    assert again.obs["batch"].tolist() != other.obs["batch"].tolist()
    assert not np.allclose(again.var["log_fold_a"], other.var["log_fold_a"])


def test_what_is_given_is_left_alone(pbmc):
    before = pbmc.copy()
    known = bc.datasets.add_batch_effect(pbmc)
    known.layers["truth"].data[:] = 7
    assert (pbmc.X != before.X).nnz == 0
    assert list(pbmc.obs) == list(before.obs)
    assert not list(pbmc.var)
    assert not [key for key in pbmc.layers if key is not None]  # None: X itself


@pytest.mark.parametrize("dispersion", [0.0, [0.3, 0.05, 0.0]])
def test_means_and_variances_are_those_of_the_model(dispersion):
    """Of 3 × 3000 samples with 40 counts each: z scores of means and variances."""
    n, count = 3000, 40
    depth, rho = [0.3, 1.0, 0.7], np.broadcast_to(dispersion, 3)[:, None]
    known = bc.datasets.add_batch_effect(
        cells(np.full((3 * n, 60), count)), depth=depth, dispersion=dispersion
    )
    p = probabilities(known, depth)
    variance = count * p * (1 - p) * (1 + (count - 1) * rho)
    for batch, name in enumerate("abc"):
        x = known.X[known.obs["batch"] == name]
        assert len(x) == n
        certain = p[batch] == 1
        assert (x[:, certain] == count).all()
        rest = ~certain
        error = np.sqrt(variance[batch][rest] / n)
        z = (x.mean(axis=0)[rest] - count * p[batch][rest]) / error
        # 3 × 60 standard normals: none beyond 5, and their spread is 1.
        assert np.abs(z).max() < 5
        assert 0.7 < z.std() < 1.3
        # Where p is not extreme the kurtosis is under 9, and the standard error of a
        # variance, as a share of it, under √(8 / n).
        middle = (p[batch] > 0.1) & (p[batch] < 0.9)
        ratio = x.var(axis=0, ddof=1)[middle] / variance[batch][middle]
        assert middle.sum() > 10
        assert np.abs(ratio - 1).max() < 5 * np.sqrt(8 / n)
    assert (probabilities(known).max(axis=0) == 1).all()


def test_poisson_counts_stay_poisson():
    rng = np.random.default_rng(3)
    n, rate = 4000, 2.0
    known = bc.datasets.add_batch_effect(cells(rng.poisson(rate, (3 * n, 40))))
    p = probabilities(known)
    for batch, name in enumerate("abc"):
        x = known.X[known.obs["batch"] == name]
        zeros = np.exp(-rate * p[batch])
        z = ((x == 0).mean(axis=0) - zeros) / np.sqrt(zeros * (1 - zeros) / n)
        assert np.abs(z).max() < 5
        fano = x.var(axis=0, ddof=1) / x.mean(axis=0)
        error = np.sqrt((2 + 1 / (rate * p[batch])) / n)  # of a Poisson's variance
        assert (np.abs(fano - 1) < 5 * error).all()


def test_log_folds_are_normal_with_the_spread_asked_for():
    known = bc.datasets.add_batch_effect(
        cells(np.ones((6, 20_000), np.int64)), log_fold_sd=0.8
    )
    folds = known.var[FOLDS].to_numpy()
    n = folds.size
    assert abs(folds.mean()) < 5 * 0.8 / np.sqrt(n)
    assert abs(folds.std() / 0.8 - 1) < 5 / np.sqrt(2 * n)
    assert abs(np.corrcoef(folds.T) - np.eye(3)).max() < 5 / np.sqrt(20_000)


def test_without_folds_only_depth_remains(pbmc):
    same = bc.datasets.add_batch_effect(pbmc, log_fold_sd=0)
    assert (same.X != pbmc.X).nnz == 0
    half = bc.datasets.add_batch_effect(pbmc, log_fold_sd=0, depth=[1, 0.5, 1])
    b = (half.obs["batch"] == "b").to_numpy()
    assert (half.X[~b] != pbmc.X[~b]).nnz == 0
    total = pbmc.X[b].sum()
    assert abs(half.X[b].sum() - total / 2) < 5 * np.sqrt(total / 4)


def test_groups_are_spread_evenly_or_as_asked(pbmc):
    known = bc.datasets.add_batch_effect(
        pbmc, ["x", "y"], by="cell_type", shares={"Dendritic": [3, 1], "CD34+": [0, 1]}
    )
    table = pd.crosstab(known.obs["cell_type"], known.obs["batch"])
    assert table.loc["Dendritic"].tolist() == [180, 60]
    assert table.loc["CD34+"].tolist() == [0, 13]
    others = table.drop(["Dendritic", "CD34+"])
    assert (others["x"] - others["y"]).abs().max() <= 1
    assert known.obs["batch"].cat.categories.tolist() == ["x", "y"]


def test_a_layer_is_read_and_written(pbmc):
    given = ad.AnnData(np.zeros(pbmc.shape, np.float32), obs=pbmc.obs)
    given.layers["counts"] = pbmc.X.copy()
    known = bc.datasets.add_batch_effect(given, layer="counts", batch_key="run")
    from_x = bc.datasets.add_batch_effect(pbmc)
    assert (known.layers["counts"] != from_x.X).nnz == 0
    assert (known.layers["truth"] != pbmc.X).nnz == 0
    assert not known.X.any()
    assert known.obs["run"].tolist() == from_x.obs["batch"].tolist()


def test_it_is_written_and_read_back(pbmc, tmp_path):
    known = bc.datasets.add_batch_effect(pbmc)
    known.write_h5ad(tmp_path / "known.h5ad")
    again = ad.read_h5ad(tmp_path / "known.h5ad")
    assert (again.X != known.X).nnz == 0
    np.testing.assert_array_equal(again.var[FOLDS], known.var[FOLDS])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batches": 1}, "must be a number of batches"),
        ({"batches": 27}, "2 to 26"),
        ({"batches": ["a", "a"]}, "two different names"),
        ({"batches": "ab"}, "a list of at least two different names"),
        ({"batches": [1, 2]}, "a list of at least two different names"),
        ({"batches": 12}, "would have no sample"),
        ({"log_fold_sd": -0.1}, r"log_fold_sd=-0\.1"),
        ({"log_fold_sd": np.nan}, "log_fold_sd=nan"),
        ({"depth": 0}, "depth=0 must be over 0"),
        ({"depth": 1.5}, r"depth=1\.5 .*at most 1"),
        ({"depth": [1, 1]}, "or 3, one for each of the batches 'a', 'b', 'c'"),
        ({"depth": "deep"}, "must be one number"),
        ({"dispersion": 1}, "dispersion=1 must be 0"),
        ({"dispersion": [0, np.nan, 0]}, "dispersion="),
        ({"shares": {"T": [1, 1, 1]}}, "needs by="),
        ({"by": "type", "shares": {"T": [1, 1]}}, r"shares\['T'\] must be 3 numbers"),
        ({"by": "type", "shares": {"T": [1, -1, 1]}}, "none negative"),
        ({"by": "type", "shares": {"T": [0, 0, 0]}}, "not all 0"),
        ({"by": "gaps"}, "is missing in 1 of 9"),
        ({"batch_key": "type"}, r"obs\['type'\] would be overwritten"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(parameters, message):
    types = ["T"] * 5 + ["B"] * 4
    given = cells(np.ones((9, 2), int), type=types, gaps=[None, *types[1:]])
    with pytest.raises(InputError, match=message):
        bc.datasets.add_batch_effect(given, **parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"by": "typ"}, "Did you mean 'type'"),
        ({"by": "type", "shares": {"NK": [1, 1, 1]}}, "no group 'NK'.*'B', 'T'"),
        ({"layer": "raw"}, "no layer 'raw'"),
    ],
)
def test_names_that_do_not_exist_are_named(parameters, message):
    given = cells(np.ones((9, 2), int), type=["T"] * 5 + ["B"] * 4)
    with pytest.raises(MissingKeyError, match=message):
        bc.datasets.add_batch_effect(given, **parameters)


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf])
def test_what_is_not_a_count_is_refused(value):
    with pytest.raises(InputError, match="counts"):
        bc.datasets.add_batch_effect(cells(np.full((6, 2), value)))


def test_a_first_batch_effect_is_not_overwritten(pbmc):
    known = bc.datasets.add_batch_effect(pbmc)
    with pytest.raises(InputError, match=r"layers\['truth'\] would be overwritten"):
        bc.datasets.add_batch_effect(known, ["x", "y"], batch_key="second")
    with pytest.raises(InputError, match=r"log_fold_a"):
        bc.datasets.add_batch_effect(known)
