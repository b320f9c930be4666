"""What users get wrong with tests and audits, and what they are told: one row a mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.errors import DesignError, InputError, MissingKeyError
from tests.mistakes import (
    BATCH,
    INF,
    NAN,
    NOISE,
    Mistakes,
    N,
    annotated,
    batch_with,
    check,
    values,
    with_value,
)

ROWS = Mistakes()
row = ROWS.row
WHO = np.resize([f"p{k}" for k in range(9)], N)
COUNTS = np.random.default_rng(4).poisson(30, (N, 6))


def differential_of(
    x: Any = None, *, test: Any = "sex", batch: Any = "batch", **options: Any
):
    """A call of `tl.differential` on some samples; columns are those that `of` names."""
    columns = options.pop("of", {})

    def call(watch: Any) -> Any:
        return bc.tl.differential(
            watch(annotated(x, **columns)), batch, test, **options
        )

    return call


def auditing(x: Any = None, *, batch: Any = "batch", **options: Any):
    columns = options.pop("of", {})

    def call(watch: Any) -> Any:
        return bc.tl.audit(watch(annotated(x, **columns)), batch, **options)

    return call


def in_layer(name: str, layer: Any, **options: Any):
    def call(watch: Any) -> Any:
        adata = annotated()
        adata.layers[name] = layer
        return bc.tl.differential(watch(adata), "batch", "sex", **options)

    return call


def corrected(method: str):
    def call(watch: Any) -> Any:
        adata = annotated()
        bc.pp.correct(adata, "batch", method, key_added="corrected")
        return bc.tl.differential(watch(adata), "batch", "sex", layer="corrected")

    return call


def with_sparse_nan() -> Any:
    return sp.csr_matrix(with_value(NAN))


# fmt: off
# What is tested.
row("test: nothing varies within a batch", InputError, "No feature varies",
    differential_of(np.full((N, 6), 7.5)))
row("test: no column", MissingKeyError, "'sexx'.*adata.obs.*Did you mean 'sex'",
    differential_of(test="sexx"))
row("test: none", InputError, "name of a column.*not None", differential_of(test=None))
row("test: a list of columns", InputError, "test must be the name of a column",
    differential_of(test=["sex", "age"]))
row("test: no level", InputError, "'sex' has no level 'x'.*'f'",
    differential_of(test=("sex", "x", "f")))
row("test: a level against itself", InputError, "weights that sum to 0",
    differential_of(test=("sex", "f", "f")))
row("test: weights do not sum to 0", InputError, "weights that sum to 0",
    differential_of(test=("sex", {"f": 1, "m": 1})))
row("test: weights are no numbers", InputError, "weights that sum to 0",
    differential_of(test=("sex", {"f": "one", "m": -1})))
row("test: weights are NaN", InputError, "weights that sum to 0",
    differential_of(test=("sex", {"f": NAN, "m": NAN})))
row("test: levels of numbers", InputError, "'age' contains numbers and has no level '1'",
    differential_of(test=("age", "1", "2")))
row("test: the batch", DesignError, "'batch' is.*batch",
    differential_of(test="batch"))
row("test: confounded with batch", DesignError, "'site' is confounded with batch",
    differential_of(test="site", of={"site": np.where(BATCH == "a", "x", "y")}))
row("test: one level", DesignError, "'one'.*does not vary",
    differential_of(test="one", of={"one": "x"}))
row("test: missing for a sample", DesignError, "'group' is missing for 1 of 24",
    differential_of(test="group", of={"group": batch_with(None)}))
row("test: infinite for a sample", InputError, "'dose'.*infinite|infinite.*'dose'",
    differential_of(test="dose", of={"dose": np.r_[INF, np.arange(N - 1.0)]}))
row("test: says what a covariate says", DesignError, "repeat each other",
    differential_of(covariates="twin", of={"twin": np.tile(["u", "v"], N // 2)}))
row("test: not in the formula", MissingKeyError, "'grp'.*not a column",
    differential_of(test="grp", covariates="~ sex"))

# Model and values.
row("differential: no AnnData", InputError, "must be an AnnData",
    lambda w: bc.tl.differential(w(values()), "batch", "sex"))
row("differential: no batch column", MissingKeyError, "'bach'.*Did you mean 'batch'",
    differential_of(batch="bach"))
row("differential: no layer", MissingKeyError, "no layer 'logs'.*'log'",
    differential_of(layer="logs"))
row("differential: no covariate", MissingKeyError, "'aeg'.*Did you mean 'age'",
    differential_of(covariates="aeg"))
row("differential: no nuisance", MissingKeyError, "'aeg'.*Did you mean 'age'",
    differential_of(nuisance=["aeg"]))
row("differential: batch as covariate", DesignError, "'batch' is the batch",
    differential_of(covariates="batch"))
row("differential: missing batch", DesignError, "batch is missing for 1 of 24",
    differential_of(of={"batch": batch_with(None)}))
row("differential: a sample a batch", DesignError, "24 batches|no degrees of freedom|too many to estimate",
    differential_of(of={"batch": [f"b{k}" for k in range(N)]}))
row("differential: more covariates than samples", DesignError, "30 covariate|too many to estimate",
    differential_of(covariates=NOISE))
row("differential: infinite value", InputError, "infinite values.*NaN",
    differential_of(with_value(INF)))
row("differential: NaN in a sparse matrix", InputError, "sparse.*(missing|NaN)",
    differential_of(with_sparse_nan()))
row("differential: no features", InputError, "nothing to test: 24 samples × 0 features",
    lambda w: bc.tl.differential(w(annotated()[:, []].copy()), "batch", "sex"))
row("differential: text", InputError, "real numbers",
    differential_of(values().astype(str).astype(object)))
for method in ("combat", "standardize"):
    row(f"differential: corrected by {method}", InputError,
        f"layer 'corrected' was corrected by {method}.*uncorrected.*'X'",
        corrected(method))

# Weights, subjects, counts.
row("weights: no column", MissingKeyError, "'agee'.*Did you mean 'age'",
    differential_of(weights="agee"))
row("weights: of labels", InputError, "weights must be numbers",
    differential_of(weights="sex"))
row("weights: too few", InputError, r"weights must be one per sample \(24,\)",
    differential_of(weights=np.ones(3)))
row("weights: NaN", InputError, "weights contain NaN",
    differential_of(weights=np.r_[NAN, np.ones(N - 1)]))
row("weights: all 0", DesignError, "No weight is positive", differential_of(weights=np.zeros(N)))
row("weights: negative", InputError, "must not be negative",
    differential_of(weights=np.r_[-1, np.ones(N - 1)]))
row("weights: a layer that is negative", InputError, "must not be negative",
    in_layer("w", values() - 5, weights="w"))
row("subject: no column", MissingKeyError, "subject 'whom'.*Did you mean 'who'",
    differential_of(subject="whom", of={"who": WHO}))
row("subject: each sample another", DesignError, "another subject each",
    differential_of(subject="who", of={"who": [f"p{k}" for k in range(N)]}))
row("subject: one", DesignError, "samples are of one subject",
    differential_of(subject="who", of={"who": "p"}))
row("subject: missing", DesignError, "subject is missing for 1 of 24",
    differential_of(subject="who", of={"who": batch_with(None)}))
row("subject: the batch", DesignError, "correlation of samples.*cannot be estimated",
    differential_of(subject="batch"))
row("voom: no method", InputError, "no method 'tmn'.*Did you mean 'tmm'",
    differential_of(COUNTS, voom="tmn"))
row("voom: negative values", InputError, "negative values", differential_of(values() - 9, voom=True))
row("voom: missing values", InputError, "missing or infinite",
    differential_of(with_value(NAN), voom=True))
row("voom: no counts at all", InputError, "count",
    differential_of(np.zeros((N, 6)), voom=True))
row("test: levels that are not there", MissingKeyError, "must be sex:A-B, with two levels",
    differential_of(test="sex:f-x"))

# The audit.
row("audit: no samples", InputError, "nothing to audit.*no samples",
    lambda w: bc.tl.audit(w(annotated()[:0].copy()), "batch"))
row("audit: no AnnData", InputError, "must be an AnnData",
    lambda w: bc.tl.audit(w(values()), "batch"))
row("audit: no batch column", MissingKeyError, "'bach'.*Did you mean 'batch'",
    auditing(batch="bach"))
row("audit: several batches", InputError, "one column", auditing(batch=["batch", "sex"]))
row("audit: no tested column", MissingKeyError, "'sexx'.*Did you mean 'sex'",
    auditing(test="sexx"))
row("audit: levels that are not there", MissingKeyError, "must be sex:A-B, with two levels",
    auditing(test="sex:f-x"))
row("audit: weights that do not sum to 0", InputError, "weights that sum to 0",
    auditing(test=("sex", {"f": 1})))
row("audit: a level that is not there", InputError, "'sex' has no level 'x'",
    auditing(test=("sex", "x", "f")))
row("audit: no covariate", MissingKeyError, "'aeg'.*Did you mean 'age'",
    auditing(covariates=["aeg"]))
row("audit: no layer", MissingKeyError, "no layer 'logs'", auditing(layer="logs"))
row("audit: a rate above 1", InputError, "between 0 and 1", auditing(alpha=5))
row("audit: a rate that is no number", InputError, "between 0 and 1",
    auditing(alpha="small"))
row("audit: missing batch", DesignError, "batch is missing for 1 of 24",
    auditing(of={"batch": batch_with(None)}))
row("audit: missing covariate", DesignError, "'group' is missing for 1 of 24",
    auditing(covariates="group", of={"group": batch_with(None)}))
row("audit: infinite value", InputError, "infinite values", auditing(with_value(INF)))
# fmt: on


@pytest.mark.parametrize("mistake", ROWS)
def test_a_mistake_is_explained_and_changes_nothing(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(mistake, tmp_path)


def test_the_table_is_long():
    names = [param.id for param in ROWS]
    assert len(set(names)) == len(names) >= 55
