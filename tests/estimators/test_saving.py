"""Saved corrections: those of 0.1.0 still load, and damaged ones of every kind do not."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import batchcorr as bc
from batchcorr._files import npz
from batchcorr._files.expected import Expected
from batchcorr.errors import FileError, InputError
from batchcorr.methods import registry

SAVED = Path(__file__).parents[1] / "golden" / "saved_0_1_0"
METHODS = sorted(path.stem for path in SAVED.glob("*.npz") if path.stem != "results")


@pytest.fixture(scope="module")
def results():
    with np.load(SAVED / "results.npz") as file:
        return dict(file)


def labels_of(method, results):
    known = pd.DataFrame({"sex": list("fm") * 6, "age": results["age"]})
    batch = np.repeat(["a", "b"], 6)
    return {
        "combat": {"batch": batch, "covariates": known},
        "standardize": {"batch": np.repeat([1, 2], 6)},
        "remove_batch_effect": {
            "batch": pd.DataFrame({"batch": batch, "kit": list("xyz") * 4}),
            "nuisance": known[["age"]],
        },
        "combat_seq": {"batch": batch, "covariates": known[["sex"]]},
    }.get(method, {})


@pytest.mark.parametrize("method", METHODS)
def test_corrections_of_0_1_0_do_what_they_did(method, results, tmp_path):
    counts = method in {"combat_seq", "log_normalize"}
    x = results["counts" if counts else "x"]
    labels = labels_of(method, results)
    correction = bc.load(SAVED / f"{method}.npz")
    y = correction.transform(x, **labels)
    np.testing.assert_allclose(y, results[method], rtol=1e-12, atol=1e-12)
    correction.save(tmp_path / "again.npz")
    again = bc.load(tmp_path / "again.npz").transform(x, **labels)
    np.testing.assert_array_equal(again, y)


def test_every_method_of_0_1_0_is_among_them():
    assert set(METHODS) <= set(registry())


# -- damage ---------------------------------------------------------------------------


def parts(method):
    with np.load(SAVED / f"{method}.npz") as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("header"))), arrays


def written(path, header, arrays):
    text = header if isinstance(header, str) else json.dumps(header)
    np.savez_compressed(path, header=np.array(text), **arrays)
    return path


def damages(method):
    """What can be wrong with the arrays of a file, one thing at a time."""
    _, arrays = parts(method)
    for name, values in arrays.items():
        if values.size:
            yield f"{name} cut short", {name: values[..., :-1]}
            yield f"{name} longer", {name: np.concatenate([values, values], axis=-1)}
        yield f"{name} is text", {name: values.astype("U9")}
        if values.dtype.kind == "f":
            yield f"{name} is narrow", {name: values.astype(np.float32)}
        yield f"{name} is complex", {name: values.astype(complex)}
        yield f"{name} is one number", {name: np.array(1.0)}
        yield f"{name} has another axis", {name: values[None]}
        if name.startswith("details.") and name != "details.mean_only":
            continue  # for people to read
        yield f"{name} is missing", {name: None}
        if values.dtype.kind != "f" or not values.size:
            continue
        for what in (np.nan, np.inf):
            changed = values.copy()
            changed.flat[0] = what
            yield f"{name} holds {what}", {name: changed}
        if name == "correction.scale":
            yield f"{name} is zero", {name: np.zeros_like(values)}
        if name.endswith(("scale", "phi", "phi_star", "top_rate")):
            yield f"{name} is negative", {name: -1 - values}
        if name == "target":
            yield f"{name} falls", {name: values[::-1].copy()}


ARRAYS = [(method, *damage) for method in METHODS for damage in damages(method)]


@pytest.mark.parametrize(
    ("method", "change"),
    [pytest.param(m, change, id=f"{m}: {what}") for m, what, change in ARRAYS],
)
def test_a_damaged_array_is_one_error(method, change, tmp_path):
    header, arrays = parts(method)
    arrays = {k: v for k, v in (arrays | change).items() if v is not None}
    with pytest.raises(FileError, match=r"is not a correction.*Cause: .*\.$"):
        bc.load(written(tmp_path / "c.npz", header, arrays))


HEADERS = {
    "schema": [0, 2.5, "1", None, True, [1], float("inf"), -float("inf")],
    "method": ["nope", None, 3, ["combat"], {}],
    "parameters": [{"nope": 1}, [], None, {"reference": {"a": 1}}, {"copy": [[1]]}],
    "features": [["a"], ["a", "a", "b"], [1, 2, 3], "abc", {"a": 1}],
    "n_features": [0, -3, 4, 3.0, "3", None, 10**400, True],
    "n_features_in": [0, "3", None],
    "columns": [["batch"], "batch"],
}
METADATA = {
    "batch": [{"name": "batch", "levels": ["a"]}, {"levels": ["a", "b"]}, [], "", 0],
    "factors": [[None], None, [{"name": "k", "levels": ["x", "y"]}], {}],
    "covariates": [None, {}, []],
    "nuisance": [None, {"names": ["age"]}],
    "binary": [[True], [1, 0], ["a", "b"], 3, {}],
}
COVARIATES = {
    "width": [10**9, -1, 2.0, "2"],
    "kept": [[0], [1, 0], [0, 0], [0, 10**9], ["0", "1"], [0.0, 1.0], [-1, 0]],
    "names": [["a", 1], "ab", None],
    "role": [None, 3],
    "variables": [[], [{"column": 3, "labels": None}], [None]],
    "formula": ["~ sex", {}, {"formula": "~ sex + __import__('os')"}],
}


def changed(header):
    for key, values in HEADERS.items():
        yield from ((f"{key} = {v!r:.30}", header | {key: v}) for v in values)
        yield f"no {key}", {k: v for k, v in header.items() if k != key}
    metadata = header.get("metadata")
    for key, values in METADATA.items() if metadata else ():
        for value in values:
            if value == metadata[key]:
                continue
            new = header | {"metadata": metadata | {key: value}}
            yield f"metadata.{key} = {value!r:.40}", new
    for key, values in COVARIATES.items() if header["method"] == "combat" else ():
        for value in values:
            part = metadata | {"covariates": metadata["covariates"] | {key: value}}
            yield f"covariates.{key} = {value!r:.40}", header | {"metadata": part}
    for key in ("target_sum", "mean_library") if "target_sum" in header else ():
        yield from ((f"{key} = {v}", header | {key: v}) for v in (0, -1.0, "3", None))


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_header_is_one_error(method, tmp_path):
    header, arrays = parts(method)
    path, faults = tmp_path / "c.npz", []
    for what, new in changed(header):
        try:
            bc.load(written(path, new, arrays))
        except FileError:
            continue
        except Exception as error:  # noqa: BLE001 - what a user would meet
            faults.append(f"{what}: {type(error).__name__}: {error}")
        else:
            faults.append(f"{what}: loaded")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '"schema"',
        "{",
        "[" * 100_000,
        '{"schema": 1e999}',
        '{"schema": ' + "9" * 5000 + "}",
    ],
    ids=range(7),
)
def test_a_header_that_is_no_header_is_one_error(text, tmp_path):
    _, arrays = parts("combat")
    with pytest.raises(FileError, match="is not a correction"):
        bc.load(written(tmp_path / "c.npz", text, arrays))


# -- files that lie about sizes -------------------------------------------------------


def npy_head(shape, dtype="<f8"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def replaced(path, method, **members):
    """Write the file of a method with other members, raw bytes by name."""
    with zipfile.ZipFile(SAVED / f"{method}.npz") as old:
        kept = {name: old.read(name) for name in old.namelist()}
    kept |= {f"{name.replace('__', '.')}.npy": raw for name, raw in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, raw in kept.items():
            new.writestr(name, raw)
    return path


def test_what_is_not_needed_is_never_unpacked(tmp_path, monkeypatch):
    path = replaced(tmp_path / "c.npz", "combat", bomb=npy_head((2**40,)), b2=b"no npy")
    opened = []
    real = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda s, m, *a: opened.append(m) or real(s, m, *a)
    )
    bc.load(path)
    names = {getattr(member, "filename", member) for member in opened}
    assert "correction.scale.npy" in names
    assert not names & {"bomb.npy", "b2.npy"}


@pytest.mark.parametrize(
    "raw",
    [npy_head((2, 3)), npy_head((2, 3)) + bytes(40), npy_head((2, 3)) + bytes(56)],
    ids=["nothing", "cut short", "longer"],
)
def test_an_array_of_another_length_than_it_says_is_refused(raw, tmp_path):
    path = replaced(tmp_path / "c.npz", "combat", correction__shift=raw)
    with pytest.raises(FileError, match=r"correction.shift is shorter or longer"):
        bc.load(path)


def test_sizes_are_bounded_before_anything_is_read(tmp_path):
    path = replaced(
        tmp_path / "c.npz", "quantile_normalize", target=npy_head((10**13,))
    )
    header, _ = parts("quantile_normalize")
    raw = npy_head((), f"<U{len(json.dumps(header)) + 20}")
    text = json.dumps(header | {"n_features": 10**13, "n_features_in": 10**13})
    raw = npy_head((), f"<U{len(text)}") + text.encode("utf-32-le")
    path = replaced(path, "quantile_normalize", target=npy_head((10**13,)), header=raw)
    with pytest.raises(FileError, match=r"target takes 74505.* GiB"):
        bc.load(path)
    path = replaced(path, "quantile_normalize", header=npy_head((), f"<U{2**28}"))
    with pytest.raises(FileError, match="header is not text"):
        bc.load(path)


# -- the reader by itself -------------------------------------------------------------


def test_arrays_come_checked_and_in_the_form_of_this_machine(tmp_path):
    path = tmp_path / "a.npz"
    npz.write(path, {"a": 1}, {"x": np.asfortranarray(np.ones((2, 3), ">f8")), "y": 2})
    with npz.reading(path, "no.") as (header, arrays):
        found = npz.take(arrays, {"x": Expected((2, 3), positive=True)})["x"]
        assert header == {"a": 1}
        assert set(arrays) == {"x", "y"}
        assert arrays["y"] == 2
    assert found.dtype == np.float64
    assert found.flags.c_contiguous
    for wanted in (Expected((3, 2)), Expected((2, 3), "i"), Expected((2, 3), least=2)):
        with pytest.raises(InputError, match=r"^x (is|holds)"):
            npz.take({"x": found}, {"x": wanted})
    with pytest.raises(InputError, match="z is missing"):
        npz.take({"x": found}, {"z": Expected((2, 3))})
