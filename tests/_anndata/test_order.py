"""What has names is matched by them, or refused where rows are matched by place."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr.errors import InputError

N, G = 24, 12
RNG = np.random.default_rng(0)
ROWS, GENES = [f"s{k}" for k in range(N)], [f"g{k}" for k in range(G)]
X = pd.DataFrame(RNG.normal(8, 1, (N, G)), ROWS, GENES)
BATCH = np.repeat(["x", "y", "z"], 8)
NUMBERS = pd.Series(RNG.uniform(0.5, 2, N), ROWS)
BY_VALUE = pd.DataFrame(RNG.uniform(0.5, 2, (N, G)), ROWS, GENES)
WHO = pd.Series([f"p{k // 2}" for k in range(N)], ROWS)
OF_GENES = pd.Series(np.arange(G) < 7, GENES)


def annotated():
    obs = pd.DataFrame({"batch": BATCH, "group": np.resize(["a", "b"], N)}, ROWS)
    return ad.AnnData(X.to_numpy(), obs=obs, var=pd.DataFrame(index=GENES))


def t_values(given):
    return bc.tl.differential(annotated(), "batch", "group", weights=given)["t"]


def corrected(given):
    adata = annotated()
    bc.pp.remove_batch_effect(adata, "batch", weights=given)
    return adata.X


def learned(given):
    return bc.fit(
        annotated(), "batch", method="remove_batch_effect", weights=given
    ).correction_.shift


def found(**given):
    adata = annotated()
    kept = None if "replicates" in given else ["group"]
    bc.tl.surrogate_variables(adata, covariates=kept, n_variables=1, **given)
    return adata.obsm["X_sv"]


def components(given):
    adata = annotated()
    bc.tl.pca(adata, "batch", n_comps=2, mask_var=given)
    return adata.obsm["X_pca"]


@pytest.mark.parametrize(
    ("call", "given"),
    [
        *(
            (call, part)
            for call in (t_values, corrected)
            for part in (NUMBERS, BY_VALUE)
        ),
        (learned, NUMBERS),
        (lambda given: found(method="ruvs", replicates=given), WHO),
        (lambda given: found(method="ruvg", controls=given), OF_GENES),
        (components, OF_GENES),
    ],
)
def test_an_anndata_has_it_by_name(call, given):
    shuffled = given[::-1] if given.ndim == 1 else given.iloc[::-1, ::-1]
    np.testing.assert_array_equal(call(shuffled), call(given.to_numpy()))


def test_weights_are_named_and_of_these_samples():
    adata = annotated()
    adata.obs["w"], adata.layers["W"] = NUMBERS, BY_VALUE.to_numpy()
    for name, given in (("w", NUMBERS), ("W", BY_VALUE)):
        copy = bc.pp.remove_batch_effect(adata, "batch", weights=name, copy=True)
        np.testing.assert_array_equal(copy.X, corrected(given))
    with pytest.raises(InputError, match=r"not match adata\.obs_names"):
        corrected(NUMBERS.rename({"s0": "other"}))
    with pytest.raises(
        InputError, match="columns of weights do not match the features"
    ):
        corrected(BY_VALUE.rename(columns={"g0": "other"}))


@pytest.mark.parametrize(
    ("method", "name", "given", "match"),
    [
        (bc.RemoveBatchEffect, "weights", NUMBERS[::-1], "index of weights"),
        (
            bc.RemoveBatchEffect,
            "weights",
            BY_VALUE[GENES[::-1]],
            "index of weights does not match",
        ),
        (bc.RemoveBatchEffect, "nuisance", NUMBERS[::-1].to_frame("a"), "of nuisance"),
        (bc.ComBatSeq, "nuisance", NUMBERS[::-1].to_frame("a"), "index of nuisance"),
        (bc.ComBat, "subject", WHO[::-1], "index of subject"),
    ],
)
def test_an_estimator_refuses_other_rows_and_columns(method, name, given, match):
    counts = X.round().clip(lower=0)
    for learn in ("fit", "fit_transform"):
        with pytest.raises(InputError, match=match):
            getattr(method(), learn)(counts, batch=BATCH, **{name: given})
        if given.index[0] != "s0":  # of an array too, where batch has names
            batch = pd.Series(BATCH, ROWS)
            with pytest.raises(InputError, match=match):
                getattr(method(), learn)(counts.values, batch=batch, **{name: given})
    if name != "weights":
        right = given.loc[ROWS]
        fitted = method().fit(counts, batch=BATCH, **{name: right})
        with pytest.raises(InputError, match=match):
            fitted.transform(counts, batch=BATCH, **{name: given})


@pytest.mark.parametrize(
    ("method", "given", "match"),
    [
        ("ruvs", {"replicates": WHO[::-1]}, "index of replicates"),
        ("ruvg", {"controls": OF_GENES[::-1]}, "index of controls does not match"),
        ("sva", {"covariates": NUMBERS[::-1].to_frame("a")}, "index of covariates"),
    ],
)
def test_surrogate_variables_refuse_them_too(method, given, match):
    with pytest.raises(InputError, match=match):
        bc.SurrogateVariables(1, method=method).fit(X, **given)
