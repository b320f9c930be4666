"""Random inputs as people have them: matrices, labels, covariates, and what they mean.

Everything is drawn twice: as it is given to the package, and as plain numbers for the
reference. `must` says why the package has to refuse it; `may`, that it is free to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp

IN_ANNDATA = "C F strided readonly float32 int32 uint8 csr csc unsorted masked dask"
FORMS = f"{IN_ANNDATA} reversed DataFrame nullable list big-endian explicit-zeros"
COVARIATES = [
    "none",
    "none",
    "none",
    "category",
    "number",
    "two",
    "bool",
    "integers",
    "text-numbers",
    "formula",
    "array",
    "constant",
    "explaining",
    "explaining",
]
REFUSED = ["confounded", "repeated", "missing", "identifier"]
FORMULAS = {
    "~ group + age": "group age",
    "~ group * age": "group age group:age",
    "~ group + center(age)": "group age",
    "~ scale(age)": "age",
    "~ poly(age, 2)": "age age2",
    "~ C(whole)": "whole",
    "~ log(size)": "logsize",
}


@dataclass
class Inputs:
    """Samples, their labels, and what both mean."""

    values: np.ndarray
    codes: np.ndarray
    names: list = field(default_factory=list)
    batch: object = None
    covariates: object = None
    formula: str | None = None
    z: np.ndarray | None = None
    must: list = field(default_factory=list)
    may: bool = False
    traits: set = field(default_factory=set)


def draw(rng, *, missing=True, most=60, kinds=None):
    """Samples, batches and covariates."""
    n = int(rng.integers(2, 9) if rng.random() < 0.06 else rng.integers(8, most + 1))
    n_batches = int(rng.integers(2, min(6, max(2, n // 4)) + 1))
    if rng.random() < 0.12:
        n_batches = int(min(rng.choice([1, 1, 3, 4, 5, 6]), n))
    codes = np.r_[np.arange(n_batches), rng.integers(0, n_batches, n - n_batches)]
    codes = rng.permutation(codes)
    out = Inputs(np.empty(0), codes)
    add_labels(rng, out)
    add_covariates(rng, out, kinds or COVARIATES)
    add_values(rng, out, missing=missing)
    return out


def add_labels(rng, out, chosen=None):
    """Batch labels of some type, in some container."""
    codes, n = out.codes, len(out.codes)
    n_batches = int(codes.max()) + 1
    kinds = "str int float category number-category mixed 1-and-text nullable text"
    kinds = [*kinds.split(), *["bool"] * int(n_batches < 3)]
    odd = ["blanks", "marks", "decimals"]
    kind = rng.choice(chosen or (odd if rng.random() < 0.07 else kinds))
    numbers = [k + 1 for k in range(n_batches)]
    out.names = [f"b{k}" for k in range(n_batches)]
    if kind in {"int", "1-and-text", "nullable", "number-category"}:
        out.names = numbers
    elif kind == "float":
        out.names = [k + 0.5 for k in range(n_batches)]
    elif kind == "text":
        out.names = [str(k) for k in numbers]
    elif kind == "mixed":
        out.names = [1, "a", 2.5, "x y", 30, "ü"][:n_batches]
    elif kind == "bool":
        out.names = [True, False][:n_batches]
    labels = [out.names[k] for k in codes]
    if kind == "1-and-text":
        labels = [str(x) if rng.random() < 0.5 else x for x in labels]
    elif kind in {"blanks", "decimals"}:
        at = int(rng.integers(n))
        whole = kind == "decimals"
        labels = [str(k + 1) for k in codes] if whole else labels
        out.names = [str(k) for k in numbers] if whole else out.names
        same = (codes == codes[at]).sum() > 1
        labels[at] += ".0" if whole else " "
        if same:
            out.must.append("one label written in two ways")
        else:
            out.names[codes[at]] = labels[at]
    elif kind == "marks":
        labels[int(rng.integers(n))] = rng.choice([None, np.nan, "NA", "", "null"])
        out.must.append("a batch is missing")
    given = np.array(labels, dtype=object)
    if kind in {"category", "number-category"}:
        order = [*rng.permutation(np.array(out.names, dtype=object)), "unused"]
        given = pd.Categorical(labels, categories=order)
    elif kind == "nullable":
        given = pd.array(labels, dtype="Int64")
    elif kind in {"str", "int", "float", "bool"}:
        given = np.array(labels)
    shape = rng.choice(["array", "list", "Series"])
    if shape == "list":
        given = list(given)
    elif shape == "Series":
        given = pd.Series(given)
    out.batch = given
    out.may |= n_batches > 2 and 2 * n_batches > n
    out.traits.add(f"batch labels: {kind}")


def dummies(labels):
    """A column for each level but the first."""
    levels = sorted(set(labels))
    return np.array([[float(x == each) for each in levels[1:]] for x in labels])


def add_covariates(rng, out, kinds=COVARIATES):
    """Covariates of some kind, and the design columns that they mean."""
    n, codes = len(out.codes), out.codes
    out.covariates = out.formula = None
    odd = kinds is COVARIATES and rng.random() < 0.08
    kind = rng.choice(REFUSED if odd else kinds)
    group = rng.choice([f"g{k}" for k in range(int(rng.integers(2, 5)))], n)
    age = rng.normal(rng.choice([0, 50, 3000]), rng.choice([0.01, 1, 10]), n)
    columns, z = {}, np.zeros((n, 0))
    if kind in {"category", "two"}:
        columns["group"] = pd.Series(group, dtype=rng.choice(["category", "object"]))
        z = dummies(group)
    if kind in {"number", "two", "missing"}:
        columns["age"] = age.copy()
        z = np.column_stack([z, age])
    if kind == "bool":
        columns["treated"] = rng.random(n) < 0.5
        z = columns["treated"][:, None].astype(float)
    elif kind == "integers":
        columns["dose"] = rng.integers(0, 4, n)
        z = columns["dose"][:, None].astype(float)
    elif kind == "text-numbers":
        numerals = rng.choice(
            ["27", "28,5", ">89", " 31", "45.5", "N0"], 4, replace=False
        )
        columns["age"] = rng.choice(numerals, n)
        z = dummies(columns["age"])
    elif kind == "confounded":
        columns["site"] = np.array(["x", "y"])[codes % 2]
        z = dummies(columns["site"])
    elif kind == "repeated":
        columns |= {"age": age, "months": 12 * age + 1}
        z = np.column_stack([age, 12 * age + 1])
    elif kind == "constant":
        columns |= {"age": age, "species": np.repeat("human", n)}
        z = age[:, None]
    elif kind == "missing":
        columns["age"][int(rng.integers(n))] = rng.choice([np.nan, np.inf])
        out.must.append("a covariate is missing")
    elif kind == "identifier":
        columns["name"] = [f"s{k}" for k in range(n)]
        z = dummies(columns["name"])
        out.may = True
    elif kind == "explaining":
        sizes = np.bincount(codes)
        pilot = int(rng.choice(np.flatnonzero(sizes <= max(6, sizes.min()))))
        rows = np.flatnonzero(codes == pilot)
        levels = np.array([f"g{k}" for k in range(len(rows))])
        group = rng.choice(levels, codes.max() + 1)[codes]
        group[rows] = levels
        columns["group"], z = group, dummies(group)
    elif kind == "formula":
        out.formula = str(rng.choice(list(FORMULAS)))
        whole = rng.integers(0, 3, n)
        columns = {"group": group, "age": age, "whole": whole}
        columns["size"] = np.exp(rng.normal(size=n))
        centred = age - age.mean()
        made = {"group": dummies(group), "age": centred, "age2": centred**2}
        made["group:age"] = dummies(group) * centred[:, None]
        made |= {"whole": dummies(whole), "logsize": np.log(columns["size"])}
        z = np.column_stack([made[name] for name in FORMULAS[out.formula].split()])
        out.may |= "poly" in out.formula and n < 4
    for name, values in columns.items():
        if name in {"group", "age", "name"} and np.asarray(values).dtype.kind in "OUT":
            out.may |= len(set(values)) > max(2, n / 2)
    if kind == "array":
        z = rng.normal(size=(n, int(rng.integers(1, 3))))
        out.covariates = z.copy()
    elif kind != "none":
        out.covariates = pd.DataFrame(columns)
    with np.errstate(invalid="ignore"):
        out.z = (
            z.reshape(n, -1)[:, np.ptp(z, axis=0) > 0] if z.size else np.zeros((n, 0))
        )
    out.traits.add(f"covariates: {kind}")


def add_values(rng, out, *, missing):
    """Values with effects of batches and covariates, and features that are odd."""
    n, g = len(out.codes), int(rng.integers(1, 41))
    size = np.exp(rng.normal(0, rng.choice([0, 1, 3]), g))
    x = rng.normal(size=(n, g)) + rng.normal(size=(out.codes.max() + 1, g))[out.codes]
    finite = np.where(np.isfinite(out.z), out.z, 0)
    spread = finite.std(axis=0)
    x += (
        finite / np.where(spread > 0, spread, 1) @ rng.normal(size=(finite.shape[1], g))
    )
    x = x * size + rng.choice([0, 8, 100]) * size
    if rng.random() < 0.2:
        x = np.round(x, 1)
    for name, chance in {
        "constant": 0.2,
        "constant in a batch": 0.2,
        "twin": 0.1,
    }.items():
        if rng.random() < chance:
            at = rng.integers(g)
            rows = out.codes == rng.integers(out.codes.max() + 1)
            if name == "twin":
                x[:, at] = x[:, rng.integers(g)]
            else:
                x[rows if name != "constant" else slice(None), at] = 7.5
            out.traits.add(f"a feature: {name}")
    if missing and rng.random() < 0.3:
        x[rng.random(x.shape) < rng.choice([0.01, 0.1, 0.4])] = np.nan
        if rng.random() < 0.2:
            x[out.codes == rng.integers(out.codes.max() + 1), rng.integers(g)] = np.nan
        if np.isnan(x).any():
            out.traits.add("missing values")
    out.values = x


def present(rng, values, forms=FORMS):
    """The matrix in some form; what it holds, in float64; the dtype of results; the form."""
    forms = forms.split()
    if np.isnan(values).any():
        forms = [f for f in forms if "int" not in f and f[:2] not in {"cs", "un", "ex"}]
    form = str(rng.choice(forms))
    x, out = values.copy(), np.float64
    if form in {"int32", "uint8"}:
        x = np.clip(np.round(np.abs(x) * 3), 0, 255).astype(form)
        out = np.float32 if form == "uint8" else np.float64
    elif form == "float32" or rng.random() < 0.2:
        x, out = x.astype(np.float32), np.float32
    if form in {"csr", "csc", "unsorted", "explicit-zeros"}:
        x[rng.random(x.shape) < 0.4] = 0
    plain = x.astype(np.float64)
    n, g = x.shape
    if form == "F":
        x = np.asfortranarray(x)
    elif form == "strided":
        whole = np.full((2 * n, 2 * g), 9, x.dtype)
        whole[::2, ::2] = x
        x = whole[::2, ::2]
    elif form == "reversed":
        x = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    elif form == "readonly":
        x.flags.writeable = False
    elif form in {"DataFrame", "nullable"}:
        names = [f"gene{k}" for k in range(g)]
        x = pd.DataFrame(x, columns=names)
        if form == "nullable":
            x, out = x.astype("Float64"), np.float64
    elif form == "list":
        x, out = x.tolist(), np.float64
    elif form == "big-endian":
        x, out = x.astype(">f8"), np.float64
    elif form == "masked":
        hidden = rng.random(x.shape) < rng.choice([0, 0.05])
        hidden |= np.isnan(x)
        plain[hidden] = np.nan
        x = np.ma.array(np.where(hidden, 999, x), mask=hidden)
    elif form == "dask":
        x = da.from_array(x, chunks=(max(1, n // 3), max(1, g // 2)))
    elif form == "csc":
        x = sp.csc_matrix(x)
    elif form in {"csr", "unsorted", "explicit-zeros"}:
        x = sp.csr_array(x) if rng.random() < 0.5 else sp.csr_matrix(x)
        if form == "unsorted":
            for start, stop in zip(x.indptr[:-1], x.indptr[1:], strict=True):
                for part in (x.indices, x.data):
                    part[start:stop] = part[start:stop][::-1].copy()
            x.has_sorted_indices = False
        elif form == "explicit-zeros" and x.nnz:
            at = int(rng.integers(x.nnz))
            row = np.searchsorted(x.indptr, at, side="right") - 1
            plain[row, x.indices[at]], x.data[at] = 0, 0
    return x, plain, np.dtype(out), form


def fingerprint(given):
    """All that an input holds, to see whether it was changed."""
    if isinstance(given, np.ma.MaskedArray):
        return given.data.tobytes(), np.ma.getmaskarray(given).tobytes()
    if isinstance(given, np.ndarray):
        whole = given if given.base is None or given.dtype == object else given.base
        whole = whole if isinstance(whole, np.ndarray) else given
        return str(given.dtype), given.shape, repr(whole.tolist())
    if sp.issparse(given):
        return [fingerprint(part) for part in (given.data, given.indices, given.indptr)]
    if isinstance(given, da.Array):
        return fingerprint(given.compute())
    if isinstance(given, pd.DataFrame):
        return [repr(given.index), *((c, fingerprint(given[c])) for c in given)]
    if isinstance(given, pd.Series | pd.Categorical):
        return str(given.dtype), repr(list(given))
    if hasattr(given, "obs"):
        parts = [given.X, given.obs, given.var, *given.layers.values()]
        keys = sorted(given.layers), repr(dict(given.uns))
        return [keys, *(fingerprint(part) for part in parts)]
    return repr(given)
