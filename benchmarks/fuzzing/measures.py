"""Other methods, and what is measured and tested on values."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import batchcorr as bc
from batchcorr.models.variance_prior import estimate_variance_prior
from fuzzing import reference
from fuzzing.compare import Fault, Skipped, as_numpy, match, settle
from fuzzing.inputs import draw, fingerprint, present
from fuzzing.reference import Refused


def logarithms(rng):
    n, g = int(rng.integers(1, 30)), int(rng.integers(1, 40))
    counts = rng.negative_binomial(2, 0.1, (n, g)) * (rng.random((n, g)) < 0.8)
    counts[rng.random(n) < 0.1] = 0
    forms = (
        "C F strided readonly float32 csr csc unsorted DataFrame dask explicit-zeros"
    )
    x, plain, dtype, form = present(rng, counts.astype(float), forms)
    options = {"target_sum": rng.choice([None, 1e4]), "base": rng.choice([None, 2, 10])}
    options["prior_count"] = rng.choice([None, 0.5, 2])
    before = fingerprint(x)
    try:
        expected = reference.log_normalize(plain, **options)
    except Refused:
        raise Skipped from None
    y = as_numpy(bc.LogNormalize(**options).fit_transform(x))
    if fingerprint(x) != before:
        raise Fault("the input was changed")
    match(y, expected, dtype)
    return {f"matrix: {form}"}


def quantiles(rng):
    inputs = draw(rng)
    forms = "C F strided readonly float32 DataFrame masked list"
    x, plain, dtype, form = present(rng, inputs.values, forms)
    ties = bool(rng.random() < 0.7)
    before = fingerprint(x)
    try:
        expected = reference.quantile_normalize(plain, ties=ties)
    except Refused as reason:
        expected = reason
    try:
        y = as_numpy(bc.QuantileNormalize(ties=ties).fit_transform(x))
    finally:
        inputs.may = False
        settle(expected, inputs)
    if fingerprint(x) != before:
        raise Fault("the input was changed")
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    match(y, expected, dtype)
    return {f"matrix: {form}"}


def share(rng):
    inputs = draw(rng, missing=False)
    x, plain, _, _ = present(rng, inputs.values, "C F strided csr csc DataFrame")
    if inputs.formula:
        raise Skipped
    try:
        if inputs.must:
            raise Refused(inputs.must[0])
        expected = reference.variance_explained(plain, inputs.codes, inputs.z)
    except Refused as reason:
        expected = reason
    try:
        found = bc.metrics.variance_explained(
            x, inputs.batch, covariates=inputs.covariates
        )
    finally:
        settle(expected, inputs)
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    found = [found.batch, found.covariates, found.batch_beyond_covariates]
    if not np.allclose(found, expected, rtol=1e-6, atol=1e-7, equal_nan=True):
        raise Fault(f"{found}, not {expected}")
    return inputs.traits


def differential(rng):
    """Levels, missing values, weights of samples, repeated subjects; batch in the model."""
    inputs = draw(rng)
    x, plain, _, form = present(rng, inputs.values, "C F csr csc strided")
    n = x.shape[0]
    n_levels = int(rng.choice([2, 2, 3]))
    tested = rng.integers(0, n_levels, n)
    several = len(set(tested)) < n_levels
    if inputs.formula or isinstance(inputs.covariates, np.ndarray) or several:
        raise Skipped
    obs = pd.DataFrame({"tested": np.array(["a", "b", "c"])[tested]})
    obs["batch"] = pd.Series(inputs.batch)
    kept = inputs.covariates
    for name in kept if kept is not None else ():
        obs[name] = kept[name]
    obs.index = [f"cell{k}" for k in range(n)]
    weights, subject, options = np.ones(n), None, {}
    if rng.random() < 0.25:
        weights = rng.choice([0.5, 1, 2], n)
        obs["weight"], options["weights"] = weights, "weight"
        inputs.traits.add("weights")
    if rng.random() < 0.25 and not np.isnan(plain).any():
        subject = rng.integers(0, n // 2 + 1, n)
        obs["person"] = [f"p{k}" for k in subject]
        options["subject"] = "person"
        inputs.may = True  # whether subjects tell how alike they are is not asked here
        inputs.traits.add("subject")
    adata = ad.AnnData(x, obs=obs)
    before = fingerprint(adata)
    given = {"covariates": None if kept is None else list(kept)} | options
    levels = np.eye(n_levels)[tested][:, 1:]
    try:
        if inputs.must:
            raise Refused(inputs.must[0])
        model = reference.Test(plain, inputs.codes, inputs.z, levels, weights)
        expected = ""
    except Refused as reason:
        expected = reason
    if all(pd.DataFrame(plain).groupby(inputs.codes).nunique().max() <= 1):
        inputs.may = True  # nothing varies within a batch
    try:
        contrast = ("tested", "b", "a") if n_levels == 2 else "tested"
        table = bc.tl.differential(adata, "batch", contrast, **given)
    finally:
        settle(expected, inputs)
        if fingerprint(adata) != before:
            raise Fault("the input was changed")
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    correlation = table.attrs.get("subject_correlation", 0.0)
    expected = model.values(estimate_variance_prior, correlation, subject)
    names = ["coefficient", "standard_error", "t", "p_value"]
    if n_levels == 3:
        names = [f"{name}[{level}]" for level in "bc" for name in names]
        names += ["f", "p_value"]
    size = np.nan_to_num(np.abs(plain)).max(axis=0)
    sound = (model.spread > 1e-9 * size) & (model.df > 0)
    for name, right in zip(names, expected, strict=True):
        found = table[name].to_numpy()
        close = np.isclose(found, right, rtol=1e-5, atol=1e-9, equal_nan=True)
        if name.startswith(("coefficient", "standard")):
            close |= np.abs(found - right) <= 1e-9 * size
        if not close[sound].all():
            g = np.flatnonzero(~close & sound)[0]
            raise Fault(f"{name} of {g}: {found[g]}, not {right[g]} {options}")
    return inputs.traits | {f"matrix: {form}"}


def count_methods(rng):
    """ComBat-seq has no reference here: all forms of counts must give the same counts."""
    kinds = ["none", "category", "confounded", "number"]
    inputs = draw(rng, most=24, kinds=kinds)
    n, g = inputs.values.shape
    counts = rng.negative_binomial(3, 0.1, (n, g)) + 0
    dtype = rng.choice(["uint8", "int32", "int64", "float64"])
    counts = np.minimum(counts, 200).astype(dtype)
    given = {"batch": inputs.batch, "covariates": inputs.covariates}
    before = fingerprint(counts)
    try:
        y = bc.ComBatSeq().fit_transform(counts, **given)
    finally:
        inputs.may = True
        settle(None, inputs)
        if fingerprint(counts) != before:
            raise Fault("the input was changed")
    if inputs.must:
        raise Fault("not refused")
    again = bc.ComBatSeq().fit_transform(sp.csr_matrix(counts), **given)
    if not np.array_equal(as_numpy(again), y):
        raise Fault("CSR gives other counts than the dense matrix")
    whole = np.asarray(y, dtype=float)
    if (whole < 0).any() or (whole != np.round(whole)).any() or y.shape != counts.shape:
        raise Fault("not counts")
    if (whole[counts == 0] > 0).any():
        raise Fault("zeros became counts")
    return inputs.traits
