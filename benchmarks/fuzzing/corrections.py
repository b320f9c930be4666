"""The ways to ask for a correction: estimators, blocks, saved files, faces on AnnData."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd

import batchcorr as bc
from batchcorr.errors import BatchCorrError
from fuzzing.ask import Ask
from fuzzing.compare import Fault, Skipped, as_numpy, compare, settle
from fuzzing.inputs import (
    IN_ANNDATA,
    Inputs,
    add_covariates,
    add_labels,
    add_values,
    draw,
    fingerprint,
    present,
)
from fuzzing.reference import Refused


def estimator(ask, x):
    given, later = ask.labels()
    made = ask.estimator()
    if ask.rng.random() < 0.5 or "weights" in given:
        made.fit(x, **given)
        return made.transform(x, **later), made
    return made.fit_transform(x, **given), made


def saved(ask, x):
    """Fitted, saved, read again, and then used."""
    given, later = ask.labels()
    ask.estimator().fit(x, **given).save("correction.npz")
    made = bc.load("correction.npz")
    return made.transform(x, **later), made


def blocks(ask, x):
    """Fitted in blocks of rows."""
    given, later = ask.labels()
    if (
        ask.more
        or ask.inputs.formula
        or "cross" in ask.options
        or not hasattr(x, "shape")
        or ask.method[0] == "r"
    ):
        return estimator(ask, x)
    made, table, batch = ask.estimator(), given["covariates"], list(given["batch"])
    n = x.shape[0]
    levels = {}
    for name in table if hasattr(table, "columns") else ():
        if np.asarray(table[name]).dtype.kind in "OUTb":
            levels[name] = sorted(set(table[name]))
        elif len(set(table[name])) == 1:
            ask.inputs.may = True  # another block could have had other numbers
    cut = int(ask.rng.integers(1, n)) if n > 1 else n
    declared = {"batches": list(dict.fromkeys(ask.inputs.names)), "levels": levels}
    for rows in (slice(0, cut), slice(cut, n)):
        part = x.iloc[rows] if hasattr(x, "iloc") else x[rows]
        own = table.iloc[rows] if levels or hasattr(table, "iloc") else table
        own = own[rows] if isinstance(own, np.ndarray) else own
        made.partial_fit(part, batch=batch[rows], covariates=own, **declared)
        declared = {}
    return made.transform(x, **later), made


def anndata(ask, x):
    """A face on an AnnData: X or a layer, in place, beside, of a copy, of a view."""
    rng, inputs, more = ask.rng, ask.inputs, dict(ask.more)
    n, g = x.shape
    names = [f"cell{k}" for k in range(n)]
    first = ask.batch if hasattr(ask.batch, "columns") else {"batch": ask.batch}
    obs = pd.DataFrame({k: pd.Series(v).to_numpy() for k, v in dict(first).items()})
    for k, v in dict(first).items():
        if isinstance(v, pd.Categorical) or isinstance(
            getattr(v, "dtype", None), pd.CategoricalDtype
        ):
            obs[k] = pd.Categorical(v)
    covariates = inputs.covariates
    for part in (covariates, more.get("nuisance")):
        for name in part if hasattr(part, "columns") else ():
            obs[name] = np.asarray(part[name])
    if hasattr(covariates, "columns"):
        covariates = inputs.formula or list(covariates)
    if hasattr(more.get("nuisance"), "columns"):
        more["nuisance"] = list(more["nuisance"])
    obs.index = names
    var = pd.DataFrame(index=[f"gene{k}" for k in range(g)])
    layer = "raw" if rng.random() < 0.3 else None
    key = "corrected" if rng.random() < 0.4 else None
    copy = bool(rng.random() < 0.3)
    adata = ad.AnnData(None if layer else x, obs=obs, var=var)
    if layer:
        adata.layers["raw"] = x
    if rng.random() < 0.2 and n > 2:
        adata = adata[np.arange(n)]  # a view of all
    keys = list(first) if len(dict(first)) > 1 else "batch"
    before = fingerprint(adata)
    read = fingerprint(as_numpy(x))  # a view of an AnnData forgets a mask
    given = {"layer": layer, "key_added": key, "copy": copy, "covariates": covariates}
    face = getattr(bc.pp, ask.method)
    try:
        result = face(adata, keys, **given, **more, **ask.options)
    except BatchCorrError:
        if fingerprint(adata) != before:
            raise Fault("a refusal changed the AnnData") from None
        raise
    if copy and fingerprint(adata) != before:
        raise Fault("copy=True changed the AnnData")
    of = result if copy else adata
    if key and fingerprint(as_numpy(of.layers["raw"] if layer else of.X)) != read:
        raise Fault("key_added changed what was read")
    record = json.loads(of.uns["batchcorr"][key or layer or "X"])
    y = of.layers[key or layer] if key or layer else of.X
    return y, record["features_unchanged"]


def correction(rng, how):
    """A case of a location-scale method, asked in some way."""
    inputs = draw(rng)
    forms = {"forms": IN_ANNDATA} if how is anndata else {}
    x, plain, dtype, form = present(rng, inputs.values, **forms)
    inputs.traits.add(f"matrix: {form}")
    if rng.random() < 0.01 and form == "C":
        x[0, 0] = plain[0, 0] = np.inf
    ask = Ask(rng, inputs, plain)
    before = fingerprint(x), fingerprint(ask.batch), fingerprint(inputs.covariates)
    try:
        expected, usable, fit = ask.expected()
        if fit.explained.any():
            inputs.traits.add("an explained batch")
    except Refused as reason:
        expected = reason
    made = None
    try:
        y, made = how(ask, x)
        y = as_numpy(y)
    finally:
        inplace = how is anndata
        after = fingerprint(x), fingerprint(ask.batch), fingerprint(inputs.covariates)
        if before[inplace:] != after[inplace:]:
            raise Fault("the input was changed")
        settle(expected, inputs)
    if str(expected) == "degenerate":
        raise Skipped
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    compare(y, expected, plain, fit, usable, dtype)
    left = made if how is anndata else int((~made.aim_.adjustable).sum())
    if left != (~usable).sum():
        raise Fault(f"{left} features said to be unchanged, not {(~usable).sum()}")
    return inputs.traits


def of_joining(rng):
    """`add_batches`: batches that come later, to the frozen aim."""
    inputs = Inputs(np.empty(0), rng.permutation(np.repeat([0, 1, 2], [4, 9, 11])))
    add_labels(rng, inputs)
    add_covariates(rng, inputs, ["none"])
    add_values(rng, inputs, missing=True)
    if inputs.must:
        raise Skipped
    x, plain, _, _ = present(rng, inputs.values, "C F float32 csr DataFrame masked")
    ask = Ask(rng, inputs, plain, "combat", more=False)
    expected, _, fit = ask.expected()
    new = np.repeat([0, 1], [1 + rng.integers(5), 1 + rng.integers(9)])
    more = rng.normal(3, 2, (len(new), plain.shape[1])) * np.nanstd(plain, axis=0)
    made = ask.estimator().fit(x, batch=inputs.batch)
    if hasattr(x, "columns"):
        more = pd.DataFrame(more, columns=x.columns)
    labels = np.array(["new one", "new two"])[new]
    y = made.add_batches(more, batch=labels).transform(more, batch=labels)
    values = np.asarray(more)
    joined = fit.extend(values, new, np.zeros((len(new), 0)))
    expected, usable = ask.state.correct(values, joined, joined=True)
    compare(as_numpy(y), expected, values, joined, usable, np.dtype(float))
    return inputs.traits


def of_estimator(rng):
    return correction(rng, estimator)


def of_anndata(rng):
    return correction(rng, anndata)


def of_saved(rng):
    return correction(rng, saved)


def of_blocks(rng):
    return correction(rng, blocks)
