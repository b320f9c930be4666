"""What joined ComBat: subjects, covariances, references of counts, missing labels."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from typer.testing import CliRunner

import batchcorr as bc
from batchcorr.cli import app
from batchcorr.errors import BatchCorrError
from fuzzing import reference
from fuzzing.ask import Ask
from fuzzing.compare import Fault, Skipped, as_numpy, compare, match, settle
from fuzzing.inputs import Inputs, add_labels, add_values, draw, fingerprint, present
from fuzzing.reference import Refused


def judge(y, expected, dtype):
    """Refuse what is not what the reference gives, to half the digits, or refuses."""
    if str(expected) == "degenerate":
        raise Skipped
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    match(y, expected, np.float32)
    if y.dtype != dtype:
        raise Fault(f"dtype {y.dtype}, not {dtype}")


def of_subjects(rng):
    """Random intercepts, by the restricted likelihood of whole covariance matrices."""
    n, b = int(rng.integers(12, 41)), int(rng.integers(2, 4))
    codes = rng.permutation(np.r_[np.arange(b), rng.integers(0, b, n - b)])
    inputs = Inputs(np.empty(0), codes, z=np.zeros((n, 0)))
    add_labels(rng, inputs, ["str", "int", "category", "text"])
    if rng.random() < 0.5:
        age = rng.normal(50, 9, n)
        inputs.covariates, inputs.z = pd.DataFrame({"age": age}), age[:, None]
    add_values(rng, inputs, missing=False)
    who = rng.integers(0, int(rng.integers(2, n)), n)
    x = inputs.values + rng.choice([0, 1, 3]) * rng.normal(size=(n, 1))[who]
    x, plain, dtype, _ = present(rng, x, "C F float32 csr dask")
    method = rng.choice([bc.ComBat, bc.RemoveBatchEffect])
    before = fingerprint(x)
    try:
        if np.bincount(who).max() < 2:
            raise Refused("every subject has one sample")
        fit = reference.Fit(plain, codes, inputs.z)
        spare = n - b - inputs.z.shape[1]
        if spare < 2 or fit.explained.any():
            raise Skipped  # what is left of a batch is then rounding
        varies = fit.solved & ~fit.constant.any(axis=0)
        u, near = reference.add_subjects(plain, fit, who, varies)
        if near:
            raise Skipped  # the likelihood is nearly flat, or has two tops
        if method is bc.ComBat:
            options = {"parametric": True, "mean_only": False, "reference": None}
            state = reference.ComBat(fit, **options)
            y, usable = state.correct(plain - u, fit)
        else:
            y, usable = reference.remove(plain - u, fit)
        expected = np.where(usable, y + u, plain)
    except Refused as reason:
        expected = reason
    given = {"batch": inputs.batch, "covariates": inputs.covariates}
    labels = np.array([f"p{k}" for k in who])
    try:
        y = as_numpy(method().fit_transform(x, **given, subject=labels))
    finally:
        settle(expected, inputs)
        if fingerprint(x) != before:
            raise Fault("the input was changed")
    judge(y, expected, dtype)  # the top of a likelihood is known to half the digits
    return inputs.traits


def of_covariances(rng):
    """CovBat: components of what ComBat leaves, and their scores by batch."""
    inputs = draw(rng, missing=False)
    x, plain, dtype, form = present(
        rng, inputs.values, "C F float32 csr dask DataFrame"
    )
    ask = Ask(rng, inputs, plain, "combat", alone=True, more=False)
    options = {"explained": float(rng.choice([0.5, 0.8, 0.95]))}
    options["scale_features"] = bool(rng.random() < 0.7)
    before = fingerprint(x)
    try:
        y, usable, fit = ask.expected()
        expected = reference.equal_scores(y, usable, fit, ask.state, **options)
    except Refused as reason:
        expected = reason
    given = {"batch": inputs.batch, "covariates": inputs.covariates}
    options |= {"formula": inputs.formula} if inputs.formula else {}
    try:
        y = as_numpy(bc.CovBat(**options, **ask.options).fit_transform(x, **given))
    finally:
        settle(expected, inputs)
        if fingerprint(x) != before:
            raise Fault("the input was changed")
    judge(y, expected, dtype)  # components magnify rounding
    return inputs.traits | {f"matrix: {form}"}


def of_count_reference(rng):
    """ComBatSeq with a reference: it stays, and sparse and dense give the same counts."""
    inputs = draw(rng, most=24, kinds=["none", "category", "confounded"])
    n, g = inputs.values.shape
    counts = rng.negative_binomial(3, 0.1, (n, g)) * (1 + inputs.codes[:, None] % 2)
    of = str(rng.choice(["auto", "named"]))
    code = int(rng.integers(inputs.codes.max() + 1))
    named = "auto" if of == "auto" else inputs.names[code]
    model = bc.ComBatSeq(reference=named)
    given = {"batch": inputs.batch, "covariates": inputs.covariates}
    before = fingerprint(counts)
    try:
        y = model.fit_transform(counts, **given)
    finally:
        inputs.may = True
        settle(None, inputs)
        if fingerprint(counts) != before:
            raise Fault("the input was changed")
    if inputs.must:
        raise Fault("not refused")
    same = [
        np.array_equal(y[inputs.codes == k], counts[inputs.codes == k])
        for k in range(inputs.codes.max() + 1)
    ]
    if not (same[code] if of == "named" else any(same)):
        raise Fault("the reference was changed")
    again = bc.ComBatSeq(reference=named).fit_transform(sp.csr_matrix(counts), **given)
    if not np.array_equal(as_numpy(again), y):
        raise Fault("CSR gives other counts than the dense matrix")
    if y.dtype.kind != "i" or (y < 0).any():
        raise Fault("not counts")
    return inputs.traits | {f"reference: {of}"}


def of_missing_labels(rng):
    """Missing labels are a level, leave their samples out, or are refused."""
    n, b = int(rng.integers(14, 41)), int(rng.integers(2, 4))
    codes = rng.permutation(np.r_[np.arange(b), rng.integers(0, b, n - b)])
    group = rng.integers(0, 2, n)
    gone = {name: rng.random(n) < rng.choice([0, 0.2]) for name in ("batch", "group")}
    batch = np.array([f"b{k}" for k in codes], dtype=object)
    kinds = np.array(["ill", "well"], dtype=object)[group]
    mark = rng.choice(np.array([None, np.nan, "NA", ""], dtype=object))
    batch[gone["batch"]], kinds[gone["group"]] = mark, mark
    how = str(rng.choice(["level", "drop", "error"]))
    inputs = Inputs(np.empty(0), codes, z=np.zeros((n, 0)))
    inputs.traits.add(f"missing labels: {how}")
    missing = gone["batch"] | gone["group"]
    rows = ~missing if how == "drop" else np.ones(n, bool)
    if how == "level":
        codes, group = (
            np.where(where, values.max() + 1, values)
            for values, where in ((codes, gone["batch"]), (group, gone["group"]))
        )
    levels, of_all = np.unique(group[rows]), codes.copy()
    inputs.codes = np.unique(codes[rows], return_inverse=True)[1]
    inputs.z = (group[rows, None] == levels[1:]).astype(float)
    whole = Inputs(np.empty(0), of_all, z=np.zeros((n, 0)))
    add_values(rng, whole, missing=False)
    x = whole.values
    ask = Ask(rng, inputs, x[rows], "combat", alone=True, more=False)
    try:
        if how == "error" and missing.any():
            raise Refused("a label is missing")
        expected, usable, _ = ask.expected()
        expected = np.where(usable, expected, x[rows])
    except Refused as reason:
        expected = reason
    names = [f"s{k}" for k in range(n)]
    obs = pd.DataFrame({"batch": batch, "group": kinds}, index=names)
    adata = ad.AnnData(x, obs=obs)
    if how != "drop" and rng.random() < 0.5:
        try:
            bc.pp.combat(adata, "batch", covariates="group", missing=how, **ask.options)
        finally:
            settle(expected, inputs)
        y = adata.X
    else:
        y = _command(adata, how, ask, expected, inputs)
    if str(expected) == "degenerate":
        raise Skipped
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    match(y, expected, float)
    return inputs.traits


def _command(adata, how, ask, expected, inputs):
    """The same on the command line."""
    table = pd.DataFrame(adata.X, adata.obs_names, adata.var_names)
    table.to_csv("missing.csv")
    adata.obs.to_csv("labels.csv", na_rep="NA")
    Path("done.csv").unlink(missing_ok=True)
    options = ["--samples", "labels.csv", "--batch", "batch", "--covariate", "group"]
    for name, value in ask.options.items():
        options += ["--set", f"{name}={value}"]
    asked = ["correct", "missing.csv", "done.csv", *options, "--missing", how]
    result = CliRunner().invoke(app, asked)
    if result.exit_code:
        if not isinstance(result.exception, SystemExit):
            raise Fault("a traceback") from result.exception
        error = BatchCorrError(result.stderr)
        error.due = isinstance(expected, Refused)
        error.traits = inputs.traits
        if Path("done.csv").exists():
            raise Fault("half done")
        raise error
    return pd.read_csv("done.csv", index_col=0, float_precision="round_trip")


def of_hidden_batches(rng):
    """RUV by its formulas; sva by what must not change its columns."""
    inputs = draw(rng, missing=False, kinds=["none", "category", "number"])
    x, plain, _, form = present(rng, inputs.values, "C F csr dask strided")
    n, g = plain.shape
    method = str(rng.choice(["ruvg", "ruvr", "ruvs", "sva", "two_step", "supervised"]))
    inputs.traits |= {f"hidden: {method}", f"matrix: {form}"}
    k = int(rng.integers(1, 4))
    controls, sets = rng.random(g) < 0.6, rng.integers(0, max(2, n // 2), n)
    given = {"covariates": inputs.covariates}
    if method[0] == "r":
        given["controls"] = controls if method == "ruvg" or k > 1 else None
    elif method == "supervised":
        given["controls"] = rng.random(g)
    chosen = np.ones(g, bool) if given.get("controls") is None else controls
    if method == "ruvs":
        given["replicates"] = np.array([f"r{s}" for s in sets])
    if method not in {"ruvr", "sva", "two_step"}:
        given["covariates"] = None
    before, model = fingerprint(x), bc.SurrogateVariables(k, method=method)
    try:
        found = model.fit_transform(x, **given)
    finally:
        inputs.may = True  # few samples, features or columns: many ways of too little
        settle(None, inputs)
        if fingerprint(x) != before:
            raise Fault("the input was changed")
    if not np.isfinite(found).all() or found.shape[1] > k:
        raise Fault(f"{found.shape} columns, some not finite")
    if method[0] == "r":
        z = np.hstack([np.ones((n, 1)), inputs.z])
        expected = reference.unwanted_factors(method, plain, chosen, sets, z, k)
        if found.shape[1] != expected.shape[1]:
            raise Fault(f"{found.shape[1]} columns, not {expected.shape[1]}")
    else:
        order, level = rng.permutation(g), rng.normal(size=g)
        if method == "supervised":
            given["controls"] = given["controls"][order]
        moved = (plain + level)[:, order]
        expected = model.fit_transform(np.asfortranarray(moved), **given)
        if expected.shape != found.shape:
            raise Skipped  # a component that is there or not by rounding
    gap = np.abs(np.abs(found) - np.abs(expected)).max(initial=0)
    if gap > 1e-4 * max(1, np.abs(expected).max(initial=0)):
        raise Fault(f"columns are {gap:.1e} off")
    return inputs.traits


def of_embedding(rng):
    """A matrix of obsm, corrected as X would be, and X untouched."""
    inputs = draw(rng)
    x, plain, dtype, form = present(rng, inputs.values, "C F float32")
    ask = Ask(rng, inputs, plain, more=False, alone=True)
    n = len(plain)
    obs = pd.DataFrame({"batch": pd.Series(inputs.batch)})
    kept = inputs.covariates
    if isinstance(kept, np.ndarray):
        raise Skipped
    for name in kept if kept is not None else ():
        obs[name] = kept[name]
    obs.index = [f"cell{k}" for k in range(n)]
    adata = ad.AnnData(np.ones((n, 2)), obs=obs, obsm={"X_pca": x})
    key = "X_done" if rng.random() < 0.5 else None
    before = fingerprint(adata), fingerprint(x)
    try:
        expected, usable, fit = ask.expected()
    except Refused as reason:
        expected = reason
    try:
        getattr(bc.pp, ask.method)(
            adata,
            "batch",
            covariates=inputs.formula or (None if kept is None else list(kept)),
            obsm="X_pca",
            key_added=key,
            **ask.options,
        )
    except BatchCorrError:
        settle(expected, inputs)
        if (fingerprint(adata), fingerprint(x)) != before:
            raise Fault("a refusal changed the AnnData") from None
        raise
    if str(expected) == "degenerate":
        raise Skipped
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    if fingerprint(adata.X) != fingerprint(np.ones((n, 2))):
        raise Fault("X was changed")
    json.loads(adata.uns["batchcorr"][f"obsm {key or 'X_pca'}"])
    compare(adata.obsm[key or "X_pca"], expected, plain, fit, usable, dtype)
    return inputs.traits | {f"matrix: {form}"}
