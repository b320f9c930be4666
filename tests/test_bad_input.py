"""What users get wrong with corrections, and what they are told: one row a mistake.

What every row must meet is in `tests.mistakes`.
"""

from __future__ import annotations

import pickle
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError

import batchcorr as bc
from batchcorr.errors import (
    BatchCorrError,
    DesignError,
    FileError,
    InputError,
    MissingKeyError,
    TooLargeError,
    UnknownBatchError,
)
from tests.mistakes import (
    BATCH,
    GROUP,
    INF,
    NAMES,
    NAN,
    NEW,
    NOISE,
    ONE_OF_A,
    G,
    Mistakes,
    N,
    Watch,
    age_with,
    annotated,
    batch_with,
    check,
    combat,
    covariates,
    fingerprint,
    samples,
    table,
    values,
    with_value,
)

ROWS = Mistakes()
row, bad = ROWS.row, ROWS.bad


def named_twice(name: str) -> ad.AnnData:
    adata = annotated()
    adata.obs = pd.concat([adata.obs, adata.obs[[name]]], axis=1)
    return adata


def named_by_number(name: str) -> ad.AnnData:
    adata = annotated()
    adata.obs = adata.obs.rename(columns={name: 0})
    return adata


# fmt: off
# Batch labels.
MISSING = r"batch is missing for 1 of 24 samples \((row 3|s3)\).*(drop|label)"
row("batch: NaN", DesignError, MISSING,
    lambda w: bc.ComBat().fit(w(values()), batch=w(batch_with(NAN))))
row("batch: None", DesignError, MISSING,
    lambda w: bc.Standardize().fit(w(values()), batch=w(batch_with(None))))
row("batch: pd.NA", DesignError, MISSING,
    lambda w: bc.RemoveBatchEffect().fit(w(values()), batch=batch_with(pd.NA,
        "string")))
row("batch: missing category", DesignError, MISSING,
    lambda w: bc.pp.combat(w(annotated(batch=pd.Categorical(batch_with(NAN)))),
        "batch"))
row("batch: infinite", DesignError, "batch.*inf",
    lambda w: bc.ComBat().fit(w(values()), batch=[INF] + [1.0] * (N - 1)))
row("batch: one level", DesignError, "only one batch, 'a'",
    lambda w: bc.pp.combat(w(annotated(batch="a")), "batch"))
row("batch: one level that occurs", DesignError, "only one batch, 'a'",
    lambda w: bc.ComBat().fit(w(values()), batch=pd.Categorical(["a"] * N,
        categories=["a", "b"])))
row("batch: one level, linear", InputError, "only one batch, 'a'.*nuisance",
    lambda w: bc.pp.remove_batch_effect(w(annotated(batch="a")), "batch"))
row("batch: too short", InputError, "batch has 23 labels for 24 rows",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH[:-1]))
row("batch: samples are columns", InputError, "24 labels for 6 rows.*transpose",
    lambda w: bc.ComBat().fit(w(values().T), batch=BATCH))
row("batch: a name instead of labels", InputError,
    "batch must be one label per row.*'batch'",
    lambda w: bc.ComBat().fit(w(table()), batch="batch"))
row("batch: lists as labels", InputError, "batch must be one label per row",
    lambda w: bc.ComBat().fit(w(values()), batch=[[1]] * N))
row("batch: left out", InputError,
    "ComBat needs the batch.*batch=.*batch_column=.*metadata.routing",
    lambda w: bc.ComBat().fit(w(values())))
row("batch: left out, nuisance too", InputError,
    "RemoveBatchEffect needs the batch.*batch=",
    lambda w: bc.RemoveBatchEffect().fit(w(values())))
row("batch: two factors for ComBat", InputError, "(?i)one batch.*remove_?batch_?effect",
    lambda w: bc.ComBat().fit(w(values()), batch=w(samples()[["batch", "sex"]])))
row("batch: two factors for Standardize", InputError,
    "(?i)one batch.*remove_?batch_?effect",
    lambda w: bc.Standardize().fit(w(values()), batch=w(samples()[["batch", "sex"]])))
row("batch: every sample its own", DesignError,
    "0 of 6 features|every batch has one sample|24 samples in 24 batches",
    lambda w: bc.ComBat().fit(w(values()), batch=np.arange(N)))
row("batch_key: misspelt", MissingKeyError,
    "'bacth'.*adata.obs.*Did you mean 'batch'.*'age'",
    lambda w: bc.pp.combat(w(annotated()), "bacth"))
row("batch_key: named by a number", MissingKeyError, r"'0' is not.*named 0, .*map\(str\)",
    lambda w: bc.pp.combat(w(named_by_number("batch")), "0"))
row("batch_key: misspelt, bc.fit", MissingKeyError, "'Batch'.*Did you mean 'batch'",
    lambda w: bc.fit(w(annotated()), "Batch"))
row("batch_key: second factor misspelt", MissingKeyError, "'sx'.*Did you mean 'sex'",
    lambda w: bc.pp.remove_batch_effect(w(annotated()), ["batch", "sx"]))
row("batch_key: two columns of this name", InputError, "several columns named 'sex'",
    lambda w: bc.pp.combat(w(named_twice("sex")), "sex"))
row("covariates: two columns of this name", InputError, "several columns named 'sex'",
    lambda w: bc.pp.combat(w(named_twice("sex")), "batch", covariates="sex"))
row("batch_key: labels instead of a name", InputError,
    "batch_key must be the name of a column",
    lambda w: bc.pp.combat(w(annotated()), BATCH))
row("batch_key: None for ComBat", InputError, "batch_key",
    lambda w: bc.pp.combat(w(annotated()), None))
row("batch_key: None without nuisance", InputError, "batch_key.*nuisance",
    lambda w: bc.pp.remove_batch_effect(w(annotated()), None))
row("batch_key: no name in a list", InputError, "batch_key",
    lambda w: bc.pp.remove_batch_effect(w(annotated()), []))
row("batch_key: two for ComBat", InputError, "(?i)one batch.*remove_?batch_?effect",
    lambda w: bc.pp.combat(w(annotated()), ["batch", "sex"]))

# The matrix.
INFINITE = r"infinite values.*NaN.*logarithm of 0"
row("X: infinite", InputError, INFINITE,
    lambda w: bc.ComBat().fit(w(with_value(INF)), batch=BATCH))
row("X: -infinite in an AnnData", InputError, INFINITE,
    lambda w: bc.pp.standardize(w(annotated(with_value(-INF))), "batch"))
row("X: infinite, CSR", InputError, INFINITE,
    lambda w: bc.ComBat().fit(w(sp.csr_matrix(with_value(INF))), batch=BATCH))
row("X: infinite, CSC, linear", InputError, INFINITE,
    lambda w: bc.RemoveBatchEffect().fit(w(sp.csc_matrix(with_value(-INF))),
        batch=BATCH))
row("X: squares overflow where batches or categories differ", InputError,
    r"squares of some values.*1e308",
    lambda w: bc.RemoveBatchEffect().fit(w(values() + 1e160 * np.sign(NOISE[:, :1])),
        batch=BATCH, covariates=pd.DataFrame({"sign": NOISE[:, 0] > 0})))
row("X: squares underflow", InputError, r"squares of all values.*1e-308.*Rescale",
    lambda w: bc.RemoveBatchEffect().fit(w(values() * 1e-160), batch=BATCH))
row("X: NaN, CSR", InputError, r"sparse matrix contains missing values \(NaN\).*dense",
    lambda w: bc.ComBat().fit(w(sp.csr_matrix(with_value(NAN))), batch=BATCH))
row("X: NaN, CSC in an AnnData", InputError,
    r"sparse matrix contains missing values \(NaN\).*dense",
    lambda w: bc.pp.combat(w(annotated(sp.csc_matrix(with_value(NAN)))), "batch",
        dense=True))
row("X: nothing but NaN", DesignError, "0 of 6 features",
    lambda w: bc.ComBat().fit(w(np.full((N, G), NAN)), batch=BATCH))
row("X: objects", InputError, r"real numbers, not object.*astype\(float\)",
    lambda w: bc.ComBat().fit(w(values().astype(object)), batch=BATCH))
row("X: complex", InputError, "real numbers, not complex128",
    lambda w: bc.ComBat().fit(w(values().astype(complex)), batch=BATCH))
row("X: text", InputError, r"real numbers.*text.*astype\(float\)",
    lambda w: bc.Standardize().fit(w(values().astype(str)), batch=BATCH))
row("X: a table with a column of text", InputError,
    "real numbers, not object.*leave it out",
    lambda w: bc.ComBat().fit(w(table(note="x")), batch=BATCH))
row("X: dates", InputError, "real numbers, not datetime.*dates.*astype",
    lambda w: bc.ComBat().fit(w(values().astype("M8[s]")), batch=BATCH))
row("X: no samples", InputError, "0 samples × 4 features",
    lambda w: bc.ComBat().fit(w(np.empty((0, 4))), batch=[]))
row("X: no features", InputError, "24 samples × 0 features",
    lambda w: bc.ComBat().fit(w(np.empty((N, 0))), batch=BATCH))
row("X: an AnnData without samples", InputError, "0 samples × 6 features",
    lambda w: bc.pp.combat(w(annotated()[:0].copy()), "batch"))
row("X: an AnnData without features", InputError, "24 samples × 0 features",
    lambda w: bc.pp.standardize(w(annotated()[:, :0].copy()), "batch"))
row("X: a Series", InputError, r"matrix.*1-dimensional.*\(24,\).*x\[:, None\]",
    lambda w: bc.Standardize().fit(w(table()["g0"]), batch=BATCH))
row("X: one-dimensional", InputError,
    r"matrix of samples × features, not 1-dim.*x\[:, None\]",
    lambda w: bc.ComBat().fit(w(values()[:, 0]), batch=BATCH))
row("X: three-dimensional", InputError, r"not 3-dimensional of shape \(24, 6, 1\)",
    lambda w: bc.ComBat().fit(w(values()[:, :, None]), batch=BATCH))
row("X: ragged lists", InputError, "matrix of samples × features.*(length|rows)",
    lambda w: bc.ComBat().fit(w([[1, 2], [3]]), batch=[1, 2]))
row("X: None", InputError, "matrix of samples × features.*None",
    lambda w: bc.ComBat().fit(w(None), batch=BATCH))
row("X: the name of a file", InputError, "matrix of samples × features.*(str|text)",
    lambda w: bc.ComBat().fit(w("data.csv"), batch=BATCH))
row("X: an AnnData for an estimator", InputError, r"AnnData.*(pp\.|fit\()",
    lambda w: bc.ComBat().fit(w(annotated()), batch=BATCH))
row("X: squares overflow", InputError, "squares.*1e308.*[Rr]escale",
    lambda w: bc.ComBat().fit(w(values() * 1e300), batch=BATCH))
row("X: squares overflow, CSR", InputError, "squares.*1e308.*[Rr]escale",
    lambda w: bc.ComBat().fit(w(sp.csr_matrix(values() * 1e300)), batch=BATCH))
row("X: squares overflow, AnnData", InputError, "squares.*1e308.*[Rr]escale",
    lambda w: bc.pp.standardize(w(annotated(values() * 1e300)), "batch"))
row("X: all features constant", DesignError, "0 of 6 features vary",
    lambda w: bc.pp.combat(w(annotated(np.ones((N, G)))), "batch"))
row("X: all constant in one batch", DesignError,
    "0 of 6 features vary.*every feature is constant",
    lambda w: bc.ComBat().fit(w(np.where((BATCH == "a")[:, None], 1.0, values())),
        batch=BATCH))
row("X: one feature for ComBat", DesignError, "1 of 1 features.*standardize",
    lambda w: bc.ComBat().fit(w(values()[:, :1]), batch=BATCH))
row("X: no X", MissingKeyError, "no X.*'log'.*layer",
    lambda w: bc.pp.combat(w(ad.AnnData(obs=samples(), layers={"log": values()})),
        "batch"))
row("features: a name twice", InputError, "'g0' occurs more than once.*unique",
    lambda w: bc.ComBat().fit(w(table().rename(columns={"g1": "g0"})), batch=BATCH))
row("layer: misspelt", MissingKeyError, "no layer 'logg'.*Did you mean 'log'",
    lambda w: bc.pp.combat(w(annotated()), "batch", layer="logg"))
row("layer: misspelt, bc.fit", MissingKeyError, "no layer 'counts'.*'log'",
    lambda w: bc.fit(w(annotated()), "batch", layer="counts"))
row("layer: misspelt, pp.apply", MissingKeyError, "no layer 'lg'.*'log'",
    lambda w: bc.pp.apply(w(annotated()), w(bc.fit(annotated(), "batch")), layer="lg"))
row("adata: backed", InputError, r"in backed mode.*to_memory\(\)",
    lambda w: bc.pp.combat(w.backed(), "batch"))
row("adata: a table", InputError, "must be an AnnData, not a DataFrame.*estimators",
    lambda w: bc.pp.combat(w(table()), "batch"))
row("adata: an array, bc.fit", InputError,
    "must be an AnnData, not an? ndarray.*estimators",
    lambda w: bc.fit(w(values()), "batch"))
row("dense=False", TooLargeError, "24 × 6 values.*dense=True",
    lambda w: bc.pp.combat(w(annotated(sp.csr_matrix(values()))), "batch", dense=False))
row("dense=False, pp.apply", TooLargeError, "24 × 6 values.*dense=True",
    lambda w: bc.pp.apply(w(annotated(sp.csr_matrix(values()))), w(bc.fit(annotated(),
        "batch")), dense=False))


@bad(
    "dense: too large",
    TooLargeError,
    MemoryError,
    "take 1.1 KiB, and 1000 B are free.*dense=True",
)
def _(watch: Watch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchcorr.estimators.densify.free_memory", lambda: 1000)
        bc.pp.combat(watch(annotated(sp.csr_matrix(values()))), "batch")


@bad("dense: too large, transform", TooLargeError, MemoryError, "1000 B are free")
def _(watch: Watch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchcorr.estimators.densify.free_memory", lambda: 1000)
        watch(combat()).transform(watch(sp.csr_matrix(values())), batch=BATCH)


# Covariates and nuisances.
row("covariate: misspelt", MissingKeyError, "covariate 'sx'.*Did you mean 'sex'",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates="sx"))
row("covariate: misspelt in a list", MissingKeyError,
    "covariate 'agee'.*Did you mean 'age'",
    lambda w: bc.fit(w(annotated()), "batch", covariates=["sex", "agee"]))
row("covariate: names and numbers", InputError,
    "covariates.*(3|names|columns)(?!.*transpose)",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates=["sex", 3]))
row("nuisance: misspelt", MissingKeyError, "nuisance 'agee'.*Did you mean 'age'",
    lambda w: bc.pp.remove_batch_effect(w(annotated()), "batch", nuisance="agee"))
row("nuisance: a formula", InputError, "nuisance must be columns.*not a formula",
    lambda w: bc.pp.remove_batch_effect(w(annotated()), "batch", nuisance="~ age"))
row("nuisance: is the batch", DesignError,
    "'batch' is the batch and cannot be a nuisance",
    lambda w: bc.pp.remove_batch_effect(w(annotated()), "batch", nuisance="batch"))
row("nuisance: for standardize", InputError, "standardize has no nuisance.*remove_batch_effect",
    lambda w: bc.pp.correct(w(annotated()), "batch", "standardize", nuisance="age"))
row("method: surrogate variables", InputError, "estimates columns for nuisance=",
    lambda w: bc.pp.correct(w(annotated()), "batch", "surrogate_variables"))
row("surrogate variables: a value is missing", InputError, r"1 features.*\(g3\)",
    lambda w: bc.tl.surrogate_variables(w(annotated(with_value(NAN))),
        covariates="sex"))
row("surrogate variables: squares overflow", InputError, r"6 features.*huge.*\(g0",
    lambda w: bc.tl.surrogate_variables(w(annotated(1e160 * values())),
        covariates="sex"))
row("surrogate variables: squares underflow", InputError, "too small to be squared",
    lambda w: bc.tl.surrogate_variables(w(annotated(1e-160 * values())),
        method="ruvg", controls=[True] * 6, n_variables=1))
row("surrogate variables: no such method", InputError, "no method 'svd'",
    lambda w: bc.tl.surrogate_variables(w(annotated()), method="svd"))
row("missing: no such way", InputError, "'error' or 'level'",
    lambda w: bc.pp.standardize(w(annotated()), "batch", missing="drop"))
row("obsm: none of the name", MissingKeyError, "no 'X_pca' in adata.obsm",
    lambda w: bc.pp.combat(w(annotated()), "batch", obsm="X_pca"))
row("subject: no such column", MissingKeyError, "subject 'person' is not a column",
    lambda w: bc.pp.combat(w(annotated()), "batch", subject="person"))
row("batch: several factors", InputError, "cross=True.*remove_batch_effect",
    lambda w: bc.pp.combat(w(annotated(day=["x", "y"] * 12)), ["batch", "day"]))
row("CovBat: too many components", InputError, "more than the",
    lambda w: bc.CovBat(n_components=99).fit(w(values()), batch=BATCH))
row("ComBat-seq: an unknown reference", InputError, "not one of the batches",
    lambda w: bc.ComBatSeq(reference="z").fit(w(np.round(values())), batch=BATCH))
row("covariate: NaN", DesignError, "'age' is missing in 1 of 24 samples.*s4",
    lambda w: bc.pp.combat(w(annotated(age=age_with(NAN))), "batch", covariates="age"))
row("covariate: infinite", DesignError, "'age' is missing or infinite in 1 of 24",
    lambda w: bc.pp.combat(w(annotated(age=age_with(INF))), "batch", covariates=["sex",
        "age"]))
row("covariate: NaN in an array", DesignError, r"covariate\[0\] is missing in 1 of 24",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH, covariates=w(age_with(NAN)[:,
        None])))
row("covariate: missing label", DesignError, "'sex' is missing for 1 of 24 samples",
    lambda w: bc.pp.combat(w(annotated(sex=[None] + ["f", "m", "m"] * 7 + ["f", "m"])),
        "batch", covariates="sex"))
row("covariate: numbers as text", DesignError,
    "'age'.*numbers stored as text.*to_numeric",
    lambda w: bc.pp.combat(w(annotated(age=[f"{40 + i}.5" for i in range(N)])),
        "batch", covariates="age"))
row("covariate: an identifier", DesignError, "'id'.*identifier",
    lambda w: bc.pp.combat(w(annotated(id=[f"p{i}" for i in range(N)])), "batch",
        covariates="id"))
row("covariate: dates", InputError,
    "'day' holds datetime.*number of days|numbers of days",
    lambda w: bc.pp.combat(w(annotated(day=pd.date_range("2024", periods=N))), "batch",
        covariates="day"))
row("covariate: is the batch", DesignError,
    "'batch' is the batch and cannot be a covariate",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates="batch"))
row("covariate: is the batch, formula", DesignError, "^'batch' is",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates="~ sex + batch"))
row("covariate: a copy of the batch", DesignError,
    r"'site' is confounded.*'site\[b\]' and 'site\[c\]' do not vary",
    lambda w: bc.Standardize().fit(w(values()), batch=BATCH,
        covariates=w(pd.Series(BATCH, name="site"))))
for face in ("combat", "standardize", "remove_batch_effect"):
    row(f"covariate: confounded, {face}", DesignError,
        "^'group' is confounded with batch.*one batch, or drop.*left out",
        lambda w, face=face: bc.pp.correct(w(annotated(group=GROUP)), "batch", face,
            covariates=["sex", "group"]))
row("covariate: confounded, formula", DesignError, "^'group' is confounded with batch",
    lambda w: bc.fit(w(annotated(group=GROUP)), "batch", covariates="~ sex + group"))
row("covariates: repeat each other", DesignError,
    "'gender' and 'sex' repeat each other",
    lambda w: bc.pp.combat(w(annotated(gender=np.tile(["w", "h"], N // 2))), "batch",
        covariates=["sex", "gender"]))
row("covariates: too few rows", InputError, "covariates have 22 rows for 24 rows",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH, covariates=NOISE[:22, :2]))
row("covariates: other samples", InputError,
    "covariate table.*index.*adata.obs_names.*reset_index",
    lambda w: bc.pp.combat(w(annotated()), "batch",
        covariates=w(covariates().rename(lambda s: f"{s}x"))))
row("covariates: reversed rows under numbers", InputError,
    "covariate table.*index.*adata.obs_names.*reset_index",
    lambda w: bc.pp.combat(w(annotated()), "batch",
        covariates=w(covariates().reset_index(drop=True)[::-1])))
row("covariates: a name for an estimator", InputError,
    "covariates must be a DataFrame.*'sex'",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH, covariates="sex"))
row("covariates: a dict", InputError, "covariates must be a DataFrame.*dict",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates={"sex": 1}))
row("covariates: labels in an array", InputError,
    "covariates given as an array must be a 2-D array.*DataFrame",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH,
        covariates=samples()[["sex"]].to_numpy()))
row("covariates: a name twice", InputError, "several columns named 'sex'.*rename",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH,
        covariates=w(pd.concat([covariates()[["sex"]]] * 2, axis=1))))
row("covariates: more than samples", DesignError, "30.*24 samples",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH, covariates=NOISE))
row("covariates: no residuals, ComBat", DesignError,
    "24 samples.*3 batches.*21 covariate",
    lambda w: bc.ComBat().fit(w(values()), batch=BATCH, covariates=NOISE[:, :21]))
row("covariates: no residuals, Standardize", DesignError,
    "24 samples.*3 batches.*21 covariate",
    lambda w: bc.Standardize().fit(w(values()), batch=BATCH, covariates=NOISE[:, :21]))
row("formula: hostile", InputError, "__import__.*not allowed.*Allowed are",
    lambda w: bc.pp.combat(w(annotated()), "batch",
        covariates="~ __import__('os').system('touch owned')"))
row("formula: hostile, estimator", InputError, "__class__.*not allowed.*Allowed are",
    lambda w: bc.ComBat(formula="~ sex.__class__").fit(w(values()), batch=BATCH,
        covariates=w(covariates())))
row("formula: misspelt column", MissingKeyError, "'sexx'.*Did you mean 'sex'",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates="~ sexx + age"))
row("formula: number of a label", InputError, r"log\(sex\) needs numbers",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates="~ log(sex)"))
row("formula: nothing in it", InputError, "A formula must be text such as",
    lambda w: bc.pp.combat(w(annotated()), "batch", covariates="~"))
row("formula: without a table", InputError, "'~ sex' needs a table.*covariates=",
    lambda w: bc.ComBat(formula="~ sex").fit(w(values()), batch=BATCH))
row("formula: of an array", InputError, "'~ sex' needs the columns.*DataFrame.*ndarray",
    lambda w: bc.ComBat(formula="~ sex").fit(w(values()), batch=BATCH,
        covariates=NOISE[:, :2]))
row("batch_column: X is no table", InputError,
    "batch_column.*'batch'.*DataFrame.*ndarray",
    lambda w: bc.ComBat(batch_column="batch").fit(w(values())))
row("batch_column: misspelt", MissingKeyError,
    "no column 'bacth'.*Did you mean 'batch'",
    lambda w: bc.ComBat(batch_column="bacth").fit(w(table(batch=BATCH))))
row("batch_column: not there at transform", MissingKeyError, "no column 'batch'",
    lambda w:
        w(bc.ComBat(batch_column="batch").fit(table(batch=BATCH))).transform(w(table())))
row("covariate_columns: misspelt", MissingKeyError,
    "no column 'agee'.*Did you mean 'age'",
    lambda w: bc.ComBat(covariate_columns=["agee"]).fit(w(table(age=age_with(1.0))),
        batch=BATCH))
row("covariate_columns: no list", MissingKeyError, "no column 3",
    lambda w: bc.ComBat(covariate_columns=3).fit(w(table(age=age_with(1.0))),
        batch=BATCH))

# Methods and their parameters.
row("method: misspelt", MissingKeyError,
    "no method 'combatt'.*Did you mean 'combat'.*'standardize'",
    lambda w: bc.pp.correct(w(annotated()), "batch", method="combatt"))
row("method: the class's name", MissingKeyError,
    "no method 'ComBat'.*Did you mean 'combat'",
    lambda w: bc.fit(w(annotated()), "batch", method="ComBat"))
row("parameter: misspelt", InputError,
    "combat has no parameter 'meanonly'.*Did you mean 'mean_only'",
    lambda w: bc.pp.correct(w(annotated()), "batch", meanonly=True))
row("parameter: of another method", InputError,
    "standardize has no parameter 'mean_only'.*'scale'",
    lambda w: bc.fit(w(annotated()), "batch", method="standardize", mean_only=True))
row("reference: unknown, ComBat", InputError, "reference 'A'.*'a', 'b', 'c'",
    lambda w: bc.pp.combat(w(annotated()), "batch", reference="A"))
row("reference: unknown, Standardize", InputError, "reference 7.*'a', 'b', 'c'",
    lambda w: bc.Standardize(reference=7).fit(w(values()), batch=BATCH))
row("reference: one sample, ComBat", DesignError, "reference batch 'a' has only one sample",
    lambda w: bc.ComBat(reference="a").fit(w(values()), batch=ONE_OF_A))
row("reference: one sample, Standardize", DesignError,
    "reference batch 'a' has only one sample",
    lambda w: bc.pp.standardize(w(annotated(batch=ONE_OF_A)), "batch", reference="a"))
row("target: unknown", InputError, "target must be one of.*'pooled', 'unit'.*'zscore'",
    lambda w: bc.pp.standardize(w(annotated()), "batch", target="zscore"))
row("target: unit with a reference", InputError, "target='unit' and reference=",
    lambda w: bc.pp.standardize(w(annotated()), "batch", target="unit", reference="a"))
row("target: unit with covariates", InputError, "target='unit'.*covariate",
    lambda w: bc.pp.standardize(w(annotated()), "batch", target="unit",
        covariates="sex"))
row("center and scale: neither", InputError, "center=False and scale=False",
    lambda w: bc.pp.standardize(w(annotated()), "batch", center=False, scale=False))
row("weights: shape", InputError, r"weights.*per sample \(24,\).*\(24, 6\).*\(6,\)",
    lambda w: bc.RemoveBatchEffect().fit(w(values()), batch=BATCH,
        weights=w(np.ones(G))))
row("weights: NaN", InputError, "weights contain NaN",
    lambda w: bc.pp.remove_batch_effect(w(annotated()), "batch", weights=w(np.full((N,
        G), NAN))))
row("weights: infinite", InputError, "weights.*infinite",
    lambda w: bc.RemoveBatchEffect().fit(w(values()), batch=BATCH, weights=w(np.full(N,
        INF))))
row("weights: text", InputError, "weights.*numbers",
    lambda w: bc.RemoveBatchEffect().fit(w(values()), batch=BATCH, weights=["x"] * N))
row("weights: all zero", DesignError, "weight",
    lambda w: bc.RemoveBatchEffect().fit(w(values()), batch=BATCH,
        weights=w(np.zeros(N))))
row("weights: for ComBat", InputError, "combat has no weights.*remove_batch_effect",
    lambda w: bc.pp.correct(w(annotated()), "batch", weights=np.ones(N)))

# A frozen correction and other samples.
row("transform: unseen batch", UnknownBatchError,
    "'z'.*'a', 'b', 'c'.*Fit again.*add_batches",
    lambda w: w(combat()).transform(w(values()), batch=NEW))
row("transform: unseen batch, copy=False", UnknownBatchError,
    "'z'.*'a', 'b', 'c'.*Fit again.*add_batches",
    lambda w: w(bc.ComBat(copy=False).fit(values(),
        batch=BATCH)).transform(w(values()), batch=batch_with("z")))
row("apply: unseen batch", UnknownBatchError, "'z'.*Fit again.*add_batches",
    lambda w: bc.pp.apply(w(annotated(batch=NEW)), w(bc.fit(annotated(), "batch"))))
row("apply: unseen batch, a view", UnknownBatchError, "'z'.*Fit again.*add_batches",
    lambda w: bc.pp.apply(w(annotated(batch=NEW)[2:]), w(bc.fit(annotated(), "batch"))))
row("inverse_transform: unseen batch", UnknownBatchError, "'z'.*add_batches",
    lambda w: w(combat()).inverse_transform(w(values()), batch=NEW))
row("transform: NaN in batch", DesignError, MISSING,
    lambda w: w(combat()).transform(w(values()), batch=batch_with(NAN)))
row("transform: batch left out", InputError, "needs the batch.*batch=.*batch_column=",
    lambda w: w(combat()).transform(w(values())))
row("transform: batch too short", InputError, "23 labels for 24 rows",
    lambda w: w(combat()).transform(w(values()), batch=BATCH[1:]))
row("transform: fewer batch factors", DesignError, "2 batch factor.*1",
    lambda w: w(bc.RemoveBatchEffect().fit(values(), batch=samples()[["batch",
        "sex"]])).transform(w(values()), batch=BATCH))
row("transform: unseen covariate level", DesignError,
    "'sex' has labels that fit has not seen.*'x'.*'f', 'm'",
    lambda w: w(combat(covariates=covariates())).transform(w(values()), batch=BATCH,
        covariates=w(covariates(sex="x"))))
row("transform: covariates left out", InputError,
    "covariates.*sex, age.*leak.*mean_only",
    lambda w: w(combat(covariates=covariates())).transform(w(values()), batch=BATCH))
row("transform: a covariate left out", MissingKeyError, "no column 'sex'",
    lambda w: w(combat(covariates=covariates())).transform(w(values()), batch=BATCH,
        covariates=w(covariates()[["age"]])))
row("transform: numbers became labels", DesignError, "'age' had numbers.*labels",
    lambda w: w(combat(covariates=covariates()[["age"]])).transform(w(values()),
        batch=BATCH, covariates=w(covariates(age="old"))))
row("transform: fewer design columns", InputError, "1 design columns.*2",
    lambda w: w(combat(covariates=NOISE[:, :2])).transform(w(values()), batch=BATCH,
        covariates=NOISE[:, :1]))
row("apply: covariate not in obs", MissingKeyError, "covariate 'dose'.*adata.obs",
    lambda w: bc.pp.apply(w(annotated()), w(bc.fit(annotated(dose=NOISE[:, 0]),
        "batch", covariates="dose"))))
row("transform: nuisance left out", InputError, "nuisance=.*'age'",
    lambda w: w(bc.RemoveBatchEffect().fit(values(), batch=BATCH,
        nuisance=samples()[["age"]])).transform(w(values()), batch=BATCH))
row("features: in another order", InputError,
    r"another order(?!.*ComBat\.feature_names_out_).*reorder|reorder.*another order",
    lambda w: w(bc.ComBat().fit(table(),
        batch=BATCH)).transform(w(table()[NAMES[::-1]]), batch=BATCH))
row("features: in another order, batch among them", InputError,
    r"another order.*X\[estimator\.feature_names_in_\]",
    lambda w: w(bc.ComBat(batch_column="batch").fit(table().assign(batch=BATCH))
        ).transform(w(table()[NAMES[::-1]].assign(batch=BATCH))))
row("features: one missing", InputError, r"missing.*g2|g2.*missing",
    lambda w: w(bc.ComBat().fit(table(),
        batch=BATCH)).transform(w(table().drop(columns="g2")), batch=BATCH))
row("features: one too many", InputError, r"never seen.*new|new.*never seen",
    lambda w: w(bc.ComBat().fit(table(), batch=BATCH)).transform(w(table(new=1.0)),
        batch=BATCH))
row("features: one renamed", InputError, "1 missing.*g0.*1 never seen.*h0",
    lambda w: w(bc.ComBat().fit(table(),
        batch=BATCH)).transform(w(table().rename(columns={"g0": "h0"})), batch=BATCH))
row("features: too few in an array", InputError, "3 features.*6 features",
    lambda w: w(combat()).transform(w(values()[:, :3]), batch=BATCH))
row("features: samples are columns", InputError,
    "24 features.*6 features.*[Ss]amples must be rows.*transpose",
    lambda w: w(combat()).transform(w(values().T), batch=BATCH))
row("apply: features missing", MissingKeyError, "2 of 6 features.*g0, g1",
    lambda w: bc.pp.apply(w(annotated()[:, 2:].copy()), w(bc.fit(annotated(),
        "batch"))))
row("apply: features missing, a view", MissingKeyError, "2 of 6 features.*g0, g1",
    lambda w: bc.pp.apply(w(annotated()[:, 2:]), w(bc.fit(annotated(), "batch"))))


@bad(
    "apply: var_names twice",
    InputError,
    ValueError,
    "not unique.*var_names_make_unique",
)
def _(watch: Watch) -> None:
    correction = watch(bc.fit(annotated(), "batch"))
    adata = annotated()
    adata.var_names = ["g0", "g0", *NAMES[1:5]]
    bc.pp.apply(watch(adata), correction)


row("apply: not a correction", InputError,
    "correction.*(fit|load).*str|correction.*str.*(fit|load)",
    lambda w: bc.pp.apply(w(annotated()), "combat"))
row("apply: batch column unknown", InputError, "batch_key",
    lambda w: bc.pp.apply(w(annotated()), w(combat())))
row("uns: batchcorr is not ours", InputError,
    r"uns\['batchcorr'\]|uns\[\"batchcorr\"\]",
    lambda w: bc.pp.combat(w(foreign_uns("a note")), "batch"))
row("uns: the record is damaged", InputError,
    r"uns\['batchcorr'\]|uns\[\"batchcorr\"\]",
    lambda w: bc.pp.combat(w(foreign_uns({"X": "{half of"})), "batch"))


def foreign_uns(value: Any) -> ad.AnnData:
    adata = annotated()
    adata.uns["batchcorr"] = value
    return adata


row("partial_fit: batches not declared", InputError,
    r"first call of partial_fit must declare.*batches=\[",
    lambda w: bc.ComBat().partial_fit(w(values()), batch=BATCH))
row("partial_fit: an undeclared batch", DesignError, "'c'.*'a', 'b'.*[Dd]eclare",
    lambda w: bc.ComBat().partial_fit(w(values()), batch=BATCH, batches=["a", "b"]))
row("partial_fit: an undeclared batch later", DesignError,
    "'z'.*'a', 'b', 'c'.*[Dd]eclare",
    lambda w: w(bc.ComBat().partial_fit(values(), batch=BATCH, batches=["a", "b",
        "c"])).partial_fit(w(values()), batch=NEW))
row("partial_fit: other features", InputError, "3 features.*6 features",
    lambda w: w(bc.ComBat().partial_fit(values(), batch=BATCH, batches=["a", "b",
        "c"])).partial_fit(w(values()[:, :3]), batch=BATCH))
row("partial_fit: a batch that never came", DesignError, "batches d have no samples",
    lambda w: (bc.ComBat().partial_fit(values(), batch=BATCH, batches=["a", "b", "c",
        "d"]).transform(w(values()), batch=BATCH)))
row("partial_fit: after load", InputError, "loaded.*add_batches",
    lambda w: w(bc.load(w.saved())).partial_fit(w(values()), batch=BATCH))
row("add_batches: known batches", DesignError,
    "'a', 'b', 'c'.*already in the correction.*fit again",
    lambda w: w(combat()).add_batches(w(values()), batch=BATCH))
row("add_batches: other features", InputError, "2 features.*expecting 6",
    lambda w: w(combat()).add_batches(w(values()[:, :2]), batch=NEW))
row("add_batches: labels missing", DesignError, "batch is missing for 24 of 24",
    lambda w: w(combat()).add_batches(w(values()), batch=[None] * N))
row("add_batches: covariates left out", InputError, "covariates.*'sex', 'age'",
    lambda w: w(combat(covariates=covariates())).add_batches(w(values()), batch=NEW))
row("add_batches: no batches so far", DesignError, "no batches, so none can be added",
    lambda w: w(bc.RemoveBatchEffect().fit(values(),
        nuisance=samples()[["age"]])).add_batches(w(values()), batch=NEW,
        nuisance=samples()[["age"]]))

# Unfitted estimators: scikit-learn's error as well as ours.
for name in ("transform", "inverse_transform", "add_batches"):
    row(f"unfitted: {name}", BatchCorrError,
        r"This Standardize is not fitted yet.*fit\(",
        lambda w, name=name: getattr(w(bc.Standardize()), name)(w(values()),
            batch=BATCH), NotFittedError)
row("unfitted: save", BatchCorrError, r"This ComBat is not fitted yet.*fit\(",
    lambda w: w(bc.ComBat()).save(w.path()), NotFittedError)
row("unfitted: apply", BatchCorrError, r"This ComBat is not fitted yet.*fit\(",
    lambda w: bc.pp.apply(w(annotated()), w(bc.ComBat())), NotFittedError)

# Files.
NO_CORRECTION = (
    r"correction\.npz is not a (complete )?correction|correction\.npz is damaged"
)
row("save: to a folder", FileError, "is a folder.*name of a file",
    lambda w: w(combat()).save(w.path("")))
row("save: to a folder that is not there", FileError,
    "nowhere.*cannot be written.*[Cc]hoose",
    lambda w: w(combat()).save(w.path("nowhere/correction.npz")))
row("load: no file", FileError, r"no file.*correction\.npz",
    lambda w: bc.load(w.path()))
row("load: a folder", FileError, "not a correction|folder",
    lambda w: bc.load(w.path("")))
row("load: cut in half", FileError, NO_CORRECTION,
    lambda w: bc.load(w.damaged(2)))
row("load: a byte flipped", FileError, NO_CORRECTION,
    lambda w: bc.load(w.damaged(84, 85)))
row("load: bytes zeroed", FileError, NO_CORRECTION,
    lambda w: bc.load(w.damaged(300, 340)))
row("load: empty", FileError, NO_CORRECTION,
    lambda w: bc.load(w.written(b"")))
row("load: text", FileError, NO_CORRECTION,
    lambda w: bc.load(w.written(b"no" * 99)))
row("load: a pickle", FileError, NO_CORRECTION,
    lambda w: bc.load(w.written(pickle.dumps(combat()))))
row("load: a pickle inside", FileError, NO_CORRECTION,
    lambda w: bc.load(w.npz(header=np.array([{"schema": 1}], dtype=object))))
row("load: other arrays", FileError, NO_CORRECTION,
    lambda w: bc.load(w.npz(x=np.ones(3))))


@bad("load: one array", FileError, OSError, NO_CORRECTION)
def _(watch: Watch) -> None:
    with (watch.folder / "correction.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    bc.load(watch.path())


row("load: newer schema", FileError, "newer.*schema 99.*update",
    lambda w: bc.load(w.saved(schema=99)))
for what, changes in {
    "schema is text": {"schema": "x"},
    "unknown method": {"method": "nope"},
    "unknown parameter": {"parameters": {"nope": 1}},
    "no metadata": {"metadata": None},
    "metadata is a list": {"metadata": []},
    "no scale": {"correction__scale": None},
    "scale of other batches": {"correction__scale": np.ones((2, G))},
    "coefficients of other features": {"correction__coefficients": np.ones((2, 5))},
    "aim of other features": {"aim__location": np.ones(2)},
    "fewer feature names": {"features": ["a", "b"]},
    "arrays of text": {
        "correction__scale": np.full((3, G), "a"),
        "correction__shift": np.full((3, G), "a"),
    },
}.items():
    row(f"load: {what}", FileError, NO_CORRECTION,
        lambda w, changes=changes: bc.load(w.saved(**changes)))
# fmt: on


@pytest.mark.parametrize("mistake", ROWS)
def test_a_mistake_is_explained_and_changes_nothing(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(mistake, tmp_path)


def test_the_table_is_long():
    names = [param.id for param in ROWS]
    assert len(set(names)) == len(names) >= 60


# -- what looks like a mistake and is none ---------------------------------------


@pytest.mark.parametrize("method", ["combat", "remove_batch_effect", "standardize"])
def test_unused_categories_are_no_batches(method):
    labels = pd.Categorical(BATCH, categories=["z", "a", "b", "y", "c"])
    adata, plain = annotated(batch=labels), annotated()
    bc.pp.correct(adata, "batch", method)
    bc.pp.correct(plain, "batch", method)
    np.testing.assert_allclose(adata.X, plain.X, rtol=1e-12)
    assert bc.fit(annotated(batch=labels), "batch").batches_ == ("a", "b", "c")


def test_one_batch_is_the_identity_for_standardize():
    adata = annotated(batch="a")
    bc.pp.standardize(adata, "batch")
    np.testing.assert_array_equal(adata.X, values())


@pytest.mark.parametrize("value", [0.0, 7.25])
def test_a_feature_constant_in_a_batch_comes_back_unchanged(value):
    x = values()
    x[BATCH == "b", 4] = value
    y = bc.ComBat().fit_transform(x, batch=BATCH)
    np.testing.assert_array_equal(y[:, 4], x[:, 4])
    assert (y[:, :4] != x[:, :4]).all()


def test_a_feature_constant_everywhere_comes_back_unchanged():
    x = values()
    x[:, 1] = 0.1
    for estimator in (bc.ComBat(), bc.Standardize(), bc.RemoveBatchEffect()):
        y = estimator.fit_transform(x, batch=BATCH)
        np.testing.assert_allclose(y[:, 1], x[:, 1], rtol=1e-15)


WHOLE = np.random.default_rng(5).integers(0, 12, (N, G))


@pytest.mark.parametrize("estimator", [bc.ComBat, bc.Standardize, bc.RemoveBatchEffect])
@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        pytest.param(WHOLE.astype(np.int64), np.float64, id="int64"),
        pytest.param(WHOLE.astype(np.uint8), np.float32, id="uint8"),
        pytest.param(WHOLE % 2 == 0, np.float32, id="bool"),
        pytest.param(WHOLE.astype(np.float16), np.float32, id="float16"),
        pytest.param(WHOLE.astype(np.float32), np.float32, id="float32"),
        pytest.param(WHOLE.astype(np.float64), np.float64, id="float64"),
        pytest.param(WHOLE.astype(">f4"), np.float32, id="big-endian float32"),
        pytest.param(WHOLE.astype(">f8"), np.float64, id="big-endian float64"),
        pytest.param(WHOLE.astype(np.longdouble), np.float64, id="longdouble"),
        pytest.param(np.asfortranarray(WHOLE, float), np.float64, id="Fortran order"),
        pytest.param(WHOLE[:, ::-1] * 1.0, np.float64, id="reversed"),
        pytest.param(WHOLE.tolist(), np.float64, id="lists"),
        pytest.param(np.ma.masked_array(WHOLE * 1.0), np.float64, id="masked array"),
        pytest.param(pd.DataFrame(WHOLE), np.float64, id="DataFrame"),
        pytest.param(sp.coo_matrix(WHOLE * 1.0), np.float64, id="COO"),
        pytest.param(sp.csr_array(WHOLE.astype(np.int32)), np.float64, id="int CSR"),
        pytest.param(sp.csc_matrix(WHOLE % 2 == 0), np.float32, id="bool CSC"),
    ],
)
@pytest.mark.filterwarnings("ignore::batchcorr.errors.DensifyWarning")
def test_every_matrix_of_numbers_is_taken(estimator, x, dtype):
    before = fingerprint(x)
    y = estimator().fit_transform(x, batch=BATCH)
    wide = x.toarray() if sp.issparse(x) else np.asarray(x)
    expected = estimator().fit_transform(wide.astype(np.float64), batch=BATCH)
    assert y.dtype == dtype
    assert y.dtype.isnative
    np.testing.assert_allclose(
        y, expected, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-5
    )
    assert fingerprint(x) == before


def test_no_samples_can_be_transformed():
    estimator = combat(covariates=covariates())
    y = estimator.transform(values()[:0], batch=BATCH[:0], covariates=covariates()[:0])
    assert y.shape == (0, G)


def test_a_failed_fit_leaves_the_earlier_fit_as_it_was():
    estimator = combat()
    before = estimator.transform(values(), batch=BATCH)
    with pytest.raises(DesignError):
        estimator.fit(values()[:, ::-1], batch=["a"] * N)
    np.testing.assert_array_equal(estimator.transform(values(), batch=BATCH), before)


def test_no_saved_file_can_be_damaged_so_that_the_error_is_not_ours(tmp_path):
    path = tmp_path / "correction.npz"
    combat().save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    faults = []
    for place in rng.integers(0, len(content), 150).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            bc.load(path)
        except FileError:
            continue
        except Exception as error:  # noqa: BLE001
            faults.append(f"byte {place}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults[:5])
