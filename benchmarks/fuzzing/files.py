"""Files: saved corrections that are damaged, and commands on tables."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner

import batchcorr as bc
from batchcorr.cli import app
from batchcorr.errors import BatchCorrError
from fuzzing.ask import Ask
from fuzzing.compare import Fault, Skipped, as_numpy, compare
from fuzzing.inputs import add_covariates, add_labels, draw
from fuzzing.reference import Refused

JUNK = [None, -1, 0, 1e300, 10**9, "x", "", [], {}, [[]], True, [1, "1"], float("nan")]


def damaged(rng):
    """A saved correction of any method, broken: refused, or it works as before."""
    n, g = 12, int(rng.integers(2, 9))
    x = rng.normal(8, 1, (n, g))
    batch, group = np.repeat([1, 2], 6), pd.DataFrame({"g": ["a", "b"] * 6})
    counts = rng.poisson(30, (n, g))
    kind = rng.integers(6)
    later = {"batch": batch}
    if kind < 3:
        made = [bc.ComBat, bc.Standardize, bc.RemoveBatchEffect][kind]()
        made.fit(x, batch=batch, covariates=group)
        later["covariates"] = group
    elif kind == 3:
        made, x = bc.ComBatSeq().fit(counts, batch=batch), counts
    else:
        made, later = (
            [bc.LogNormalize, bc.QuantileNormalize][kind - 4]().fit(counts),
            {},
        )
        x = counts
    made.save("whole.npz")
    expected = as_numpy(made.transform(x, **later))
    data = Path("whole.npz").read_bytes()
    way = rng.choice(["bytes", "cut", "array", "header"])
    if way == "bytes":
        data = bytearray(data)
        for at in rng.integers(0, len(data), int(rng.integers(1, 6))):
            data[at] = rng.integers(256)
        Path("broken.npz").write_bytes(bytes(data))
    elif way == "cut":
        Path("broken.npz").write_bytes(data[: rng.integers(len(data))])
    else:
        rewrite(rng, way)
    try:
        found = bc.load("broken.npz")
        y = as_numpy(found.transform(x, **later))
    except BatchCorrError as error:
        error.due, error.traits = True, {f"damage: {way}"}
        raise
    if y.shape != expected.shape or not np.isfinite(y).all():
        raise Fault(f"a broken file ({way}) gives values that are not finite")
    if way in {"bytes", "cut"} and not np.array_equal(y, expected):
        raise Fault("a broken file gives other values")
    return {f"damage: {way}"}


def rewrite(rng, way):
    """Write the file again with one member changed, of its header or its arrays."""
    with zipfile.ZipFile("whole.npz") as old, zipfile.ZipFile("broken.npz", "w") as new:
        names = old.namelist()
        heads = [name for name in names if "header" in name or name.endswith(".json")]
        arrays = [name for name in names if name not in heads]
        chosen = rng.choice(heads if way == "header" else arrays or heads)
        for name in names:
            content = old.read(name)
            if name == chosen:
                content = broken(rng, content, name)
            if content is not None:
                new.writestr(name, content)


def broken(rng, content, name):
    if name.endswith(".json"):
        return json.dumps(with_junk(rng, json.loads(content))).encode()
    array = np.load(io.BytesIO(content))
    if array.dtype.kind in "US" or (array.dtype == np.uint8 and array.ndim == 1):
        text = array.item() if array.dtype.kind in "US" else bytes(array).decode()
        array = np.array(json.dumps(with_junk(rng, json.loads(text))))
        if content[:200].find(b"|u1") > 0:
            array = np.frombuffer(array.item().encode(), np.uint8)
    else:
        with warnings.catch_warnings(action="ignore"):
            ways = [
                lambda a: a[..., :-1],
                lambda a: a.T[None],
                lambda a: a.astype(np.float16),
                lambda a: a.astype(complex),
                lambda a: np.where(rng.random(a.shape) < 0.3, np.nan, a),
                lambda a: np.where(rng.random(a.shape) < 0.3, np.inf, a),
                lambda a: (a * 0).astype(a.dtype),
                lambda a: (-1 * a).astype(a.dtype),
                lambda a: (a * 1e30).astype(a.dtype) if a.dtype.kind == "f" else a,
                lambda a: np.asfortranarray(a).astype(">f8"),
                lambda _: None,
            ]
            array = ways[rng.integers(len(ways))](array)
    if array is None:
        return None
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_junk(rng, value):
    """JSON in which one value, at any depth, is something else, or is gone."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        if rng.random() < 0.2:
            return {k: v for k, v in value.items() if k != name}
        return value | {str(name): with_junk(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = int(rng.integers(len(value)))
        return [*value[:at], with_junk(rng, value[at]), *value[at + 1 :]]
    return JUNK[rng.integers(len(JUNK))]


def command(rng):
    """`batchcorr correct`, or `fit` and `apply`, on a table and a sheet of samples."""
    inputs = draw(rng, most=30)
    inputs.must, inputs.may, inputs.traits = [], False, set()
    add_labels(rng, inputs, ["str", "int", "text", "float", "category", "marks"])
    add_covariates(rng, inputs, ["none", "category", "number", "confounded", "two"])
    n, g = inputs.values.shape
    x = inputs.values
    ask = Ask(rng, inputs, x, alone=True)
    names = [f"s{k}" for k in range(n)]
    table = pd.DataFrame(x, names, [f"gene{k}" for k in range(g)])
    (table.T if rng.random() < 0.5 else table).to_csv("in.csv", na_rep="NA")
    sheet = pd.DataFrame({"batch": pd.Series(list(inputs.batch), dtype=object)})
    for name in inputs.covariates if inputs.covariates is not None else ():
        sheet[name] = np.asarray(inputs.covariates[name])
    sheet.index = names
    sheet.sample(frac=1, random_state=int(rng.integers(100))).to_csv("sheet.csv")
    try:
        expected, usable, fit = ask.expected()
    except Refused as reason:
        expected = reason
    for path in ("out.csv", "correction.npz"):
        Path(path).unlink(missing_ok=True)
    options = ["--samples", "sheet.csv", "--batch", "batch", "--method", ask.method]
    for name in inputs.covariates if inputs.covariates is not None else ():
        options += ["--covariate", name]
    for name, value in ask.options.items():
        options += ["--set", f"{name}={value}"]
    if rng.random() < 0.6:
        commands = [["correct", "in.csv", "out.csv", *options]]
    else:
        commands = [["fit", "in.csv", "correction.npz", *options]]
        commands += [["apply", "correction.npz", "in.csv", "out.csv", *options[:2]]]
    before = Path("in.csv").read_bytes(), Path("sheet.csv").read_bytes()
    for each in commands:
        result = CliRunner().invoke(app, each)
        if result.exit_code:
            break
    if (Path("in.csv").read_bytes(), Path("sheet.csv").read_bytes()) != before:
        raise Fault("the files were changed")
    if result.exit_code:
        if not isinstance(result.exception, SystemExit):
            raise Fault("a traceback") from result.exception
        if "Error" not in result.stderr or Path("out.csv").exists():
            raise Fault(f"refused without a word, or half done: {result.stderr}")
        if str(expected) == "degenerate":
            raise Skipped
        error = BatchCorrError(result.stderr)
        settled = isinstance(expected, Refused) or inputs.may
        error.due, error.traits = settled, inputs.traits
        raise error
    if str(expected) == "degenerate":
        raise Skipped
    if isinstance(expected, Refused):
        raise Fault(f"not refused: {expected}")
    y = pd.read_csv("out.csv", index_col=0, float_precision="round_trip")
    y = (y if y.index[0] == "s0" else y.T).loc[names].to_numpy(dtype=float)
    compare(y, expected, x, fit, usable, np.dtype(float))
    return inputs.traits
